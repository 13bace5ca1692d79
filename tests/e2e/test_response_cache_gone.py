"""One fill for all who ask the same, over two processes; and a cache of which parts die, which costs no request."""

import asyncio
import os
import pathlib
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import pytest_asyncio

from gateway_core.contract import Header
from local_stack.instances import instances
from tests.support.gateway_client import Client
from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.stack import Stack, add_model, add_provider, eventually, running_stack, wait_until_routed

pytestmark = pytest.mark.asyncio(loop_scope="module")

ON = {Header.CACHE: "on"}
WHOLE = b'{"object":"chat.completion","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}'
PIECES = (b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n',) * 40 + (b"data: [DONE]\n\n",)
AT_ONCE = 50
OURS = tuple(instances("response_cache", 2))
ENVOY_WAITS_S = 0.25


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack with two of every service of ours."""
    async with running_stack(
        tmp_path_factory.mktemp("caches") / "data", replicas=2, TOLLGATE_RESPONSE_CACHE_WAIT_S="8"
    ) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def client(pair: Stack) -> AsyncIterator[Client]:
    key = await pair.make_key(f"cache-{secrets.token_hex(4)}", balance="50.00")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Client(session, pair, key)


@pytest_asyncio.fixture(loop_scope="module")
async def provider(pair: Stack) -> AsyncIterator[tuple[ScriptedProvider, str]]:
    async with scripted_provider() as scripted:
        name = f"cache-{secrets.token_hex(4)}"
        await add_provider(pair, name, scripted.url, "secret")
        await add_model(pair, name, [(name, "theirs")])
        await wait_until_routed(pair, name)
        scripted.content_type, scripted.pieces = "application/json", [WHOLE]
        yield scripted, name


def chat(model: str, **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}


def is_running(pid: int) -> bool:
    return pathlib.Path(f"/proc/{pid}").exists()


async def pids_of(stack: Stack, *services: str) -> list[int]:
    """Those of services that run, once they do: who is killed again and again is started after longer pauses."""

    async def found() -> list[int] | None:
        pids = [int(stack.endpoints["pids"][service]) for service in services]
        return pids if all(map(is_running, pids)) else None

    return await eventually(found, deadline_s=40)


async def kill(stack: Stack, *services: str) -> None:
    for pid in await pids_of(stack, *services):
        os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def silent(stack: Stack, *services: str) -> AsyncIterator[None]:
    """Processes that stand still while the block runs."""
    pids = await pids_of(stack, *services)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def work_again(client: Client, model: str) -> None:
    """Wait until answers are cached."""

    async def is_cached() -> bool:
        return (await client.ask(chat(model, user="?", seed=1), **ON)).cache == "hit"

    await eventually(is_cached, deadline_s=40)


async def test_fifty_who_ask_the_same_at_once_are_answered_by_one_request(
    pair: Stack, client: Client, provider: tuple[ScriptedProvider, str]
) -> None:
    scripted, model = provider
    scripted.answers.clear()
    asked = [asyncio.create_task(client.ask(chat(model), **ON)) for _ in range(AT_ONCE)]
    await asyncio.sleep(1.5)
    scripted.answers.set()
    answers = await asyncio.gather(*asked)
    assert {each.status for each in answers} == {200}
    assert Counter(each.cache for each in answers) == {"miss": 1, "hit": AT_ONCE - 1}
    assert len(scripted.asked) == 1
    await pair.settled()
    async with pair.database() as database:
        rows = await database.fetch(
            "SELECT cached, outcome, count(*) AS rows, sum(price_nano_usd) > 0 AS paid FROM billing.requests WHERE model = $1 GROUP BY 1, 2",
            model,
        )
    assert {tuple(row) for row in rows} == {(True, "free", AT_ONCE - 1, False), (False, "settled", 1, True)}


async def test_nobody_waits_longer_than_the_bound_for_somebody_else(
    client: Client, provider: tuple[ScriptedProvider, str]
) -> None:
    scripted, model = provider
    scripted.answers.clear()
    asked = [asyncio.create_task(client.ask(chat(model), **ON)) for _ in range(2)]
    await eventually(lambda: asyncio.sleep(0, len(scripted.asked) == 2), deadline_s=10)
    scripted.answers.set()
    assert [(each.status, each.cache) for each in await asyncio.gather(*asked)] == [(200, "miss")] * 2


async def test_when_who_has_the_turn_leaves_the_next_one_has_it(
    client: Client, provider: tuple[ScriptedProvider, str]
) -> None:
    scripted, model = provider
    scripted.content_type, scripted.pieces, scripted.pause_s = "text/event-stream", PIECES, 0.05
    first = asyncio.create_task(client.ask(chat(model, stream=True), **ON))
    await eventually(lambda: asyncio.sleep(0, bool(scripted.asked)))
    others = [asyncio.create_task(client.ask(chat(model, stream=True), **ON)) for _ in range(3)]
    await asyncio.sleep(0.3)
    first.cancel()
    answers = await asyncio.gather(*others)
    assert Counter(each.cache for each in answers) == {"miss": 1, "hit": 2}
    assert {each.body for each in answers} == {b"".join(PIECES)}
    assert len(scripted.asked) == 2


async def test_a_turn_ends_with_the_process_that_had_it(
    pair: Stack, client: Client, provider: tuple[ScriptedProvider, str]
) -> None:
    scripted, model = provider
    scripted.answers.clear()
    first = asyncio.create_task(client.ask(chat(model), **ON))
    await eventually(lambda: asyncio.sleep(0, bool(scripted.asked)))
    await kill(pair, *OURS)
    scripted.answers.set()
    assert (await first).status == 200
    await work_again(client, model)
    answers = [await client.ask(chat(model), **ON) for _ in range(2)]
    assert [each.status for each in answers] == [200, 200]
    assert answers[1].cache == "hit"


@pytest.mark.parametrize("how", ["killed", "silent"])
async def test_a_stream_goes_on_when_the_cache_is_gone_in_the_middle(
    pair: Stack, client: Client, provider: tuple[ScriptedProvider, str], how: str
) -> None:
    scripted, model = provider
    await work_again(client, model)
    scripted.content_type, scripted.pieces, scripted.pause_s = "text/event-stream", PIECES, 0.05
    before = len(scripted.asked)
    asked = asyncio.create_task(client.ask(chat(model, stream=True), **ON))
    await eventually(lambda: asyncio.sleep(0, len(scripted.asked) > before))
    await asyncio.sleep(0.5)
    if how == "killed":
        await kill(pair, *OURS)
        answer = await asked
    else:
        async with silent(pair, *OURS):
            answer = await asked
    assert (answer.status, answer.cache, answer.body) == (200, "miss", b"".join(PIECES))
    scripted.content_type, scripted.pieces, scripted.pause_s = "application/json", [WHOLE], 0
    await work_again(client, model)


async def asked_one_by_one(client: Client, model: str, count: int) -> float:
    """Different questions, none of which fails; returns how long the slowest took."""
    slowest_s = 0.0
    for number in range(count):
        began_s = time.monotonic()
        answer = await client.ask(chat(model, seed=number, user=str(count)), **ON)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        assert answer.status == 200, answer.body
    return slowest_s


@pytest.mark.parametrize("services", [("valkey",), OURS], ids=["valkey", "response_cache"])
async def test_requests_pass_when_it_is_killed_under_load_and_answers_are_cached_again(
    pair: Stack, client: Client, provider: tuple[ScriptedProvider, str], services: tuple[str, ...]
) -> None:
    _, model = provider
    await work_again(client, model)
    load = asyncio.create_task(asked_one_by_one(client, model, 200))
    await asyncio.sleep(0.2)
    await kill(pair, *services)
    await load
    await work_again(client, model)


async def test_a_silent_cache_costs_a_request_no_more_than_what_envoy_waits(
    pair: Stack, client: Client, provider: tuple[ScriptedProvider, str]
) -> None:
    _, model = provider
    await work_again(client, model)
    async with silent(pair, *OURS):
        slowest_s = await asked_one_by_one(client, model, 5)
    assert ENVOY_WAITS_S / 2 < slowest_s < ENVOY_WAITS_S + 1
    await work_again(client, model)
    async with silent(pair, "valkey"):
        assert await asked_one_by_one(client, model, 5) < ENVOY_WAITS_S + 1
    await work_again(client, model)
