"""What is heard of reservations, on its way to where they are counted: nobody who tells it is kept waiting."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter

from ext_authz.attempt_limiter import AttemptLimiter
from ext_authz.attempts import AttemptTold
from ext_authz.limiter import Limiter
from ext_authz.reservations import OPEN_S, Told
from ext_authz.shared_counts import ASK_AGAIN_S
from gateway_core.clock import Monotonic
from gateway_core.ids import OrgId

WORKERS: Final = 8
WAITING_MAX: Final = 10_000
"""Of more, the newest are not noted down; open requests among them are given up when their time is over."""


class _Note(NamedTuple):
    tell: Callable[[], Awaitable[bool]]
    heard_s: float


class ReservationNotes:
    """A queue, and the workers behind it."""

    def __init__(
        self, limiter: Limiter, attempts: AttemptLimiter, *, monotonic: Monotonic, registry: CollectorRegistry
    ) -> None:
        self._limiter = limiter
        self._attempts = attempts
        self._monotonic = monotonic
        self._waiting: asyncio.Queue[_Note] = asyncio.Queue(WAITING_MAX)
        self._dropped = Counter(
            "tollgate_ext_authz_ends_dropped",
            "What was heard of requests under limits and not noted down; a request counts as running for half a minute then",
            registry=registry,
        )

    def put(self, org_id: OrgId, told: Told) -> None:
        """Have it noted down."""
        self._put(partial(self._limiter.tell, org_id, told))

    def put_attempt(self, told: AttemptTold) -> None:
        """The same of an attempt."""
        self._put(partial(self._attempts.tell, told))

    def _put(self, tell: Callable[[], Awaitable[bool]]) -> None:
        try:
            self._waiting.put_nowait(_Note(tell, self._monotonic()))
        except asyncio.QueueFull:
            self._dropped.inc()

    async def work(self) -> None:
        """Note down, for ever, what was told; what cannot be noted now is, later, as long as it is of use."""
        while True:
            note = await self._waiting.get()
            while not await note.tell():
                if self._monotonic() > note.heard_s + OPEN_S:
                    self._dropped.inc()
                    break
                await asyncio.sleep(ASK_AGAIN_S)
