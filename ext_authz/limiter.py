"""Limits of keys, projects, organisations and models: counted for all processes together, and by each process alone while that cannot be."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter

from ext_authz.own_limits import OwnLimits
from ext_authz.reservations import Exceeded, Expected, Limit, Reservation, Told
from ext_authz.shared_counts import NotSharedError, SharedCounts
from gateway_core.ids import OrgId, RequestId
from gateway_core.limits import ScopedLimits

SLOT_WAITS_S: Final = (0.005, 0.02, 0.05)
"""A client that sends its next request when the last one is over is a little faster than the word that it is."""


class SharedLimits(Protocol):
    """Where all processes count. Every method raises `CountsUnavailableError` if it cannot now."""

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
        counts: SharedCounts,
        *,
        registry: CollectorRegistry,
    ) -> None:
        self._shared = shared
        self._own = own
        self._counts = counts
        self._refused = Counter(
            "tollgate_ext_authz_limited_total", "Requests refused by a limit", ["limit", "scope"], registry=registry
        )

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
        if (shared := self._shared) is not None:
            with suppress(NotSharedError):
                return self._noted(
                    await self._counts.ask(lambda: shared.use(org_id, limits, tokens=tokens, reserved=reserved))
                )
        return self._noted(self._own.use(limits, tokens=tokens, reserved=reserved))

    def _noted(self, found: Exceeded | None) -> Exceeded | None:
        if found is not None:
            self._refused.labels(found.limit, found.scope).inc()
        return found

    async def tell(self, org_id: OrgId, told: Told) -> bool:
        """What became of requests that count. False if nobody can be told now."""
        if (shared := self._shared) is None:
            return True
        return await self._counts.tell(lambda: shared.tell(org_id, told))

    async def _reserve(
        self, org_id: OrgId, request_id: RequestId, limits: Sequence[ScopedLimits], expected: Expected, uses: int
    ) -> Reservation | Exceeded:
        if (shared := self._shared) is not None:
            with suppress(NotSharedError):
                return await self._counts.ask(
                    lambda: shared.reserve(org_id, request_id, limits, tokens=expected.tokens, uses=uses)
                )
        return self._own.reserve(limits, expected.at_most)
