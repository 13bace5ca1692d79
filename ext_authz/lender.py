"""How large leases are, and what is out of them: money is taken from slices for requests that may come, and put back if they do not."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from ext_authz.leases import Bounds, Lease, LeaseId, Unspent
from ext_authz.reservations import Reservation
from ext_authz.slices import Slice, Taken
from gateway_core.clock import Monotonic
from gateway_core.money import NanoUsd

USES_MAX: Final = 256
"""Requests of one lease."""

GROWTH: Final = 4
"""How much larger the next lease is where one was too small."""

DEMANDS_MAX: Final = 65_536
LENT_MAX: Final = 16_384
"""Leases that are remembered for what may come back of them. What comes back of others goes back with its slice."""


@dataclass(slots=True)
class _Demand:
    """How many requests the last lease was good for, and when it was lent."""

    uses: int
    lent_s: float


@dataclass(frozen=True, slots=True)
class _Lent:
    taken: Taken
    amount: NanoUsd
    uses: int
    shape: Hashable
    reservation: Reservation | None


class Back(NamedTuple):
    """What goes back into a slice, for so many requests that have not come, and what they count as."""

    slice: Slice
    amount: NanoUsd
    uses: int
    reservation: Reservation | None


class Lender:
    """Lends to whoever asks often.

    Whoever asks again before its lease has ended is lent more the next time, and whoever gives back most of it less: a key that asks
    once in a while has no leases, and one that asks a thousand times a second has large ones.
    """

    def __init__(self, *, ttl_ms: int, new_lease_id: Callable[[], LeaseId], monotonic: Monotonic) -> None:
        self._ttl_ms = ttl_ms
        self._new_lease_id = new_lease_id
        self._monotonic = monotonic
        self._demands: OrderedDict[Hashable, _Demand] = OrderedDict()
        self._lent: OrderedDict[LeaseId, _Lent] = OrderedDict()
        self._end_s = 0.0

    @property
    def end_s(self) -> float:
        """When all that is lent by now will be over, by the monotonic clock."""
        return self._end_s

    @property
    def ttl_ms(self) -> int:
        """How long one may be spent; 0 if there are none."""
        return self._ttl_ms

    def wanted(self, shape: Hashable) -> int:
        """For how many requests of a shape money should be taken now, the one that asks among them."""
        now_s = self._monotonic()
        demand = self._demands.pop(shape, None)
        if demand is None or now_s - demand.lent_s > 2 * self._ttl_ms / 1000:
            demand = _Demand(1, now_s)
        elif now_s - demand.lent_s < self._ttl_ms / 1000:
            demand.uses = min(GROWTH * demand.uses, USES_MAX)
        demand.lent_s = now_s
        if demand.uses > 1:
            # Envoy counts from when it asked, which was before now.
            self._end_s = now_s + self._ttl_ms / 1000
        self._demands[shape] = demand
        if len(self._demands) > DEMANDS_MAX:
            self._demands.popitem(last=False)
        return demand.uses

    def lend(
        self,
        shape: Hashable,
        taken: Taken,
        amount: NanoUsd,
        bounds: Bounds,
        reservation: Reservation | None = None,
    ) -> Lease | None:
        """The lease for money that was taken, and for what counts against limits; None if there is none left beside what the request needs that asks."""
        uses = taken.uses - 1
        if uses < 1:
            return None
        lease_id = self._new_lease_id()
        self._lent[lease_id] = _Lent(taken, amount, uses, shape, reservation)
        if len(self._lent) > LENT_MAX:
            self._lent.popitem(last=False)
        return Lease(lease_id, uses, self._ttl_ms, bounds)

    def has_lent(self, lease_id: LeaseId) -> bool:
        """Whether a lease is of this process, and was not taken back yet."""
        return lease_id in self._lent

    def take_back(self, unspent: Iterable[Unspent]) -> Iterator[Back]:
        """Envoy will not spend these any more: what goes back into slices. Each lease is taken back once, and no more of it than was lent."""
        for each in unspent:
            lent = self._lent.pop(each.lease_id, None)
            if lent is None:
                continue
            rest = min(each.uses, lent.uses)
            demand = self._demands.get(lent.shape)
            if demand is not None:
                demand.uses = max(1, min(demand.uses, 2 * (lent.uses - rest)))
            yield Back(lent.taken.slice, NanoUsd(lent.amount * rest), rest, lent.reservation)
