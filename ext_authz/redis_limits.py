"""Limits, counted in Redis (or Valkey) for all processes together, in one atomic script per question."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, TypeVar, assert_never

from pydantic import SecretStr

from ext_authz.redis_counts import RedisScripts, Script
from ext_authz.reservations import OPEN_S, Amended, Ended, Exceeded, Limit, Reservation, Room, Running, Told
from gateway_core.ids import OrgId, RequestId
from gateway_core.limits import WINDOW_S, Scope, ScopedLimits, Tally

T = TypeVar("T")

LEASE_PART: Final = 64
"""A lease takes no more than this part of what is left of a limit, and none where less is left than this: so little of it lies about
unspent when it nears its end."""

_LIMIT_BY_CODE: Final = {1: Limit.REQUESTS, 2: Limit.TOKENS, 3: Limit.CONCURRENCY}
_NUMBERS: Final = 3
"""For each tally in the answer of reserve.lua."""


class RedisLimits:
    """Asks Redis. Every method raises `CountsUnavailableError` if it does not answer in time."""

    def __init__(self, url: SecretStr, *, window_s: int = WINDOW_S, open_s: int = OPEN_S) -> None:
        self._scripts = RedisScripts(url)
        self._window_s = window_s
        self._open_s = open_s
        self._reserve, self._use, self._keep, self._amend = map(Script, ("reserve", "use", "keep", "amend"))

    async def reserve(
        self, org_id: OrgId, request_id: RequestId, limits: Sequence[ScopedLimits], *, tokens: int, uses: int
    ) -> Reservation | Exceeded:
        """Count requests, the first of them as open, and each as so many tokens, if all limits admit one. Asked again, they count once."""
        found: Reservation | None = None
        for slot, together in _by_slot(org_id, limits, lambda each: each.tally):
            asked = await self._reserve_in(slot, request_id, together, tokens=tokens, uses=uses, found=found)
            if isinstance(asked, Exceeded):
                if found is not None:
                    await self.tell(org_id, Amended(found.tallies, found.at, -found.uses, -found.uses * tokens))
                    await self.tell(org_id, Ended(found.tallies, request_id, found.at, 0))
                return asked
            if found is not None:
                if (beyond := found.uses - asked.uses) > 0:
                    await self.tell(org_id, Amended(found.tallies, found.at, -beyond, -beyond * tokens))
                asked = Reservation(
                    (*found.tallies, *asked.tallies), tokens, found.at, (*found.rooms, *asked.rooms), asked.uses
                )
            found = asked
        assert found is not None  # noqa: S101 - nobody asks without a limit
        return found

    async def _reserve_in(
        self,
        slot: str,
        request_id: RequestId,
        limits: Sequence[ScopedLimits],
        *,
        tokens: int,
        uses: int,
        found: Reservation | None,
    ) -> Reservation | Exceeded:
        tallies = tuple(each.tally for each in limits)
        code, which, wait_s, at, admitted, *numbers = await self._scripts.run(
            self._reserve,
            keys=[key for tally in tallies for key in _keys(slot, tally)],
            args=[
                request_id,
                uses if found is None else found.uses,
                tokens,
                self._open_s,
                self._window_s,
                LEASE_PART,
                "" if found is None else found.at,
                *(
                    -1 if limit is None else limit
                    for each in limits
                    for limit in (
                        each.limits.requests_per_minute,
                        each.limits.tokens_per_minute,
                        each.limits.concurrency,
                    )
                ),
            ],
        )
        rooms = tuple(
            Room(each.limits, *numbers[_NUMBERS * place : _NUMBERS * (place + 1)]) for place, each in enumerate(limits)
        )
        if code:
            return Exceeded(_LIMIT_BY_CODE[code], tallies[which - 1].scope, wait_s, rooms[which - 1])
        return Reservation(tallies, tokens, at, rooms, admitted)

    async def use(
        self, org_id: OrgId, limits: Sequence[ScopedLimits], *, tokens: int, reserved: int
    ) -> Exceeded | None:
        """Count tokens that were used now, against all tallies; the first limit that is used up then, beside what is only reserved."""
        exceeded: Exceeded | None = None
        for slot, together in _by_slot(org_id, limits, lambda each: each.tally):
            most = [each.limits.tokens_per_minute for each in together]
            which, wait_s, *numbers = await self._scripts.run(
                self._use,
                keys=[_keys(slot, each.tally)[0] for each in together],
                args=[tokens, reserved, self._window_s, *(-1 if limit is None else limit for limit in most)],
            )
            if which and exceeded is None:
                found = together[which - 1]
                exceeded = Exceeded(Limit.TOKENS, found.tally.scope, wait_s, Room(found.limits, *numbers))
        return exceeded

    async def tell(self, org_id: OrgId, told: Told) -> None:
        """What became of requests that count. Of one that is over it changes nothing to tell it again."""
        for slot, tallies in _by_slot(org_id, told.tallies, lambda tally: tally):
            keys = [_keys(slot, tally) for tally in tallies]
            match told:
                case Running(request_id=request_id):
                    await self._scripts.run(
                        self._keep, keys=[opened for _, opened in keys], args=[request_id, self._open_s]
                    )
                case Ended(request_id=request_id, at=at, more_tokens=more_tokens):
                    await self._scripts.run(
                        self._amend,
                        keys=[key for both in keys for key in both],
                        args=[request_id, at, 0, more_tokens, self._window_s],
                    )
                case Amended(at=at, more_requests=more_requests, more_tokens=more_tokens):
                    await self._scripts.run(
                        self._amend,
                        keys=[key for both in keys for key in both],
                        args=["", at, more_requests, more_tokens, self._window_s],
                    )
                case _:
                    assert_never(told)

    async def close(self) -> None:
        """Give the connection back."""
        await self._scripts.close()


def _by_slot(org_id: OrgId, found: Iterable[T], tally_of: Callable[[T], Tally]) -> Iterator[tuple[str, list[T]]]:
    """What one script may ask about: all of an organisation's, and a model's by itself."""

    def slot(each: T) -> str:
        tally = tally_of(each)
        return tally.name if tally.scope is Scope.MODEL else org_id

    for name, together in groupby(found, key=slot):
        yield name, list(together)


def _keys(slot: str, tally: Tally) -> tuple[str, str]:
    """Both in one slot of a cluster, by what stands in braces."""
    return f"tollgate:limits:{{{slot}}}:{tally}:used", f"tollgate:limits:{{{slot}}}:{tally}:open"
