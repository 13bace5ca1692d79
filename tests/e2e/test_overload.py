"""More checks than ext_authz can make: what is too much is refused and told when to come back, nothing is let in, and nobody takes all places."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import pytest_asyncio

from tests.support.flood import Flood
from tests.support.stack import Stack, running_stack

MODEL = "gpt-4o-mini"
PLACES = 16
AT_ONCE = 120


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack with one ext_authz that makes few checks at once; each asks Postgres, so that a test can keep it there."""
    async with running_stack(
        tmp_path_factory.mktemp("overload") / "data",
        TOLLGATE_CHECKS_MAX=str(PLACES),
        TOLLGATE_SLICE_SHARE_PPM="0",
        TOLLGATE_LEASE_TTL_MS="0",
    ) as stack:
        yield stack


async def floods(stack: Stack, *names: str) -> list[Flood]:
    return [Flood(stack.url, await stack.make_key(name, balance="10"), MODEL) for name in names]


@asynccontextmanager
async def balances_locked(stack: Stack, *names: str) -> AsyncIterator[None]:
    """Nobody can place a hold for these until the block is over."""
    async with stack.database() as database, database.transaction():
        await database.execute(
            "SELECT FROM billing.accounts WHERE org_id = ANY($1) FOR UPDATE", [f"org_{name}" for name in names]
        )
        yield


async def test_an_organisation_that_floods_it_leaves_places_for_others(small: Stack) -> None:
    greedy, modest = await floods(small, "greedy", "modest")
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        asyncio.TaskGroup() as group,
        balances_locked(small, "greedy"),
    ):
        for _ in range(AT_ONCE):
            group.create_task(greedy.one(session))
        await asyncio.sleep(0.5)
        assert [await modest.one(session) for _ in range(5)] == [200] * 5
    assert greedy.statuses[200] == PLACES // 2
    # Some of those that come in the same moment are turned away before anybody has looked whose they are.
    assert greedy.statuses[429] + greedy.statuses[503] == AT_ONCE - PLACES // 2
    assert greedy.statuses[429] > 0
    told = {429: "rate_limit_exceeded", 503: "authorization_unavailable"}
    for refusal in greedy.refusals:
        assert (refusal.error["code"], refusal.headers["retry-after"]) == (told[refusal.status], "1")
        assert refusal.waited_s < 1


@pytest.mark.parametrize(("path", "told"), [("/v1/chat/completions", "server_error"), ("/v1/messages", "api_error")])
async def test_more_than_it_can_decide_about_is_answered_503_and_nothing_is_let_in(
    small: Stack, path: str, told: str
) -> None:
    # More organisations than there are places, or each would find those of the others taken by itself.
    names = [f"org{number}-{path.rpartition('/')[2]}" for number in range(PLACES + 4)]
    asking = await floods(small, *names)
    async with aiohttp.ClientSession() as session:
        assert [await flood.one(session) for flood in asking] == [200] * len(asking)
    await small.settled()
    for flood in asking:
        flood.answers.clear()
    await small.forget_provider_requests()
    connector = aiohttp.TCPConnector(limit=0)
    body = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    headers = {"Authorization": f"Bearer {asking[0].key}"}
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        asyncio.TaskGroup() as group,
        balances_locked(small, *names),
    ):
        for _ in range(AT_ONCE // len(asking)):
            for flood in asking:
                group.create_task(flood.one(session))
        await asyncio.sleep(0.5)
        async with session.post(small.url + path, json=body, headers=headers) as response:
            answer = await response.json()
            assert (response.status, response.headers["retry-after"]) == (503, "1")
            assert (answer["error"]["code"], answer["error"]["type"]) == ("authorization_unavailable", told)
    answers = [each for flood in asking for each in flood.answers]
    served = [each for each in answers if each.status == 200]
    shed = [each for each in answers if each.status == 503]
    assert len(served) == PLACES
    assert len(shed) > AT_ONCE // 2
    assert all(each.headers["retry-after"] == "1" and each.waited_s < 1 for each in shed)
    received = [each for each in await small.provider_requests() if each["body_bytes"]]
    assert len(received) == len(served)
    # What was too much is over with the flood.
    async with aiohttp.ClientSession() as session:
        assert await asking[0].one(session) == 200
