"""Limits of providers: counted for all processes together, and by each process alone while that cannot be."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter

from ext_authz.attempts import Attempt, AttemptTold, Counted, Full
from ext_authz.own_attempts import OwnAttempts
from ext_authz.shared_counts import NotSharedError, SharedCounts
from gateway_core.ids import ProviderName
from gateway_core.limits import Limits


class SharedAttempts(Protocol):
    """Where all processes count. Every method raises `CountsUnavailableError` if it cannot now."""

    async def count(self, attempt: Attempt, limits: Limits) -> Counted | Full:
        """Count an attempt, if the limits let it be made."""

    async def tell(self, told: AttemptTold) -> None:
        """What became of attempts."""


class AttemptLimiter:
    """Never in the way of an attempt for a fault of its own, as `Limiter` is not of a request."""

    def __init__(
        self, shared: SharedAttempts | None, own: OwnAttempts, counts: SharedCounts, *, registry: CollectorRegistry
    ) -> None:
        self._shared = shared
        self._own = own
        self._counts = counts
        self._full = Counter(
            "tollgate_ext_authz_provider_full_total",
            "Attempts that were not made, since the provider was full, or the share of their organisation used up",
            ["provider"],
            registry=registry,
        )

    def share_among(self, processes: int) -> None:
        """So many processes share the limits while each counts alone."""
        self._own.share_among(processes)

    async def count(self, attempt: Attempt, of: Mapping[ProviderName, Limits]) -> Counted | Full:
        """Count an attempt, if the limits of its provider let it be made."""
        limits = of.get(attempt.provider)
        if limits is None:
            # Envoy is at another revision than this process.
            return Counted(None)
        found = await self._count(attempt, limits)
        if isinstance(found, Full):
            self._full.labels(attempt.provider).inc()
        return found

    async def _count(self, attempt: Attempt, limits: Limits) -> Counted | Full:
        if (shared := self._shared) is not None:
            with suppress(NotSharedError):
                return await self._counts.ask(lambda: shared.count(attempt, limits))
        return self._own.count(attempt, limits)

    async def tell(self, told: AttemptTold) -> bool:
        """What became of attempts. False if nobody can be told now."""
        if (shared := self._shared) is None:
            return True
        return await self._counts.tell(lambda: shared.tell(told))
