"""Who may ask Postgres for a hold: of one payer a few at once, so that nobody takes all connections.

The holds of a payer wait for each other at its balance anyway.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from ext_authz.slices import Payer

AT_ONCE_MAX: Final = 2
WAITING_MAX: Final = 200
"""Beyond that many it would take longer than Envoy waits for an answer."""


@dataclass(slots=True)
class _Queue:
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE_MAX))
    present: int = 0


class Turns:
    """The queues of those payers that are asking."""

    def __init__(self) -> None:
        self._queues: dict[Payer, _Queue] = {}

    @asynccontextmanager
    async def of(self, payer: Payer) -> AsyncIterator[bool]:
        """Wait for a turn, which lasts while the block runs; False, at once, if too many wait."""
        queue = self._queues.setdefault(payer, _Queue())
        if queue.present >= AT_ONCE_MAX + WAITING_MAX:
            yield False
            return
        queue.present += 1
        try:
            async with queue.turns:
                yield True
        finally:
            queue.present -= 1
            if not queue.present:
                del self._queues[payer]
