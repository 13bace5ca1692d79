"""A thousand requests at once on a balance for a few: those few are served, and nobody else is."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp

from tests.support.scripted_provider import scripted_provider
from tests.support.stack import Stack, add_model, add_provider, eventually, wait_until_routed

REQUESTS = 1_000
COVERED = 37
TOKENS = 100
"""Of each answer at the most: below the floor, so a request is served whole or not at all. A token costs a nano-USD."""
USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
CHARGED = 25
TRIES = 10
RETRY_S, RETRY_S_MAX = 0.5, 8.0
"""How long the official SDKs wait before they try the first time again, and at the most; they double it each time."""


class Crowd:
    """Requests that are all open before the first of them can be decided: each has sent all but the last byte of its body."""

    def __init__(self, session: aiohttp.ClientSession, body: bytes, requests: int) -> None:
        self._session = session
        self._body = body
        self._open = asyncio.Barrier(requests)
        self.decided = Counter[int]()

    async def ask(self) -> str:
        """The id of a request that came to its end; whoever is told that too many wait asks again."""
        data: AsyncIterator[bytes] | bytes = self._held_back()
        for tried in range(TRIES):
            headers = {"Content-Length": str(len(self._body))}
            async with self._session.post("/v1/chat/completions", data=data, headers=headers) as response:
                if response.status != 429:
                    self.decided[response.status] += 1
                    answer = await response.json()
                    if response.status != 200:
                        assert answer["error"]["code"] == "insufficient_quota", answer
                        assert response.headers["x-should-retry"] == "false"
                    return response.headers["x-request-id"]
                assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
            data = self._body
            await asyncio.sleep(min(RETRY_S * 2**tried, RETRY_S_MAX))
        raise AssertionError("told to try again each time")

    async def _held_back(self) -> AsyncIterator[bytes]:
        yield self._body[:-1]
        await self._open.wait()
        yield self._body[-1:]


async def test_of_a_thousand_requests_at_once_just_those_are_served_that_the_balance_covers(stack: Stack) -> None:
    body = json.dumps({"model": "crowded", "messages": [], "max_tokens": TOKENS}).encode()
    hold = len(body) + TOKENS
    balance = COVERED * hold + hold - 1
    async with scripted_provider() as provider:
        provider.content_type, provider.pieces = "application/json", [json.dumps({"usage": USAGE}).encode()]
        provider.answers.clear()
        await add_provider(stack, "crowded", provider.url, "crowded-secret")
        await add_model(stack, "crowded", [("crowded", "crowded")])
        key = await stack.make_key("crowd", balance=f"{balance / 1e9:.9f}")
        await wait_until_routed(stack, "crowded")
        await stack.cluster_is_at("provider/crowded", provider.url)
        async with (
            aiohttp.ClientSession(
                stack.url,
                headers={"Authorization": f"Bearer {key}"},
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=120),
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            looks = group.create_task(look_at_balance(stack, "org_crowd"))
            crowd = Crowd(session, body, REQUESTS)
            asking = [group.create_task(crowd.ask()) for _ in range(REQUESTS)]

            async def only_the_served_are_open() -> bool:
                return crowd.decided.total() >= REQUESTS - COVERED

            try:
                await eventually(only_the_served_are_open, deadline_s=60)
                # Nothing has been charged: what is held alone has kept the others out.
                assert crowd.decided == {402: REQUESTS - COVERED}
                assert await free(stack, "org_crowd") == hold - 1
            finally:
                provider.answers.set()
            ids = [await task for task in asking]
            looks.cancel()
        assert crowd.decided == {200: COVERED, 402: REQUESTS - COVERED}
        assert len(provider.bodies) == COVERED
    assert len(set(ids)) == REQUESTS
    await stack.settled()
    async with stack.database() as database:
        charged = await database.fetch(
            "SELECT price_nano_usd FROM billing.requests WHERE org_id = 'org_crowd' AND price_nano_usd > 0"
        )
        assert [row["price_nano_usd"] for row in charged] == [CHARGED] * COVERED
        assert await free(stack, "org_crowd") == balance - COVERED * CHARGED
        assert not await database.fetch("SELECT name FROM billing.check_books() WHERE wrong > 0")


async def free(stack: Stack, org_id: str) -> int:
    async with stack.database() as database:
        found: int = await database.fetchval(FREE, org_id)
        return found


async def look_at_balance(stack: Stack, org_id: str) -> None:
    """Look again and again, until cancelled, at what is free."""
    async with stack.database() as database:
        while True:
            assert await database.fetchval(FREE, org_id) >= 0
            await asyncio.sleep(0.01)


FREE = """
SELECT posted_nano_usd - held_nano_usd FROM billing.accounts WHERE kind = 'balance' AND org_id = $1 AND mode = 'live'
"""
