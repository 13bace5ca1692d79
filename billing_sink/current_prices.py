"""The price book as it was read last, and read on when somebody needs what is newer."""

import asyncio
from typing import Protocol

from billing_sink.prices import PriceBook
from gateway_core.ids import PriceVersion


class PublishedPrices(Protocol):
    """Where prices are published."""

    async def read(self, known: PriceBook) -> PriceBook:
        """What is known, and what came after.

        Raises:
            asyncpg.PostgresError, OSError: it cannot be read now.
        """


class CurrentPrices:
    """One book for whoever shares it; one reading at a time.

    Attributes:
        book: of the last reading; empty before the first.
    """

    def __init__(self, published: PublishedPrices) -> None:
        self._published = published
        self._reading = asyncio.Lock()
        self.book = PriceBook.of(PriceVersion(0), ())

    async def newest(self) -> PriceBook:
        """Everything that is published by now.

        Raises:
            asyncpg.PostgresError, OSError: it cannot be read now.
        """
        async with self._reading:
            self.book = await self._published.read(self.book)
        return self.book

    async def at(self, version: PriceVersion) -> PriceBook:
        """What is known, if that reaches to a version; else everything.

        Raises:
            asyncpg.PostgresError, OSError: it cannot be read now.
        """
        if self.book.as_of < version:
            async with self._reading:
                if self.book.as_of < version:
                    self.book = await self._published.read(self.book)
        return self.book
