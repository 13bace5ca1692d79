"""Limits as one process counts them alone: its share of each, while the shared counts cannot be had.

Requests at once are not limited here: where a request ends is told to any of the processes, and not to the one that admitted it.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ext_authz.reservations import Exceeded, Limit, Reservation, Room
from gateway_core.clock import Monotonic
from gateway_core.limits import WINDOW_S, Limits, ScopedLimits, Tally

TALLIES_MAX: Final = 100_000
"""Of more the one that was asked for longest ago begins anew."""


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

    @property
    def requests(self) -> int:
        return sum(each.requests for each in self.seconds)

    @property
    def tokens(self) -> int:
        return sum(each.tokens for each in self.seconds)

    def count(self, at: int, tokens: int, *, requests: int = 1) -> None:
        if not self.seconds or self.seconds[-1].at != at:
            self.seconds.append(_Second(at))
        self.seconds[-1].requests += requests
        self.seconds[-1].tokens += tokens

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
        self._used: OrderedDict[Tally, _Used] = OrderedDict()

    def share_among(self, processes: int) -> None:
        """So many processes admit requests."""
        self._processes = max(1, processes)

    def reserve(self, limits: Sequence[ScopedLimits], tokens: int) -> Reservation | Exceeded:
        """Count a request and its tokens, if this process's share of all limits admits it."""
        now = int(self._monotonic())
        shares = [
            Limits(self._share(each.limits.requests_per_minute), self._share(each.limits.tokens_per_minute))
            for each in limits
        ]
        tokens = min((tokens, *(each.tokens_per_minute for each in shares if each.tokens_per_minute is not None)))
        counted: list[tuple[_Used, Room]] = []
        for each, share in zip(limits, shares, strict=True):
            used = self._used.setdefault(each.tally, _Used())
            self._used.move_to_end(each.tally)
            used.forget_before(now - WINDOW_S + 1)
            room = Room(
                share, used.requests, used.tokens, (used.seconds[0].at if used.seconds else now) + WINDOW_S - now
            )
            if (limit := _in_the_way(room, tokens)) is not None:
                self._forget_others(now)
                return Exceeded(limit, each.tally.scope, _wait_s(used, room, limit, tokens, now), room)
            counted.append((used, room))
        for used, _ in counted:
            used.count(now, tokens)
        self._forget_others(now)
        rooms = tuple(replace(room, requests=room.requests + 1, tokens=room.tokens + tokens) for _, room in counted)
        return Reservation(tuple(each.tally for each in limits), tokens, now, rooms)

    def use(self, limits: Sequence[ScopedLimits], *, tokens: int, reserved: int) -> Exceeded | None:
        """Count tokens of a request that was counted before; of which limit this process's share is used up then, beside what is reserved."""
        now = int(self._monotonic())
        exceeded: Exceeded | None = None
        for each in limits:
            used = self._used.setdefault(each.tally, _Used())
            self._used.move_to_end(each.tally)
            used.forget_before(now - WINDOW_S + 1)
            used.count(now, tokens, requests=0)
            share = Limits(tokens_per_minute=self._share(each.limits.tokens_per_minute))
            room = Room(share, used.requests, max(0, used.tokens - reserved), used.seconds[0].at + WINDOW_S - now)
            if exceeded is None and _in_the_way(room, 1) is Limit.TOKENS:
                exceeded = Exceeded(Limit.TOKENS, each.tally.scope, _wait_s(used, room, Limit.TOKENS, 1, now), room)
        self._forget_others(now)
        return exceeded

    def _forget_others(self, now: int) -> None:
        """Those that were asked for longest ago, if nothing of them counts or there are too many. The newest is never among them."""
        while len(self._used) > 1:
            oldest = next(iter(self._used.values()))
            counts = oldest.seconds and oldest.seconds[-1].at > now - WINDOW_S
            if counts and len(self._used) <= TALLIES_MAX:
                break
            self._used.popitem(last=False)

    def _share(self, limit: int | None) -> int | None:
        return None if limit is None else max(1, limit // self._processes)


def _in_the_way(room: Room, tokens: int) -> Limit | None:
    if room.limits.requests_per_minute is not None and room.requests >= room.limits.requests_per_minute:
        return Limit.REQUESTS
    if room.limits.tokens_per_minute is not None and room.tokens + tokens > room.limits.tokens_per_minute:
        return Limit.TOKENS
    return None


def _wait_s(used: _Used, room: Room, limit: Limit, tokens: int, now: int) -> int:
    if limit is Limit.REQUESTS:
        return used.wait_s(
            requests_over=room.requests + 1 - (room.limits.requests_per_minute or 0), tokens_over=0, now=now
        )
    return used.wait_s(
        requests_over=0, tokens_over=room.tokens + tokens - (room.limits.tokens_per_minute or 0), now=now
    )
