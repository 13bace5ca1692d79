"""How much is lent to Envoy at once: as much as is asked for, out of what a slice has, and none of it twice."""

import itertools

import structlog
from hypothesis import given
from hypothesis import strategies as st

from ext_authz.leases import BODY_BYTES_MIN, Bounds, LeaseId, Unspent, body_bound
from ext_authz.lender import USES_MAX, Lender
from ext_authz.slices import Payer, Slices, Taken
from gateway_core.ids import OrgId, SliceId
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd
from tests.support.admission import SliceDrawer

PAYER = Payer(OrgId("org_1"), Mode.LIVE)
BOUNDS = Bounds(BODY_BYTES_MIN, None)
AMOUNT = NanoUsd(10)
TTL_S = 0.5


class Desk:
    """A lender, slices, and a clock that a test moves."""

    def __init__(self, size: int = 1_000_000) -> None:
        self.seconds = 100.0
        leases, slices = itertools.count(1), itertools.count(1)
        self.lender = Lender(
            ttl_ms=int(TTL_S * 1000),
            new_lease_id=lambda: LeaseId(f"lease_{next(leases)}"),
            monotonic=lambda: self.seconds,
        )
        self.store = SliceDrawer(size)
        self.slices = Slices(
            self.store,
            new_slice_id=lambda: SliceId(f"slice_{next(slices)}"),
            monotonic=lambda: self.seconds,
            log=structlog.get_logger(),
        )

    async def take(self, shape: str = "a") -> Taken:
        taken = await self.slices.take(PAYER, AMOUNT, uses_max=self.lender.wanted(shape))
        assert taken is not None
        return taken

    async def lend(self, shape: str = "a") -> int:
        """How many uses there are beside the request that asks."""
        lease = self.lender.lend(shape, await self.take(shape), AMOUNT, BOUNDS)
        return 0 if lease is None else lease.uses


async def test_who_asks_once_in_a_while_is_lent_nothing() -> None:
    desk = Desk()
    for _ in range(5):
        assert await desk.lend() == 0
        desk.seconds += 2 * TTL_S + 0.001


async def test_who_asks_again_before_its_lease_is_over_is_lent_more_up_to_a_bound() -> None:
    desk = Desk()
    lent = []
    for _ in range(7):
        lent.append(await desk.lend())
        desk.seconds += 0.01
    assert lent == [0, 3, 15, 63, 255, 255, 255]
    assert lent[-1] == USES_MAX - 1


async def test_who_gives_back_most_of_it_is_lent_less_and_each_shape_by_itself() -> None:
    desk = Desk()
    for _ in range(5):
        await desk.lend()
        await desk.lend("b")
        desk.seconds += 0.01
    [back] = desk.lender.take_back([Unspent(LeaseId("lease_7"), 250)])
    assert back.uses == 250
    desk.seconds += TTL_S
    assert await desk.lend() == 2 * (255 - 250) - 1
    assert await desk.lend("b") == 255


async def test_a_lease_is_taken_back_once_and_no_more_of_it_than_was_lent() -> None:
    desk = Desk()
    await desk.lend()
    assert await desk.lend() == 3
    rest = (await desk.take("x")).slice.rest
    backs = list(desk.lender.take_back([Unspent(LeaseId("lease_1"), 999), Unspent(LeaseId("lease_1"), 3)]))
    assert [(back.uses, back.amount) for back in backs] == [(3, 3 * AMOUNT)]
    desk.slices.put_in(backs[0].slice, backs[0].amount)
    assert backs[0].slice.rest == rest + 3 * AMOUNT
    assert list(desk.lender.take_back([Unspent(LeaseId("lease_none"), 3)])) == []


async def test_what_comes_back_of_a_slice_that_is_used_up_goes_on_to_the_balance() -> None:
    desk = Desk(size=1000)
    await desk.lend()
    assert await desk.lend() == 3
    first = (await desk.take("x")).slice
    while (await desk.take("x")).slice is first:
        pass
    [back] = desk.lender.take_back([Unspent(LeaseId("lease_1"), 2)])
    before = first.rest
    desk.slices.put_in(back.slice, back.amount)
    await desk.slices.close()
    assert desk.store.returned[first.slice_id] == before + 2 * AMOUNT


async def test_no_lease_takes_more_than_a_part_of_what_a_slice_has_left() -> None:
    desk = Desk(size=1000)
    for _ in range(6):
        desk.lender.wanted("a")
    taken = await desk.take()
    assert taken.uses == 1000 // AMOUNT // 4


async def test_it_is_known_when_all_that_is_lent_will_be_over() -> None:
    desk = Desk()
    await desk.lend()
    assert desk.lender.end_s <= desk.seconds
    await desk.lend()
    assert desk.lender.end_s == desk.seconds + TTL_S


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300), st.sampled_from([0.0, 0.01, 0.2, 0.7])), max_size=60))
async def test_no_history_spends_a_slice_twice(steps: list[tuple[int, int, float]]) -> None:
    desk = Desk(size=10_000)
    spent, lent = 0, list[Unspent]()
    for shape, unspent, pause_s in steps:
        desk.seconds += pause_s
        for back in desk.lender.take_back(lent[-1:]):
            desk.slices.put_in(back.slice, back.amount)
            spent -= back.amount
        lent = lent[:-1]
        taken = await desk.take(str(shape))
        spent += taken.uses * AMOUNT
        lease = desk.lender.lend(shape, taken, AMOUNT, BOUNDS)
        if lease is not None:
            assert lease.uses == taken.uses - 1
            lent.append(Unspent(lease.lease_id, min(unspent, lease.uses)))
        await desk.slices.close() if not shape and unspent == 300 else None
    await desk.slices.close()
    set_aside = 10_000 * len(desk.store.opened)
    assert set_aside - sum(desk.store.returned.values()) == spent


@given(st.integers(0, 10**8))
def test_bodies_of_a_lease_may_be_as_long_as_the_one_that_asked_and_less_than_twice_as_long(size: int) -> None:
    bound = body_bound(size)
    assert size <= bound
    assert bound == BODY_BYTES_MIN or bound < 2 * size
