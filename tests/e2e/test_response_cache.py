"""Answers that were cached: told again to the same question, free, as they came; to nobody else, and never in the way of a request."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import openai
import pytest
from redis.asyncio import Redis

from gateway_core.contract import CACHE_KEYS, Header
from gateway_core.mode import Mode
from tests.support.gateway_client import Answer, Client
from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.stack import Stack, add_model, add_provider, eventually, wait_until_routed

ON, OFF = {Header.CACHE: "on"}, {Header.CACHE: "off"}
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
WHOLE = json.dumps({"object": "chat.completion", "choices": [], "usage": USAGE}).encode()
STREAMED = (
    b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n',
    b'data: {"choices":[],"usage":' + json.dumps(USAGE).encode() + b"}\n\n",
    b"data: [DONE]\n\n",
)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
async def client(stack: Stack, session: aiohttp.ClientSession) -> Client:
    key = await stack.make_key(f"cache-{secrets.token_hex(4)}", balance="50.00")
    return Client(session, stack, key)


@pytest.fixture
async def provider(stack: Stack) -> AsyncIterator[tuple[ScriptedProvider, str]]:
    """A provider that answers what it is told, and a model of it whose route says nothing of cached answers."""
    async with scripted_provider() as scripted:
        name = f"cache-{secrets.token_hex(4)}"
        await add_provider(stack, name, scripted.url, "secret")
        await add_model(stack, name, [(name, "theirs")], endpoints=("chat", "messages", "count_tokens", "embeddings"))
        await wait_until_routed(stack, name)
        scripted.content_type, scripted.pieces = "application/json", [WHOLE]
        yield scripted, name


async def keep_by_route(stack: Stack, model: str, ttl_s: int) -> None:
    """Have a route's answers cached for so long."""
    api = f"{stack.endpoints['control_plane_url']}/api/v1"
    operator = {"Authorization": f"Bearer {stack.endpoints['operator_token']}", "If-Match": "*"}
    route = {"match": model, "groups": [[{"provider": model}]], "cache_ttl_s": ttl_s}
    async with aiohttp.ClientSession(headers=operator) as session:
        async with session.put(f"{api}/routes/{model}", json=route) as changed:
            assert changed.status < 300, await changed.text()
            operation = await changed.json()
        async with session.get(f"{api}/operations/{operation['id']}?wait_ms=10000") as ended:
            assert (await ended.json())["state"] == "applied"


def chat(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}


async def test_an_answer_is_told_again_free_of_charge_to_who_asks_for_that(
    stack: Stack, client: Client, provider: tuple[ScriptedProvider, str], session: aiohttp.ClientSession
) -> None:
    scripted, model = provider
    first = await client.ask(chat(model), **ON)
    assert (first.status, first.cache) == (200, "miss")
    again = await client.ask({"messages": chat(model)["messages"], "user": "somebody", "model": model}, **ON)
    assert (again.status, again.cache, again.body) == (200, "hit", first.body)
    assert again.headers["content-type"] == "application/json"
    assert len(scripted.asked) == 1
    assert not [name for headers in scripted.headers for name in headers if name.lower() == Header.CACHE]

    paid, free = await stack.request_row(first.request_id), await stack.request_row(again.request_id)
    assert (paid["outcome"], paid["cached"], paid["price_nano_usd"] > 0) == ("settled", False, True)
    assert (free["outcome"], free["cached"], free["price_nano_usd"], free["cost_nano_usd"]) == ("free", True, 0, 0)
    assert (free["provider"], free["attempts"], free["status"], free["model"]) == (None, 0, 200, model)
    await stack.settled()
    assert (await stack.clickhouse_row(again.request_id))["cached"]
    api = f"{stack.endpoints['control_plane_url']}/api/v1"
    operator = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    for path in (f"requests/{again.request_id}", f"receipts/{again.request_id}"):
        async with session.get(f"{api}/{path}", headers=operator) as got:
            found = await got.json()
        assert (found["cached"], found["outcome"], found["price"], found["provider"]) == (True, "free", "0.00", None)


async def test_who_asks_for_another_beta_or_version_is_told_no_answer_of_this_one(
    client: Client, provider: tuple[ScriptedProvider, str]
) -> None:
    scripted, model = provider
    for headers in (
        {},
        {"anthropic-beta": "a"},
        {"anthropic-beta": "b"},
        {"openai-beta": "a"},
        {"anthropic-version": "1"},
    ):
        wish = {**ON, **headers}
        assert [(await client.ask(chat(model), **wish)).cache for _ in range(2)] == ["miss", "hit"], headers
    # What says who asks, and by which program, is none of the answer.
    assert (await client.ask(chat(model), **ON, **{"user-agent": "other", "x-stainless-lang": "js"})).cache == "hit"
    assert len(scripted.asked) == 5


async def test_a_stream_is_told_again_as_it_came(client: Client, provider: tuple[ScriptedProvider, str]) -> None:
    scripted, model = provider
    scripted.content_type, scripted.pieces, scripted.pause_s = "text/event-stream", STREAMED, 0.02
    first = await client.ask(chat(model, stream=True), **ON)
    again = await client.ask(chat(model, stream=True), **ON)
    with_usage = await client.ask(chat(model, stream=True, stream_options={"include_usage": True}), **ON)
    assert [first.cache, again.cache, with_usage.cache] == ["miss", "hit", "hit"]
    assert again.headers["content-type"] == "text/event-stream"
    assert first.body == again.body == STREAMED[0] + STREAMED[2]
    assert with_usage.body == b"".join(STREAMED)
    assert len(scripted.asked) == 1


async def test_the_official_client_reads_cached_answers_like_any(stack: Stack) -> None:
    key = await stack.make_key(f"cache-{secrets.token_hex(4)}", balance="50.00")
    asked: list[Any] = [{"role": "user", "content": "Hello. [[sim output_tokens=9]]"}]
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0) as official:
        create = official.chat.completions.with_raw_response.create
        whole = [await create(model="gpt-4o-mini", messages=asked, extra_headers=ON) for _ in range(2)]
        assert [each.headers[Header.CACHE] for each in whole] == ["miss", "hit"]
        assert whole[0].parse() == whole[1].parse()
        told = []
        for expected in ("miss", "hit"):
            raw = await create(model="gpt-4o-mini", messages=asked, stream=True, extra_headers=ON)
            assert raw.headers[Header.CACHE] == expected
            told.append([chunk async for chunk in raw.parse()])
    assert told[0] == told[1]
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in told[0])
        == whole[0].parse().choices[0].message.content
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"stream": True, "messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/completions", {"prompt": "Hi", "stream": True}),
        ("/v1/messages", {"max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/messages", {"max_tokens": 50, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/responses", {"input": "Hi"}),
        ("/v1/responses", {"input": "Hi", "stream": True}),
        ("/v1/embeddings", {"input": "Hi"}),
        ("/v1/moderations", {"input": "Hi"}),
        ("/v1/rerank", {"query": "Hi", "documents": ["Hello"]}),
        ("/v1beta/models/{}:generateContent", {"contents": [{"parts": [{"text": "Hi"}]}]}),
        ("/v1beta/models/{}:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": "Hi"}]}]}),
    ],
    ids=lambda each: each if isinstance(each, str) else ("stream" if each.get("stream") else "whole"),
)
async def test_answers_of_every_dialect_are_cached_also_for_test_keys(
    stack: Stack, session: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> None:
    model = f"cache-{secrets.token_hex(4)}"
    google = "{}" in path
    endpoints = (
        ("generate", "stream_generate")
        if google
        else ("chat", "messages", "completions", "responses", "embeddings", "moderations", "rerank")
    )
    meters = ("input", "cached_input", "output", "reasoning", "request", "search_unit")
    provider = model if google else "openai"
    if google:
        await add_provider(stack, model, f"{stack.simulator_url}/v1beta", "secret", "gemini-native")
    await add_model(stack, model, [(provider, model)], endpoints=endpoints, meters=meters)
    await wait_until_routed(stack, model, endpoints[0])
    key = await stack.make_key(f"cache-{secrets.token_hex(4)}", balance="50.00", mode=Mode.TEST)
    client = Client(session, stack, key)
    asked = body if google else {"model": model, **body}
    answers = [await client.ask(asked, path.format(model), **ON) for _ in range(2)]
    assert [(each.status, each.cache) for each in answers] == [(200, "miss"), (200, "hit")], answers[0].body
    assert answers[0].body == answers[1].body
    row = await stack.request_row(answers[1].request_id)
    assert (row["outcome"], row["cached"], row["mode"], row["price_nano_usd"]) == ("free", True, "test", 0)


async def test_a_route_keeps_what_is_answered_alike_each_time_and_nothing_else(
    stack: Stack, client: Client, provider: tuple[ScriptedProvider, str]
) -> None:
    _, model = provider
    for body in (chat(model), chat(model, temperature=0)):
        assert [(await client.ask(body)).cache for _ in range(2)] == [None, None]
    await keep_by_route(stack, model, 60)
    picture = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    for body in (
        chat(model),
        chat(model, temperature=0.5),
        chat(model, temperature=0, n=2),
        chat(model, temperature=True),
        {**chat(model, temperature=0), "messages": [{"role": "user", "content": picture}]},
        {**chat(model), "messages": [{"role": "user", "content": '"temperature":0'}]},
    ):
        assert [(await client.ask(body)).cache for _ in range(2)] == [None, None], body
    cold = chat(model, temperature=0)
    assert [(await client.ask(cold)).cache for _ in range(3)] == ["miss", "hit", "hit"]
    assert (await client.ask(cold, **OFF)).cache is None
    embedding = {"model": model, "input": "Hi"}
    assert [(await client.ask(embedding, "/v1/embeddings")).cache for _ in range(2)] == ["miss", "hit"]


async def test_a_route_may_forbid_that_answers_are_cached(
    stack: Stack, client: Client, provider: tuple[ScriptedProvider, str]
) -> None:
    _, model = provider
    await keep_by_route(stack, model, 0)
    assert [(await client.ask(chat(model, temperature=0), **ON)).cache for _ in range(2)] == [None, None]


async def test_an_answer_is_good_for_as_long_as_its_route_says(
    stack: Stack, client: Client, provider: tuple[ScriptedProvider, str]
) -> None:
    _, model = provider
    await keep_by_route(stack, model, 1)
    assert [(await client.ask(chat(model, temperature=0))).cache for _ in range(2)] == ["miss", "hit"]
    await asyncio.sleep(1.1)
    assert (await client.ask(chat(model, temperature=0))).cache == "miss"


async def test_nobody_is_told_what_another_organisation_or_another_mode_was(
    stack: Stack, client: Client, provider: tuple[ScriptedProvider, str], session: aiohttp.ClientSession
) -> None:
    scripted, model = provider
    assert (await client.ask(chat(model), **ON)).cache == "miss"
    other = Client(session, stack, await stack.make_key(f"cache-{secrets.token_hex(4)}", balance="50.00"))
    assert (await other.ask(chat(model), **ON)).cache == "miss"
    assert len(scripted.asked) == 2
    name = f"cache-{secrets.token_hex(4)}"
    tester = Client(session, stack, await stack.make_key(name, balance="50.00", mode=Mode.TEST))
    first = await tester.ask(chat(model), **ON)
    assert (first.status, first.cache) == (200, "miss")
    assert len(scripted.asked) == 2


@pytest.mark.parametrize("wish", ["yes", "On", "", "on, off"])
@pytest.mark.parametrize("endpoint", ["chat/completions", "messages"])
async def test_a_wish_that_is_misspelt_is_refused_in_the_form_of_the_endpoint(
    provider: tuple[ScriptedProvider, str], client: Client, wish: str, endpoint: str
) -> None:
    scripted, model = provider
    answer = await client.ask(chat(model, max_tokens=5), f"/v1/{endpoint}", **{Header.CACHE: wish})
    assert answer.status == 400
    document = json.loads(answer.body)
    assert document["error"]["code"] == "invalid_header"
    assert document["error"]["message"] == "The header 'x-tollgate-cache' says 'on' or 'off'."
    assert ("request_id" in document) == (endpoint == "messages")
    assert scripted.asked == []


async def test_a_cached_answer_is_told_only_to_who_would_have_got_one(
    stack: Stack, provider: tuple[ScriptedProvider, str], session: aiohttp.ClientSession
) -> None:
    _, model = provider
    name = f"cache-{secrets.token_hex(4)}"
    client = Client(session, stack, await stack.make_key(name, balance="50.00"))
    assert [(await client.ask(chat(model), **ON)).cache for _ in range(2)] == ["miss", "hit"]
    url = f"{stack.endpoints['control_plane_url']}/api/v1/orgs/org_{name}/keys/key_{name}"
    operator = {"Authorization": f"Bearer {stack.endpoints['operator_token']}", "If-Match": "*"}
    async with session.patch(url, json={"models_allowed": ["another-*"]}, headers=operator) as changed:
        assert changed.status == 200

    async def is_refused() -> Answer | None:
        answer = await client.ask(chat(model), **ON)
        return answer if answer.status == 403 else None

    refused = await eventually(is_refused, deadline_s=2)
    assert refused.cache is None
    stranger = Client(session, stack, "sk-tg-live-" + "x" * 49)
    assert (await stranger.ask(chat(model), **ON)).status == 401
    poor = Client(session, stack, await stack.make_key(f"cache-{secrets.token_hex(4)}", balance="0.000000001"))
    assert (await poor.ask(chat(model), **ON)).status == 402


@pytest.mark.parametrize(
    ("content_type", "pieces", "cut"),
    [
        ("text/event-stream", STREAMED[:1], False),
        ("text/event-stream", STREAMED[:2], True),
        ("text/event-stream", [STREAMED[0], b'data: {"error":{"message":"overloaded"}}\n\n', STREAMED[2]], False),
        ("application/json", [WHOLE[:-3]], False),
        ("application/json", [b'{"error":{"message":"no"}}'], False),
        (
            "application/json",
            [b'{"choices":[],"usage":', json.dumps(USAGE).encode(), b',"x":"', b"y" * 2**21, b'"}'],
            False,
        ),
        ("text/plain", [WHOLE], False),
    ],
    ids=["no end", "broken", "an error in it", "half", "an error", "too long", "something else"],
)
async def test_what_is_not_a_whole_answer_is_not_cached(
    client: Client,
    provider: tuple[ScriptedProvider, str],
    content_type: str,
    pieces: Sequence[bytes],
    cut: bool,
) -> None:
    scripted, model = provider
    scripted.content_type, scripted.pieces, scripted.cut, scripted.pause_s = content_type, pieces, cut, 0.02
    body = chat(model, stream="stream" in content_type)
    for _ in range(2):
        try:
            answer = await client.ask(body, **ON)
        except aiohttp.ClientPayloadError:
            continue
        assert (answer.status, answer.cache) == (200, "miss")
    assert len(scripted.asked) == 2


async def test_an_error_is_not_cached_and_the_next_answer_is(
    client: Client, provider: tuple[ScriptedProvider, str]
) -> None:
    scripted, model = provider
    scripted.status = 400
    assert (await client.ask(chat(model), **ON)).status == 400
    scripted.status = 200
    await asyncio.sleep(1.1)
    assert [(await client.ask(chat(model), **ON)).cache for _ in range(2)] == ["miss", "hit"]


async def test_an_organisation_can_have_its_answers_forgotten(
    stack: Stack, provider: tuple[ScriptedProvider, str], session: aiohttp.ClientSession
) -> None:
    _, model = provider
    name = f"cache-{secrets.token_hex(4)}"
    client = Client(session, stack, await stack.make_key(name, balance="50.00"))
    assert [(await client.ask(chat(model), **ON)).cache for _ in range(2)] == ["miss", "hit"]
    url = f"{stack.endpoints['control_plane_url']}/api/v1/orgs/org_{name}/cache"
    operator = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    async with session.delete(url, headers=operator) as forgotten:
        assert forgotten.status == 204, await forgotten.text()
    assert [(await client.ask(chat(model), **ON)).cache for _ in range(2)] == ["miss", "hit"]


async def test_who_asks_what_a_cached_answer_costs_is_told_that_it_is_free(
    client: Client, provider: tuple[ScriptedProvider, str]
) -> None:
    _, model = provider
    answers = [await client.ask(chat(model), **ON, **{Header.COST: "true"}) for _ in range(2)]
    assert [each.cache for each in answers] == ["miss", "hit"]
    assert answers[0].headers[Header.COST] not in {"0.00", None}
    assert answers[1].headers[Header.COST] == "0.00"
    assert Header.COST not in (await client.ask(chat(model), **ON)).headers


async def test_a_request_that_does_not_want_a_cached_answer_is_nothing_to_the_cache(
    stack: Stack, client: Client, provider: tuple[ScriptedProvider, str], session: aiohttp.ClientSession
) -> None:
    _, model = provider

    async def conversations() -> int:
        return sum((await stack.envoy_stats(r"http\.gateway\.ext_proc\..*streams_started")).values())

    before = await conversations()
    stranger = Client(session, stack, "sk-tg-live-" + "x" * 49)
    for _ in range(3):
        assert (await client.ask(chat(model, temperature=0))).status == 200
        assert (await client.ask(chat(model), **OFF)).status == 200
        assert (await client.ask(chat("nobody-has-it"), **ON)).status == 404
        assert (await stranger.ask(chat(model), **ON)).status == 401
    assert await conversations() == before
    await client.ask(chat(model), **ON)
    assert await conversations() == before + 1


async def test_no_provider_and_no_client_can_say_that_an_answer_was_cached(
    stack: Stack, client: Client, provider: tuple[ScriptedProvider, str]
) -> None:
    scripted, model = provider
    scripted.more_headers = {Header.CACHE: "hit"}
    told = await client.ask(chat(model), **{Header.CACHE_ASKED: "true"})
    assert (told.status, told.cache) == (200, None)
    asked = await client.ask(chat(model), **ON)
    assert (asked.status, asked.cache) == (200, "miss")
    for answer in (told, asked):
        row = await stack.request_row(answer.request_id)
        assert (row["outcome"], row["cached"]) == ("settled", False)
    assert not [
        name for headers in scripted.headers for name in headers if name.lower().startswith(("x-tg", "x-tollgate"))
    ]


async def test_what_somebody_else_has_written_into_redis_is_told_to_nobody(
    stack: Stack, client: Client, provider: tuple[ScriptedProvider, str]
) -> None:
    scripted, model = provider
    cached = f"{CACHE_KEYS}answer:*"
    async with Redis.from_url(stack.secret("tollgate_redis_url")) as redis:
        await redis.delete(*[key async for key in redis.scan_iter(cached)] or ["none"])
        for body in (chat(model), chat(model, max_tokens=5)):
            assert (await client.ask(body, **ON)).cache == "miss"
        first, second = [key async for key in redis.scan_iter(cached)]
        of_first, of_second = await redis.mget(first, second)
        assert isinstance(of_first, bytes)
        assert isinstance(of_second, bytes)
        assert b"chat.completion" not in of_first
        for forged in ((of_second, of_first), (of_first[:-1] + b"x", b""), (b"x" * 500, WHOLE)):
            await redis.mset({first: forged[0], second: forged[1]})
            for body in (chat(model), chat(model, max_tokens=5)):
                assert (await client.ask(body, **ON)).cache == "miss"
            assert not await redis.exists(first, second)
        for body in (chat(model), chat(model, max_tokens=5)):
            assert [(await client.ask(body, **ON)).cache for _ in range(2)] == ["miss", "hit"]
    assert scripted.asked
