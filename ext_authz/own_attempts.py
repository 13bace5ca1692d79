"""Limits of providers as one process counts them alone: its share of each, while the shared counts cannot be had.

Nobody's share is looked after here, nor what runs: where an attempt ends is told to any of the processes.
"""

from dataclasses import dataclass

from ext_authz.attempts import Attempt, Bucket, Counted, Full, requests_kept, seconds_until, tokens_kept
from gateway_core.clock import Monotonic
from gateway_core.ids import ProviderName
from gateway_core.limits import Limits


@dataclass(slots=True)
class _Left:
    requests: Bucket
    tokens: Bucket


class OwnAttempts:
    """Counts in memory, for as many providers as the catalogue has with such limits. A share is never less than one."""

    def __init__(self, monotonic: Monotonic) -> None:
        self._monotonic = monotonic
        self._processes = 1
        self._left: dict[ProviderName, _Left] = {}

    def share_among(self, processes: int) -> None:
        """So many processes count."""
        self._processes = max(1, processes)

    def count(self, attempt: Attempt, limits: Limits) -> Counted | Full:
        """Count an attempt, if this process's share of the limits lets it be made."""
        now_s = self._monotonic()
        requests, tokens = self._share(limits.requests_per_minute), self._share(limits.tokens_per_minute)
        left = self._left.get(attempt.provider)
        if left is None:
            # Nothing is known of the last minute, so nothing is kept of it.
            left = self._left[attempt.provider] = _Left(Bucket(1, now_s), Bucket(1, now_s))
        if requests is not None:
            left.requests.refill(requests, requests_kept(requests), now_s)
            if left.requests.level < 1:
                return Full(seconds_until(1 - left.requests.level, requests))
        if tokens is not None:
            left.tokens.refill(tokens, tokens_kept(tokens), now_s)
            if left.tokens.level <= 0:
                return Full(seconds_until(-left.tokens.level, tokens))
        if requests is not None:
            left.requests.level -= 1
        if tokens is not None:
            left.tokens.level -= attempt.tokens
        return Counted(None)

    def _share(self, limit: int | None) -> int | None:
        return None if limit is None else max(1, limit // self._processes)
