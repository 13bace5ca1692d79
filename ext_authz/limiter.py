"""The limits of keys: counted for all processes together, and by each process alone while that cannot be."""

import asyncio
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from ext_authz.own_limits import OwnLimits
from ext_authz.redis_limits import LimitsTrouble
from ext_authz.reservations import Exceeded, Expected, Limit, Reservation, Told
from gateway_core.clock import Monotonic
from gateway_core.ids import KeyId, RequestId
from gateway_core.limits import Limits
from gateway_core.logs import Logger

ASK_AGAIN_S: Final = 1.0
"""How long the shared counts are left alone after they could not be had."""

SLOT_WAITS_S: Final = (0.005, 0.02, 0.05)
"""A client that sends its next request when the last one is over is a little faster than the word that it is."""


class SharedLimits(Protocol):
    """Where all processes count. Every method raises one of `LimitsTrouble` if it cannot now."""

    async def reserve(
        self, key_id: KeyId, request_id: RequestId, limits: Limits, tokens: int
    ) -> Reservation | Exceeded:
        """Count a request as open and as so many tokens, if the limits admit it."""

    async def keep(self, key_id: KeyId, request_id: RequestId) -> None:
        """A request is still open."""

    async def finish(self, told: Told) -> None:
        """A request is over, and has used so many tokens."""


class Limiter:
    """Never in the way of a request for a fault of its own: limits are neither access nor money."""

    def __init__(
        self,
        shared: SharedLimits | None,
        own: OwnLimits,
        *,
        monotonic: Monotonic,
        registry: CollectorRegistry,
        log: Logger,
    ) -> None:
        self._shared = shared
        self._own = own
        self._monotonic = monotonic
        self._log = log
        self._left_alone_until_s = float("-inf")
        self._refused = Counter(
            "tollgate_ext_authz_limited_total", "Requests refused by a limit of their key", ["limit"], registry=registry
        )
        self._is_shared = Gauge(
            "tollgate_ext_authz_limits_shared",
            "1 while the limits of keys are counted for all processes together, 0 while each has its share",
            registry=registry,
        )
        self._is_shared.set(shared is not None)

    def share_among(self, processes: int) -> None:
        """So many processes share the limits while each counts alone."""
        self._own.share_among(processes)

    async def reserve(
        self, key_id: KeyId, request_id: RequestId, limits: Limits, expected: Expected
    ) -> Reservation | Exceeded:
        """Count a request, if the limits admit it; for a moment wait for another one to end."""
        found = await self._reserve(key_id, request_id, limits, expected)
        for wait_s in SLOT_WAITS_S:
            if isinstance(found, Reservation) or found.limit is not Limit.CONCURRENCY:
                break
            await asyncio.sleep(wait_s)
            found = await self._reserve(key_id, request_id, limits, expected)
        if isinstance(found, Exceeded):
            self._refused.labels(found.limit).inc()
        return found

    async def note(self, told: Told) -> bool:
        """A request still runs, or is over. False if nobody can be told now."""
        if self._shared is None:
            return True
        if (shared := self._reachable()) is None:
            return False
        try:
            if told.is_over:
                await shared.finish(told)
            else:
                await shared.keep(told.key_id, told.request_id)
        except LimitsTrouble as error:
            self._leave_alone(error)
            return False
        return True

    async def _reserve(
        self, key_id: KeyId, request_id: RequestId, limits: Limits, expected: Expected
    ) -> Reservation | Exceeded:
        if (shared := self._reachable()) is not None:
            try:
                found = await shared.reserve(key_id, request_id, limits, expected.tokens)
            except LimitsTrouble as error:
                self._leave_alone(error)
            else:
                self._is_shared.set(1)
                return found
        return self._own.reserve(key_id, limits, expected.at_most)

    def _reachable(self) -> SharedLimits | None:
        return self._shared if self._monotonic() >= self._left_alone_until_s else None

    def _leave_alone(self, error: BaseException) -> None:
        self._left_alone_until_s = self._monotonic() + ASK_AGAIN_S
        self._is_shared.set(0)
        self._log.warning("limits_not_shared", error=type(error).__name__)
