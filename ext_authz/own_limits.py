"""The limits of keys as one process counts them alone: its share of each, while the shared counts cannot be had.

Requests at once are not limited here: where a request ends is told to any of the processes, and not to the one that admitted it.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from ext_authz.reservations import Exceeded, Limit, Reservation, Room
from gateway_core.clock import Monotonic
from gateway_core.ids import KeyId
from gateway_core.limits import WINDOW_S, Limits

KEYS_MAX: Final = 100_000
"""Of more keys the one that was asked for longest ago begins anew."""


@dataclass(slots=True)
class _Second:
    at: int
    requests: int = 0
    tokens: int = 0


@dataclass(slots=True)
class _Used:
    """By the second, oldest first; at most as many as there are in a minute."""

    seconds: list[_Second] = field(default_factory=list)

    def forget_before(self, at: int) -> None:
        self.seconds = [second for second in self.seconds if second.at >= at]

    def wait_s(self, *, requests_over: int, tokens_over: int, now: int) -> int:
        """Until enough no longer counts."""
        for second in self.seconds:
            requests_over -= second.requests
            tokens_over -= second.tokens
            if requests_over <= 0 and tokens_over <= 0:
                return second.at + WINDOW_S - now
        return WINDOW_S


class OwnLimits:
    """Counts in memory. A share is never less than one."""

    def __init__(self, monotonic: Monotonic) -> None:
        self._monotonic = monotonic
        self._processes = 1
        self._used: OrderedDict[KeyId, _Used] = OrderedDict()

    def share_among(self, processes: int) -> None:
        """So many processes admit requests."""
        self._processes = max(1, processes)

    def reserve(self, key_id: KeyId, limits: Limits, tokens: int) -> Reservation | Exceeded:
        """Count a request and its tokens, if this process's share of the limits admits it."""
        now = int(self._monotonic())
        used = self._used.setdefault(key_id, _Used())
        self._used.move_to_end(key_id)
        self._forget_others(now)
        used.forget_before(now - WINDOW_S + 1)
        requests_max, tokens_max = self._share(limits.requests_per_minute), self._share(limits.tokens_per_minute)
        limits = Limits(requests_max, tokens_max)
        if tokens_max is not None:
            tokens = min(tokens, tokens_max)
        requests, all_tokens = sum(each.requests for each in used.seconds), sum(each.tokens for each in used.seconds)
        renews_in_s = (used.seconds[0].at if used.seconds else now) + WINDOW_S - now
        if requests_max is not None and requests >= requests_max:
            wait_s = used.wait_s(requests_over=requests + 1 - requests_max, tokens_over=0, now=now)
            return Exceeded(Limit.REQUESTS, wait_s, Room(limits, requests, all_tokens, renews_in_s))
        if tokens_max is not None and all_tokens + tokens > tokens_max:
            wait_s = used.wait_s(requests_over=0, tokens_over=all_tokens + tokens - tokens_max, now=now)
            return Exceeded(Limit.TOKENS, wait_s, Room(limits, requests, all_tokens, renews_in_s))
        if not used.seconds or used.seconds[-1].at != now:
            used.seconds.append(_Second(now))
        used.seconds[-1].requests += 1
        used.seconds[-1].tokens += tokens
        return Reservation(tokens, now, Room(limits, requests + 1, all_tokens + tokens, renews_in_s))

    def _forget_others(self, now: int) -> None:
        """Those who were asked for longest ago, if nothing of them counts or there are too many. The newest is never among them."""
        while len(self._used) > 1:
            oldest = next(iter(self._used.values()))
            counts = oldest.seconds and oldest.seconds[-1].at > now - WINDOW_S
            if counts and len(self._used) <= KEYS_MAX:
                break
            self._used.popitem(last=False)

    def _share(self, limit: int | None) -> int | None:
        return None if limit is None else max(1, limit // self._processes)
