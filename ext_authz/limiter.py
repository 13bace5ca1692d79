"""Limits of keys, projects, organisations and models: counted for all processes together, and by each process alone while that cannot be."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from ext_authz.own_limits import OwnLimits
from ext_authz.redis_limits import CONNECTIONS_MAX, LimitsTrouble
from ext_authz.reservations import Exceeded, Expected, Limit, Reservation, Told
from gateway_core.clock import Monotonic
from gateway_core.ids import OrgId, RequestId
from gateway_core.limits import ScopedLimits
from gateway_core.logs import Logger

ASK_AGAIN_S: Final = 1.0
"""How long the shared counts are left alone after they could not be had."""

SLOT_WAITS_S: Final = (0.005, 0.02, 0.05)
"""A client that sends its next request when the last one is over is a little faster than the word that it is."""


class SharedLimits(Protocol):
    """Where all processes count. Every method raises one of `LimitsTrouble` if it cannot now."""

    async def reserve(
        self, org_id: OrgId, request_id: RequestId, limits: Sequence[ScopedLimits], *, tokens: int, uses: int
    ) -> Reservation | Exceeded:
        """Count a request as open, and as many like it as there may be up to so many in all, each as so many tokens, if the limits admit one."""

    async def use(
        self, org_id: OrgId, limits: Sequence[ScopedLimits], *, tokens: int, reserved: int
    ) -> Exceeded | None:
        """Count tokens that were used now; which limit has none left then, beside some that are only reserved."""

    async def tell(self, org_id: OrgId, told: Told) -> None:
        """What became of them."""


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
        # Who waits here sees, when it is its turn, whether those before it have found anybody.
        self._turns = asyncio.Semaphore(CONNECTIONS_MAX)
        self._refused = Counter(
            "tollgate_ext_authz_limited_total", "Requests refused by a limit", ["limit", "scope"], registry=registry
        )
        self._is_shared = Gauge(
            "tollgate_ext_authz_limits_shared",
            "1 while limits are counted for all processes together, 0 while each has its share",
            registry=registry,
        )
        self._is_shared.set(shared is not None)

    def share_among(self, processes: int) -> None:
        """So many processes share the limits while each counts alone."""
        self._own.share_among(processes)

    async def reserve(
        self, org_id: OrgId, request_id: RequestId, limits: Sequence[ScopedLimits], expected: Expected, *, uses: int = 1
    ) -> Reservation | Exceeded:
        """Count a request, or several alike, if the limits admit it; for a moment wait for another one to end."""
        found = await self._reserve(org_id, request_id, limits, expected, uses)
        for wait_s in SLOT_WAITS_S:
            if isinstance(found, Reservation) or found.limit is not Limit.CONCURRENCY:
                break
            await asyncio.sleep(wait_s)
            found = await self._reserve(org_id, request_id, limits, expected, uses)
        if isinstance(found, Exceeded):
            self._refused.labels(found.limit, found.scope).inc()
        return found

    async def use(
        self, org_id: OrgId, limits: Sequence[ScopedLimits], *, tokens: int, reserved: int
    ) -> Exceeded | None:
        """Count tokens that a session has used; which limit has none left for it then, beside those that are reserved for it."""
        async with self._turns:
            if (shared := self._reachable()) is not None:
                try:
                    found = await shared.use(org_id, limits, tokens=tokens, reserved=reserved)
                except LimitsTrouble as error:
                    self._leave_alone(error)
                else:
                    self._is_shared.set(1)
                    return self._noted(found)
        return self._noted(self._own.use(limits, tokens=tokens, reserved=reserved))

    def _noted(self, found: Exceeded | None) -> Exceeded | None:
        if found is not None:
            self._refused.labels(found.limit, found.scope).inc()
        return found

    async def tell(self, org_id: OrgId, told: Told) -> bool:
        """What became of requests that count. False if nobody can be told now."""
        if self._shared is None:
            return True
        async with self._turns:
            if (shared := self._reachable()) is None:
                return False
            try:
                await shared.tell(org_id, told)
            except LimitsTrouble as error:
                self._leave_alone(error)
                return False
        return True

    async def _reserve(
        self, org_id: OrgId, request_id: RequestId, limits: Sequence[ScopedLimits], expected: Expected, uses: int
    ) -> Reservation | Exceeded:
        async with self._turns:
            if (shared := self._reachable()) is not None:
                try:
                    found = await shared.reserve(org_id, request_id, limits, tokens=expected.tokens, uses=uses)
                except LimitsTrouble as error:
                    self._leave_alone(error)
                else:
                    self._is_shared.set(1)
                    return found
        return self._own.reserve(limits, expected.at_most)

    def _reachable(self) -> SharedLimits | None:
        return self._shared if self._monotonic() >= self._left_alone_until_s else None

    def _leave_alone(self, error: BaseException) -> None:
        self._left_alone_until_s = self._monotonic() + ASK_AGAIN_S
        self._is_shared.set(0)
        self._log.warning("limits_not_shared", error=type(error).__name__)
