"""What one key may bring at once: Envoy counts, in the form of whoever asked it refuses, and nobody else hears of it."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.support.flood import Flood
from tests.support.stack import Stack, running_stack

MODEL = "gpt-4o-mini"
BURST = 20
OVER = 60


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(
        tmp_path_factory.mktemp("bursts") / "data", TOLLGATE_BURST_REQUESTS_PER_SECOND_MAX=str(BURST)
    ) as stack:
        yield stack


async def flood_of(stack: Stack, name: str) -> Flood:
    return Flood(stack.url, await stack.make_key(name, balance="10"), MODEL)


async def at_once(flood: Flood, session: aiohttp.ClientSession, number: int) -> float:
    """After how many seconds they were all answered."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(flood.one(session))
    return time.monotonic() - began


async def test_of_a_burst_as_many_pass_as_may_and_the_rest_is_told_when_to_come_back(small: Stack) -> None:
    greedy, modest = await flood_of(small, "bursting"), await flood_of(small, "calm")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        took_s = await at_once(greedy, session, OVER)
        assert await modest.one(session) == 200
        refusals = greedy.refusals
        assert BURST <= greedy.statuses[200] <= BURST * (2 + took_s)
        assert {refusal.status for refusal in refusals} == {429}
        for refusal in refusals:
            assert refusal.error["code"] == "rate_limit_exceeded"
            assert refusal.headers["retry-after"] == "1"
            assert refusal.headers["x-ratelimit-limit-requests"] == str(BURST)
            assert refusal.headers["x-ratelimit-remaining-requests"] == "0"
        await asyncio.sleep(1.1)
        assert await greedy.one(session) == 200
    await small.settled()
    async with small.database() as database:
        charged = await database.fetchval(
            "SELECT count(*) FROM billing.requests WHERE key_id = 'key_bursting' AND outcome = 'settled'"
        )
    assert charged == greedy.statuses[200]


async def test_a_burst_without_a_good_key_is_refused_without_asking(small: Stack) -> None:
    stranger = Flood(small.url, "sk-tg-live-nobodys", MODEL)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        took_s = await at_once(stranger, session, OVER)
    assert set(stranger.statuses) == {401, 429}
    assert stranger.statuses[401] <= BURST * (2 + took_s)


async def test_sessions_are_counted_like_requests(small: Stack) -> None:
    told: Counter[int] = Counter()

    async def ask(session: aiohttp.ClientSession) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(
                f"{small.url}/v1/realtime?model={MODEL}", headers={"Authorization": "Bearer sk-of-a-session"}
            )
        told[refused.value.status] += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:
        for _ in range(OVER):
            group.create_task(ask(session))
    assert told[429] > 0


@pytest.mark.parametrize(
    ("header", "path", "word"),
    [
        ("authorization", "/v1/chat/completions", "rate_limit_exceeded"),
        ("x-api-key", "/v1/messages", "rate_limit_error"),
        ("x-goog-api-key", "/v1beta/models/any:generateContent", "RESOURCE_EXHAUSTED"),
        (None, "/v1beta/models/any:generateContent?key=sk-of-a-query", "RESOURCE_EXHAUSTED"),
    ],
)
async def test_each_dialect_is_refused_in_its_own_words(small: Stack, header: str | None, path: str, word: str) -> None:
    headers = {} if header is None else {header: f"Bearer sk-of-{header}"}
    told: Counter[int] = Counter()
    words = set()

    async def ask(session: aiohttp.ClientSession) -> None:
        async with session.post(small.url + path, json={}, headers=headers) as response:
            told[response.status] += 1
            if response.status == 429:
                words.add(word in await response.text())

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:
        for _ in range(OVER):
            group.create_task(ask(session))
    assert told[429] > 0
    assert words == {True}
