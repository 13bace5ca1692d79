"""Slices: one question to the store for many requests, and what is not spent goes back."""

import asyncio
import itertools

import pytest
import structlog

from ext_authz.slices import NO_SLICE_S, REQUESTS_MIN, SPEND_S, Payer, Slices
from gateway_core.ids import OrgId, SliceId
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd
from tests.support.admission import SliceDrawer

PAYER = Payer(OrgId("org_1"), Mode.LIVE)
AMOUNT = NanoUsd(10)


class Bench:
    """Slices, their store, and a clock that a test moves."""

    def __init__(self, size: int | None = 1000) -> None:
        self.store = SliceDrawer(size)
        self.seconds = 0.0
        numbers = itertools.count(1)
        self.slices = Slices(
            self.store,
            new_slice_id=lambda: SliceId(f"slice_{next(numbers)}"),
            monotonic=lambda: self.seconds,
            log=structlog.get_logger(),
        )

    async def take(self, times: int = 1, amount: int = AMOUNT) -> list[str | None]:
        taken = [await self.slices.take(PAYER, NanoUsd(amount)) for _ in range(times)]
        # What was begun meanwhile ends.
        for _ in range(5):
            await asyncio.sleep(0)
        return [each and each.slice.slice_id for each in taken]


async def test_many_requests_are_one_question() -> None:
    bench = Bench()
    assert await bench.take(30) == ["slice_1"] * 30
    assert bench.store.opened == {"slice_1": PAYER}


async def test_never_more_is_spent_than_was_set_aside() -> None:
    bench = Bench(size=100)
    bench.store.size = 100
    taken = await bench.take(40)
    spent = {slice_id: taken.count(slice_id) * AMOUNT for slice_id in bench.store.opened}
    assert all(amount <= 100 for amount in spent.values())
    assert None not in taken


async def test_the_next_slice_is_opened_before_one_is_at_its_end_and_the_rest_of_that_goes_back() -> None:
    bench = Bench(size=1000)
    assert await bench.take(51) == ["slice_1"] * 51
    assert set(bench.store.opened) == {"slice_1", "slice_2"}
    assert await bench.take() == ["slice_2"]
    returning = asyncio.create_task(bench.slices.give_back())
    for _ in range(5):
        await asyncio.sleep(0)
    returning.cancel()
    assert bench.store.returned == {"slice_1": 490}


async def test_requests_that_come_at_once_wait_for_one_slice() -> None:
    bench = Bench()
    taken = await asyncio.gather(*(bench.slices.take(PAYER, AMOUNT) for _ in range(20)))
    assert {each and each.slice.slice_id for each in taken} == {"slice_1"}
    assert len(bench.store.opened) == 1


async def test_each_payer_has_slices_of_their_own() -> None:
    bench = Bench()
    play = Payer(OrgId("org_1"), Mode.TEST)
    for payer in (PAYER, play):
        assert await bench.slices.take(payer, AMOUNT) is not None
    assert bench.store.opened == {"slice_1": PAYER, "slice_2": play}


async def test_where_money_is_short_there_are_no_slices_and_nobody_asks_for_one_with_every_request() -> None:
    bench = Bench(size=AMOUNT * REQUESTS_MIN - 1)
    assert await bench.take(5) == [None] * 5
    bench.store.size = 1000
    assert await bench.take() == [None]
    bench.seconds += NO_SLICE_S
    assert await bench.take() == ["slice_2"]


async def test_when_the_money_comes_to_its_end_the_rest_of_the_last_slice_is_given_back_before_anything_else() -> None:
    bench = Bench(size=100)
    assert await bench.take() == ["slice_1"]
    bench.store.size = None
    assert await bench.take(1, amount=95) == [None]
    assert bench.store.returned == {"slice_1": 90}


async def test_a_slice_is_not_spent_from_when_its_time_is_over_and_its_rest_goes_back() -> None:
    bench = Bench()
    await bench.take()
    bench.seconds += SPEND_S
    bench.slices.put_away()
    await bench.slices.close()
    assert bench.store.returned == {"slice_1": 990}
    assert await bench.take() == ["slice_2"]


async def test_at_the_end_of_the_process_everything_goes_back() -> None:
    bench = Bench()
    await bench.take(3)
    await bench.slices.close()
    assert bench.store.returned == {"slice_1": 970}


async def test_a_store_that_is_away_is_not_noticed_while_there_is_a_slice() -> None:
    bench = Bench(size=1000)
    await bench.take()
    bench.store.trouble = OSError("gone")
    assert await bench.take(99) == ["slice_1"] * 99
    assert await bench.take() == [None]


@pytest.mark.parametrize("seconds", [0, SPEND_S / 2 + 1])
async def test_a_slice_is_renewed_while_it_has_half_of_its_time_left(seconds: float) -> None:
    bench = Bench()
    await bench.take()
    bench.seconds += seconds
    await bench.take()
    assert len(bench.store.opened) == (2 if seconds else 1)


async def test_a_free_request_needs_a_slice_too_and_takes_nothing_from_it() -> None:
    bench = Bench(size=None)
    assert await bench.take(1, amount=0) == [None]


async def test_a_request_whose_client_leaves_while_a_slice_is_opened_takes_nothing_of_it() -> None:
    bench = Bench()
    leaving = asyncio.create_task(bench.slices.take(PAYER, AMOUNT))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await bench.take() == ["slice_1"]
    await bench.slices.close()
    assert bench.store.returned == {"slice_1": 990}
