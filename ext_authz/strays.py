"""What Envoy gives back to a process that has not lent it: the others are told, and whoever has lent it takes it back.

Envoy asks whichever process answers next, so with several of them most of what it does not spend comes to another one than the one that has taken
money and counted requests for it.
"""

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter

from ext_authz.leases import Unspent
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble

GATHERED_S: Final = 0.05
TOLD_MAX: Final = 150
"""At once: Postgres takes less than 8,000 bytes."""
WAITING_MAX: Final = 1000
"""Of more, the money goes back with its slice, and the requests count until their minute is over."""


class Announcer(Protocol):
    """Tells every process."""

    async def tell_unspent(self, unspent: str) -> None:
        """Raises `Trouble` where nobody can be told."""


class Strays:
    """A queue, and what empties it."""

    def __init__(self, announcer: Announcer, *, registry: CollectorRegistry, log: Logger) -> None:
        self._announcer = announcer
        self._log = log
        self._waiting: asyncio.Queue[Unspent] = asyncio.Queue(WAITING_MAX)
        self._lost = Counter(
            "tollgate_ext_authz_unspent_lost",
            "Leases that Envoy gave back and whose process was not told of",
            registry=registry,
        )

    def put(self, unspent: Iterable[Unspent]) -> None:
        """Have the others told."""
        for each in unspent:
            try:
                self._waiting.put_nowait(each)
            except asyncio.QueueFull:
                self._lost.inc()

    async def tell(self) -> None:
        """Tell them, for ever; what comes within a moment together."""
        while True:
            told = [await self._waiting.get()]
            await asyncio.sleep(GATHERED_S)
            while len(told) < TOLD_MAX and not self._waiting.empty():
                told.append(self._waiting.get_nowait())
            try:
                await self._announcer.tell_unspent(",".join(map(str, told)))
            except Trouble as error:
                self._lost.inc(len(told))
                self._log.warning("unspent_not_told", error=type(error).__name__)
