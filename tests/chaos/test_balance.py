"""A balance that is nearly empty, and everybody at once."""

import asyncio
from collections import Counter

import aiohttp

from gateway_core.money import parse_usd
from tests.support.stack import Stack

BODY = {
    "model": "gpt-4o-mini",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "x [[sim output_tokens=100]]"}],
}


async def test_a_hundred_at_once_on_a_small_balance_never_take_it_below_zero(stack: Stack) -> None:
    # One request holds about 0.00008 USD at the most: the balance covers a dozen at a time.
    key = await stack.make_key("nearly_empty", balance="0.001")
    statuses: Counter[int] = Counter()
    lowest: list[int] = []

    async def watch() -> None:
        async with stack.database() as database:
            while True:
                lowest.append(
                    await database.fetchval(
                        "SELECT posted_nano_usd - held_nano_usd FROM billing.accounts WHERE org_id = 'org_nearly_empty' AND mode = 'live'"
                    )
                )
                await asyncio.sleep(0.005)

    async def ask(session: aiohttp.ClientSession) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        async with session.post("/v1/chat/completions", json=BODY, headers=headers) as response:
            statuses[response.status] += 1

    watcher = asyncio.create_task(watch())
    async with aiohttp.ClientSession(stack.url) as session:
        for _ in range(3):
            await asyncio.gather(*(ask(session) for _ in range(100)))
    await stack.settled()
    watcher.cancel()
    assert set(statuses) == {200, 402}
    assert min(lowest) >= 0
    async with stack.database() as database:
        row = await database.fetchrow(
            "SELECT posted_nano_usd, held_nano_usd FROM billing.accounts WHERE org_id = 'org_nearly_empty' AND mode = 'live'"
        )
        sums = await database.fetchrow(
            """
            SELECT sum(price_nano_usd), sum(absorbed_nano_usd), count(*) FROM billing.requests
            WHERE org_id = 'org_nearly_empty' AND outcome = 'settled'
            """
        )
    assert row is not None
    assert sums is not None
    charged, absorbed, count = sums
    assert row["held_nano_usd"] == 0
    assert row["posted_nano_usd"] == parse_usd("0.001") - charged >= 0
    assert absorbed == 0
    assert count == statuses[200]
