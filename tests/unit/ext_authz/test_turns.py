"""Who waits for a hold keeps nobody else from one."""

import asyncio

from ext_authz.slices import Payer
from ext_authz.turns import AT_ONCE_MAX, WAITING_MAX, Turns
from gateway_core.ids import OrgId
from gateway_core.mode import Mode

ADA, EVE = (Payer(OrgId(name), Mode.LIVE) for name in ("org_ada", "org_eve"))


async def test_a_payer_has_a_few_turns_at_once_and_nobody_waits_for_somebody_else() -> None:
    turns, going, most = Turns(), 0, 0
    go = asyncio.Event()

    async def ask(payer: Payer) -> bool:
        nonlocal going, most
        async with turns.of(payer) as has_turn:
            going += has_turn
            most = max(most, going)
            await go.wait()
            going -= has_turn
        return has_turn

    asking = [asyncio.create_task(ask(EVE)) for _ in range(20)]
    await asyncio.sleep(0)
    assert going == AT_ONCE_MAX
    other = asyncio.create_task(ask(ADA))
    await asyncio.sleep(0)
    assert going == AT_ONCE_MAX + 1
    go.set()
    assert await asyncio.gather(*asking, other) == [True] * 21
    assert most == AT_ONCE_MAX + 1


async def test_more_than_can_be_answered_in_time_are_turned_away_and_the_queue_is_empty_again_afterwards() -> None:
    turns, go = Turns(), asyncio.Event()

    async def ask() -> bool:
        async with turns.of(EVE) as has_turn:
            if has_turn:
                await go.wait()
            return has_turn

    asking = [asyncio.create_task(ask()) for _ in range(AT_ONCE_MAX + WAITING_MAX + 5)]
    await asyncio.sleep(0)
    go.set()
    assert (await asyncio.gather(*asking)).count(False) == 5
    assert turns._queues == {}


async def test_who_leaves_while_waiting_takes_no_turn_along() -> None:
    turns, go = Turns(), asyncio.Event()

    async def ask() -> bool:
        async with turns.of(EVE) as has_turn:
            await go.wait()
            return has_turn

    asking = [asyncio.create_task(ask()) for _ in range(10)]
    await asyncio.sleep(0)
    for each in asking[1::2]:
        each.cancel()
    go.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert answers[0::2] == [True] * 5
    assert turns._queues == {}
