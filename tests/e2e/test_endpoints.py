"""Everything besides chat, with the official SDKs where they have it: what is counted, charged, held for, and refused."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import aiohttp
import anthropic
import asyncpg
import openai
import pytest
import pytest_asyncio

from ext_authz.leases import body_bound
from gateway_core.mode import Mode
from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.stack import Stack, add_model, add_provider, eventually, wait_until_routed

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEADER = "x-request-id"


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def models(stack: Stack) -> None:
    """What the demo does not sell; all of it for a nano-USD per token, picture, character, search or request."""
    for name, endpoint, meters in (
        ("sorter", "rerank", ["search_unit"]),
        ("painter", "images", ["image"]),
        ("voice-by-tokens", "speech", ["input", "audio_output"]),
        ("voice", "speech", ["character"]),
        ("vectors", "embeddings", ["input"]),
        ("guard", "moderations", ["request"]),
        ("brush", "images", ["input", "image_output"]),
    ):
        await add_model(stack, name, [("openai", name)], endpoints=[endpoint], meters=meters)
    await add_model(
        stack, "counted", [("anthropic", "counted")], meters=["input", "output", "request"], endpoints=["count_tokens"]
    )
    await wait_until_routed(stack, "counted", "count_tokens")


async def charged(stack: Stack, request_id: str) -> tuple[str, str, dict[str, int], int]:
    """Outcome, whose figures, meters and price in nano-USD; and that the ledger's entries are worth that."""
    row: asyncpg.Record = await stack.request_row(request_id)
    async with stack.database() as database:
        entries = await database.fetch(
            """
            SELECT a.kind, e.amount_nano_usd FROM billing.transactions t
            JOIN billing.entries e USING (transaction_id) JOIN billing.accounts a USING (account_id)
            WHERE t.request_id = $1
            """,
            request_id,
        )
    price = row["price_nano_usd"]
    expected = {"balance": -price, "revenue": price} if price else {}
    assert {entry["kind"]: entry["amount_nano_usd"] for entry in entries} == expected
    assert price <= row["hold_nano_usd"]
    return row["outcome"], row["usage_source"], json.loads(row["meters"] or "{}"), price


async def test_a_response_is_charged_by_its_usage(stack: Stack, client: openai.AsyncOpenAI) -> None:
    raw = await client.responses.with_raw_response.create(
        model="gpt-4o-mini",
        instructions="Be brief.",
        input="Rivers? [[sim output_tokens=30 cached_tokens=2 reasoning_tokens=5]]",
    )
    usage = raw.parse().usage
    assert usage is not None
    assert (usage.output_tokens, raw.parse().output_text != "") == (35, True)
    assert await charged(stack, raw.headers[HEADER]) == (
        "settled",
        "provider",
        {"input": usage.input_tokens - 2, "cached_input": 2, "output": 30, "reasoning": 5},
        (usage.input_tokens - 2) * 150 + 2 * 75 + 35 * 600,
    )


@pytest.mark.parametrize(("bound", "status"), [(None, "completed"), (16, "incomplete")])
async def test_a_streamed_response_is_charged_by_its_last_event(
    stack: Stack, client: openai.AsyncOpenAI, bound: int | None, status: str
) -> None:
    raw = await client.responses.with_raw_response.create(
        model="gpt-4o-mini",
        input=[{"role": "user", "content": "Rivers? [[sim output_tokens=30]]"}],
        max_output_tokens=bound if bound is not None else openai.omit,
        stream=True,
    )
    events = [event async for event in raw.parse()]
    assert events[-1].type == f"response.{status}"
    written = bound or 30
    outcome, source, meters, _ = await charged(stack, raw.headers[HEADER])
    assert (outcome, source, meters["output"]) == ("settled", "provider", written)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"previous_response_id": "resp_1"}, "stored_state_not_offered", None),
        ({"conversation": {"id": "conv_1"}}, "stored_state_not_offered", "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "stored_state_not_offered", "prompt"),
        ({"background": True}, "stored_state_not_offered", "background"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "stored_state_not_offered", "input"),
        ({"input": [{"id": "msg_1"}]}, "stored_state_not_offered", "input"),
        (
            {"input": [{"role": "user", "content": "Hi"}, {"type": None, "id": "msg_1"}]},
            "stored_state_not_offered",
            "input",
        ),
        ({"tools": [{"type": "web_search"}]}, "tool_not_offered", "tools"),
        ({"tools": [{"type": "function", "name": "f"}, {"type": "file_search"}]}, "tool_not_offered", "tools"),
        ({"tools": [{"type": "code_interpreter"}]}, "tool_not_offered", "tools"),
        ({"tools": [{"type": "image_generation"}]}, "tool_not_offered", "tools"),
        ({"tools": {}}, "tool_not_offered", "tools"),
        ({"tools": [{"type": "mcp", "server_url": "https://x"}]}, "tool_not_offered", "tools"),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, "stored_state_not_offered", "input"),
        ({"input": [{"type": "reasoning", "id": "rs_1", "content": []}]}, "stored_state_not_offered", "input"),
        (
            {"input": [{"type": "image_generation_call", "id": "ig_1", "result": None}]},
            "stored_state_not_offered",
            "input",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
            "stored_state_not_offered",
            None,
        ),
        (
            {"input": [{"type": "code_interpreter_call", "code": "1", "input": "1", "container_id": "cntr_1"}]},
            "stored_state_not_offered",
            "input",
        ),
        ({"store": True}, "stored_state_not_offered", None),
        ({"store": 1}, "invalid_input", "store"),
        ({"stream": True, "top_logprobs": 20}, "feature_not_offered", "top_logprobs"),
        ({"stream": True, "include": ["message.output_text.logprobs"]}, "feature_not_offered", "include"),
        ({"stream": True, "include": "message.output_text.logprobs"}, "feature_not_offered", "include"),
        ({"search_parameters": {"mode": "on"}}, "feature_not_offered", "search_parameters"),
        ({"stream": True, "instructions": "x" * 1_100_000}, "invalid_input", "instructions"),
        ({"max_output_tokens": 0}, "invalid_number", "max_output_tokens"),
    ],
)
async def test_what_of_a_response_cannot_be_kept_to_its_owner_or_priced_is_refused(
    stack: Stack, session: aiohttp.ClientSession, fields: dict[str, Any], code: str, param: str | None
) -> None:
    await stack.forget_provider_requests()
    body = json.dumps({"model": "gpt-4o-mini", "input": "Hi", **fields}).encode()
    async with session.post("/v1/responses", data=BytesIO(body)) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert await stack.provider_requests() == []


@pytest.mark.parametrize("more", [{}, {"stream": True, "include": ["reasoning.encrypted_content"], "top_logprobs": 0}])
async def test_what_of_a_response_is_harmless_passes_as_it_is(
    stack: Stack, session: aiohttp.ClientSession, more: dict[str, Any]
) -> None:
    await stack.forget_provider_requests()
    body = {
        "model": "gpt-4o-mini",
        "input": [
            {"role": "user", "content": 'Say "item_reference" and "file_id".'},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
            {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": '{"file_id": 1}'},
            {"type": "function_call_output", "call_id": "c", "output": "1"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": {"properties": {"file_id": {}}}}],
        "previous_response_id": None,
        "background": False,
        "store": False,
        "include": ["message.output_text.logprobs"],
        **more,
    }
    async with session.post("/v1/responses", data=json.dumps(body)) as response:
        assert response.status == 200, await response.text()
    [received] = await stack.provider_requests()
    assert (received["path"], received["body_start"]) == ("/v1/responses", json.dumps(body))


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ('{"model":"gpt-4o-mini","input":"Hi" }', '{"model":"gpt-4o-mini","input":"Hi" ,"store":false}'),
        ('{"store" : null,"model":"gpt-4o-mini","input":"Hi"}', '{"store" : false,"model":"gpt-4o-mini","input":"Hi"}'),
    ],
)
async def test_a_provider_is_told_to_keep_no_response(
    stack: Stack, session: aiohttp.ClientSession, asked: str, sent: str
) -> None:
    await stack.forget_provider_requests()
    async with session.post("/v1/responses", data=asked) as response:
        assert response.status == 200, await response.text()
    [received] = await stack.provider_requests()
    assert received["body_start"] == sent


async def test_a_request_nested_as_deep_as_may_be_is_read_in_the_answer_that_says_it_again(
    stack: Stack, session: aiohttp.ClientSession, upstream: ScriptedProvider
) -> None:
    deep = "[" * 499 + "]" * 499
    tools = f'[{{"type":"function","name":"f","parameters":{deep}}}]'
    upstream.content_type = "text/event-stream"
    upstream.pieces = [
        f'data: {{"type":"response.completed","response":{{"tools":{tools},"usage":{{"input_tokens":3,"output_tokens":2}}}}}}\n\n'.encode()
    ]
    for tool, status in ((tools.replace(deep, deep[1:-1]), 200), (tools, 400)):
        body = f'{{"model":"odd-response","input":"Hi","stream":true,"tools":{tool}}}'
        async with session.post("/v1/responses", data=body) as response:
            assert response.status == status, await response.text()
            await response.read()
        if status == 200:
            assert (await charged(stack, response.headers[HEADER]))[1] == "provider"


@pytest.mark.parametrize("stream", [False, True])
async def test_completions_of_several_prompts_are_all_held_for_and_charged(
    stack: Stack, client: openai.AsyncOpenAI, stream: bool
) -> None:
    prompts = ["One river [[sim output_tokens=10]]", "Another one [[sim output_tokens=10]]"]
    raw = await client.completions.with_raw_response.create(
        model="gpt-3.5-turbo-instruct", prompt=prompts, n=2, max_tokens=20, stream=stream
    )
    answer = raw.parse()
    if isinstance(answer, openai.AsyncStream):
        chunks = [chunk async for chunk in answer]
        # The client did not ask for usage, so it sees none.
        assert all(chunk.choices for chunk in chunks)
    outcome, source, meters, price = await charged(stack, raw.headers[HEADER])
    assert (outcome, source, meters["output"]) == ("settled", "provider", 40)
    assert price == meters["input"] * 1500 + 40 * 2000
    body = next(each for each in reversed(await stack.provider_requests()) if each["path"] == "/v1/completions")
    # If others like it came just before, it holds what each request of their lease would.
    read = (body["body_bytes"], body_bound(body["body_bytes"]))
    hold = (await stack.request_row(raw.headers[HEADER]))["hold_nano_usd"]
    assert hold in [each * 1500 + 4 * 20 * 2000 for each in read]


async def test_embeddings_are_charged_by_the_tokens_they_read(stack: Stack, client: openai.AsyncOpenAI) -> None:
    for given, read in (("A river", 2), (["A river", "Another"], 4), ([1, 2, 3], 3), ([[1, 2], [3]], 3)):
        raw = await client.embeddings.with_raw_response.create(model="text-embedding-3-small", input=given)
        answer = raw.parse()
        assert len(answer.data) == (1 if given in ("A river", [1, 2, 3]) else 2)
        assert await charged(stack, raw.headers[HEADER]) == ("settled", "provider", {"input": read}, read * 20)


async def test_a_moderation_is_charged_by_the_request_and_may_cost_nothing(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    raw = await client.moderations.with_raw_response.create(model="omni-moderation-latest", input=["Hi", "Ho"])
    assert len(raw.parse().results) == 2
    assert await charged(stack, raw.headers[HEADER]) == ("settled", "request", {"request": 1}, 0)
    raw = await client.moderations.with_raw_response.create(model="guard", input="Hi")
    assert await charged(stack, raw.headers[HEADER]) == ("settled", "request", {"request": 1}, 1)


async def test_pictures_are_charged_by_their_usage_or_by_their_number(stack: Stack, client: openai.AsyncOpenAI) -> None:
    raw = await client.images.with_raw_response.generate(model="gpt-image-1", prompt="A river.", n=2)
    assert len(raw.parse().data or []) == 2
    assert await charged(stack, raw.headers[HEADER]) == (
        "settled",
        "provider",
        {"input": 2, "image_output": 544},
        2 * 5000 + 544 * 40_000,
    )
    assert (await stack.request_row(raw.headers[HEADER]))["hold_nano_usd"] > 2 * 6240 * 40_000
    raw = await client.images.with_raw_response.generate(model="painter", prompt="A river.", n=3)
    assert await charged(stack, raw.headers[HEADER]) == ("settled", "request", {"image": 3}, 3)
    assert (await stack.request_row(raw.headers[HEADER]))["hold_nano_usd"] == 3


async def test_speech_is_charged_by_its_characters_however_they_are_written(
    stack: Stack, client: openai.AsyncOpenAI, session: aiohttp.ClientSession
) -> None:
    raw = await client.audio.speech.with_raw_response.create(
        model="tts-1", voice="alloy", input="Grüße, 日本 😀!", speed=1.5
    )
    assert raw.headers["content-type"] == "audio/mpeg"
    assert raw.content
    assert await charged(stack, raw.headers[HEADER]) == ("settled", "request", {"character": 12}, 12 * 15_000)
    for written, count in (('"a\\n\\"b"', 4), ('"\\u00e9\\ud83d\\ude00"', 2), ('"\\ude00\\ude00"', 2), ('"é日😀"', 3)):
        body = f'{{"model":"voice","voice":"alloy","input":{written}}}'.encode()
        async with session.post("/v1/audio/speech", data=body) as response:
            request_id = response.headers[HEADER]
            if response.status == 200:
                assert (await charged(stack, request_id))[2] == {"character": count}
            assert (await stack.request_row(request_id))["hold_nano_usd"] == count


async def test_speech_that_is_priced_by_tokens_is_offered_as_events_only(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    body = {"model": "voice-by-tokens", "voice": "alloy", "input": "A river runs."}
    async with session.post("/v1/audio/speech", json=body) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "stream_required")
    async with session.post("/v1/audio/speech", json={**body, "stream_format": "sse"}) as response:
        text = await response.text()
        assert (response.status, text.count("data: ")) == (200, 2)
    assert await charged(stack, response.headers[HEADER]) == (
        "settled",
        "provider",
        {"input": 4, "audio_output": 6},
        10,
    )


async def test_reranking_is_charged_by_search_units(stack: Stack, session: aiohttp.ClientSession) -> None:
    body = {
        "model": "sorter",
        "query": "river",
        "documents": [f"Document {number}" for number in range(150)],
        "top_n": 3,
    }
    async with session.post("/v1/rerank", json=body) as response:
        assert (response.status, len((await response.json())["results"])) == (200, 3)
    assert await charged(stack, response.headers[HEADER]) == ("settled", "provider", {"search_unit": 2}, 2)


async def test_counting_tokens_is_free_unless_it_has_a_price(stack: Stack) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=stack.endpoints["anthropic_base_url"], api_key=stack.endpoints["api_key"], max_retries=0
    ) as client:
        for model, meters, price in (("claude-sonnet-4-6", {}, 0), ("counted", {"request": 1}, 1)):
            raw = await client.messages.with_raw_response.count_tokens(
                model=model, messages=[{"role": "user", "content": "Hi"}]
            )
            assert (await raw.parse()).input_tokens > 0
            assert await charged(stack, raw.headers[HEADER]) == ("settled", "request", meters, price)


async def test_one_model_is_shown_and_another_is_not_found(client: openai.AsyncOpenAI) -> None:
    assert (await client.models.retrieve("tts-1")).id == "tts-1"
    with pytest.raises(openai.NotFoundError) as refused:
        await client.models.retrieve("no-such-model")
    assert refused.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "gpt-4o-mini", "input": "Hi"}),
        ("/v1/chat/completions", {"model": "tts-1", "messages": []}),
        ("/v1/images/generations", {"model": "voice", "prompt": "Hi"}),
        ("/v1/responses", {"model": "gemini-2.5-flash", "input": "Hi"}),
    ],
)
async def test_a_model_of_one_kind_is_not_sold_as_another(
    session: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> None:
    async with session.post(path, json=body) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "endpoint_not_supported")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"n": 11}, "invalid_number"),
        ({"n": 0}, "invalid_number"),
        ({"stream": True}, "stream_not_offered"),
        ({"stream": 1}, "invalid_stream"),
        ({"num_images": 4}, "invalid_number"),
        ({"num_images_per_prompt": 4}, "invalid_number"),
        ({"batch_size": 4}, "invalid_number"),
        ({"sampleCount": 4}, "invalid_number"),
        ({"sample_count": 4}, "invalid_number"),
    ],
)
async def test_more_pictures_than_can_be_held_for_are_refused(
    session: aiohttp.ClientSession, body: dict[str, Any], code: str
) -> None:
    async with session.post("/v1/images/generations", json={"model": "painter", "prompt": "Hi", **body}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/audio/speech", {"model": "voice", "input": "a", "instructions": "é" * 4097}, "instructions"),
        ("/v1/audio/speech", {"model": "voice", "input": "a", "instructions": ["a"]}, "instructions"),
        ("/v1/audio/speech", {"model": "voice", "input": "a", "instructions": "é" * 4096}, None),
        ("/v1/audio/speech", {"model": "voice", "input": "a", "instructions": None}, None),
        ("/v1/moderations", {"model": "guard", "input": ["a"] * 33}, "input"),
        ("/v1/moderations", {"model": "guard", "input": ["a"] * 32}, None),
    ],
    ids=str,
)
async def test_what_is_sold_by_the_piece_is_bounded_where_no_piece_is_counted(
    session: aiohttp.ClientSession, path: str, body: dict[str, Any], param: str | None
) -> None:
    async with session.post(path, json=body) as response:
        error = (await response.json())["error"] if response.status == 400 else {"code": None, "param": None}
    assert (error["code"], error["param"]) == (param and "invalid_input", param)


@dataclass(frozen=True)
class Purchase:
    """A request, and what has to be there for it beside a nano-USD for each byte of it."""

    path: str
    model: str
    fields: dict[str, Any] = field(default_factory=dict)
    nano_usd: int = 0
    per_byte: bool = False

    @property
    def body(self) -> bytes:
        return json.dumps({"model": self.model, **self.fields}).encode()

    @property
    def cost(self) -> int:
        return self.nano_usd + (len(self.body) if self.per_byte else 0)


PURCHASES = [
    Purchase("/v1/images/generations", "painter", {"prompt": "A river", "n": 4}, nano_usd=4),
    Purchase("/v1/images/generations", "brush", {"prompt": "A river", "n": 2}, nano_usd=2 * 1000, per_byte=True),
    Purchase("/v1/audio/speech", "voice", {"input": "twelve chars", "voice": "alloy"}, nano_usd=12),
    Purchase("/v1/embeddings", "vectors", {"input": ["a", "river"]}, per_byte=True),
    Purchase("/v1/rerank", "sorter", {"query": "q", "documents": ["a"] * 101}, nano_usd=2),
    Purchase("/v1/moderations", "guard", {"input": "Hi"}, nano_usd=1),
]


async def set_balance(stack: Stack, name: str, nano_usd: int) -> None:
    """Give an organisation that much, all of it free."""
    async with stack.database() as database:
        free = await database.fetchval(
            """
            SELECT posted_nano_usd - held_nano_usd FROM billing.accounts
            WHERE kind = 'balance' AND org_id = $1 AND mode = 'live'
            """,
            f"org_{name}",
        )
        if nano_usd != free:
            await database.execute("SELECT billing.credit($1, $2, 'test')", f"org_{name}", nano_usd - free)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def poor_key(stack: Stack) -> str:
    return await stack.make_key("poor-buyer", balance="0.000001")


@pytest.mark.parametrize("purchase", PURCHASES, ids=lambda each: f"{each.path} {each.model}")
async def test_near_the_end_of_the_money_it_is_refused_unless_covered_to_the_last_nano(
    stack: Stack, poor_key: str, purchase: Purchase
) -> None:
    headers = {"Authorization": f"Bearer {poor_key}"}
    await stack.settled()
    async with aiohttp.ClientSession(stack.url, headers=headers) as session:
        await set_balance(stack, "poor-buyer", purchase.cost - 1)
        async with session.post(purchase.path, data=purchase.body) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (402, "insufficient_quota")
        await set_balance(stack, "poor-buyer", purchase.cost)
        async with session.post(purchase.path, data=purchase.body) as response:
            assert response.status == 200, await response.text()
            await response.read()
            request_id = response.headers[HEADER]
    row = await stack.request_row(request_id)
    assert (row["hold_nano_usd"], row["outcome"], row["absorbed_nano_usd"]) == (purchase.cost, "settled", 0)
    assert row["price_nano_usd"] <= purchase.cost


async def test_answers_are_cut_down_where_the_endpoint_has_a_field_for_it(stack: Stack, poor_key: str) -> None:
    await add_model(stack, "cut-response", [("openai", "cut-response")], endpoints=["responses", "completions"])
    await wait_until_routed(stack, "cut-response", "completions")
    headers = {"Authorization": f"Bearer {poor_key}"}
    async with aiohttp.ClientSession(stack.url, headers=headers) as session:
        for path, fields, bound in (
            ("/v1/responses", {"input": "Hi"}, "max_output_tokens"),
            ("/v1/completions", {"prompt": "Hi"}, "max_tokens"),
        ):
            body = json.dumps({"model": "cut-response", "store": False, **fields}).encode()
            await stack.settled()
            await set_balance(stack, "poor-buyer", len(body) + 300)
            await stack.forget_provider_requests()
            async with session.post(path, data=body) as response:
                assert (response.status, response.headers["x-tollgate-max-tokens"]) == (200, "300")
            [received] = await stack.provider_requests()
            assert json.loads(received["body_start"])[bound] == 300


async def test_every_endpoint_answers_a_test_key(stack: Stack) -> None:
    key = await stack.make_key("tester", balance="1", mode=Mode.TEST)
    headers = {"Authorization": f"Bearer {key}"}
    requests: list[tuple[str, dict[str, Any]]] = [
        *((purchase.path, {"model": purchase.model, **purchase.fields}) for purchase in PURCHASES),
        ("/v1/responses", {"model": "gpt-4o-mini", "input": "Hi"}),
        ("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "Hi"}),
        ("/v1/messages/count_tokens", {"model": "claude-sonnet-4-6", "messages": [{"role": "user", "content": "Hi"}]}),
    ]
    async with aiohttp.ClientSession(stack.url, headers=headers) as session:
        for path, body in requests:
            async with session.post(path, json=body) as response:
                assert response.status == 200, (path, await response.text())
                await response.read()
            row = await stack.request_row(response.headers[HEADER])
            assert (row["mode"], row["outcome"]) == ("test", "settled"), path
        async with session.get("/v1/models/tts-1") as response:
            assert (await response.json())["id"] == "tts-1"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def upstream(stack: Stack) -> AsyncIterator[ScriptedProvider]:
    """What serves the models `odd-*`, in the words of a test."""
    async with scripted_provider() as provider:
        await add_provider(stack, "odd", provider.url, "odd-secret")
        for name, endpoint, meters in (
            ("odd-sorter", "rerank", ["input"]),
            ("odd-picture", "images", ["input", "image_output"]),
            ("odd-voice", "speech", ["character"]),
            ("odd-response", "responses", ["input", "output", "reasoning"]),
            ("odd-vectors", "embeddings", ["input"]),
        ):
            await add_model(stack, name, [("odd", name)], endpoints=[endpoint], meters=meters)
        await wait_until_routed(stack, "odd-vectors", "embeddings")
        yield provider


async def asked(
    stack: Stack, session: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> tuple[str, str, dict[str, int], int]:
    async with session.post(path, json=body) as response:
        assert response.status == 200, await response.text()
        await response.read()
    return await charged(stack, response.headers[HEADER])


async def test_what_a_provider_tells_in_other_words_or_not_at_all(
    stack: Stack, session: aiohttp.ClientSession, upstream: ScriptedProvider
) -> None:
    upstream.content_type = "application/json"
    # Jina's words; a document that says something of usage is not asked.
    upstream.pieces = [
        b'{"results":[{"document":{"usage":{"total_tokens":99}}}],"meta":{"usage":{"total_tokens":98}},"usage":{"total_tokens":7}}'
    ]
    sorted_ = {"model": "odd-sorter", "query": "q", "documents": ["a", "b"]}
    assert await asked(stack, session, "/v1/rerank", sorted_) == ("settled", "provider", {"input": 7}, 7)
    # The query is read anew with each document.
    long = {"model": "odd-sorter", "query": "q " * 2000, "documents": ["a"] * 300}
    upstream.pieces = [b'{"results":[],"usage":{"total_tokens":600300}}']
    assert await asked(stack, session, "/v1/rerank", long) == ("settled", "provider", {"input": 600_300}, 600_300)
    upstream.pieces = [b'{"results":[]}']
    outcome, source, meters, _ = await asked(stack, session, "/v1/rerank", sorted_)
    assert (outcome, source, set(meters)) == ("estimated", "estimated", {"input"})
    vectors = {"model": "odd-vectors", "input": "x" * 400}
    upstream.pieces = [b'{"data":[]}']
    outcome, source, meters, _ = await asked(stack, session, "/v1/embeddings", vectors)
    assert (outcome, source, set(meters)) == ("estimated", "estimated", {"input"})
    # A picture of 300 kB of which nothing is counted: a token per 256 bytes, and no more than was held.
    upstream.pieces = [b'{"data":[{"b64_json":"' + b"A" * 256 * 400 + b'"}]}']
    outcome, source, meters, _ = await asked(
        stack, session, "/v1/images/generations", {"model": "odd-picture", "prompt": "x"}
    )
    assert (outcome, source) == ("estimated", "estimated")
    assert 398 <= meters["image_output"] <= 400
    # What a response says in its output is not its usage; what a failed one used is.
    ended = {"output": [{"usage": {"input_tokens": 999}}], "usage": {"input_tokens": 3, "output_tokens": 2}}
    upstream.content_type = "text/event-stream"
    upstream.pieces = [
        b'event: response.created\ndata: {"type":"response.created","response":{"usage":null}}\n\n',
        f"event: response.failed\ndata: {json.dumps({'type': 'response.failed', 'response': ended})}\n\n".encode(),
    ]
    response = {"model": "odd-response", "input": "Hi", "stream": True}
    assert await asked(stack, session, "/v1/responses", response) == (
        "settled",
        "provider",
        {"input": 3, "output": 2},
        5,
    )


async def test_the_last_event_of_a_response_may_be_long(
    stack: Stack, session: aiohttp.ClientSession, upstream: ScriptedProvider
) -> None:
    ended = {"instructions": "x" * 3_000_000, "usage": {"input_tokens": 3, "output_tokens": 2}}
    upstream.content_type = "text/event-stream"
    upstream.pieces = [f"data: {json.dumps({'type': 'response.completed', 'response': ended})}\n\n".encode()]
    response = {"model": "odd-response", "input": "Hi", "stream": True}
    assert (await asked(stack, session, "/v1/responses", response))[:2] == ("settled", "provider")


async def test_of_a_last_event_of_a_response_too_long_to_keep_the_end_is_read(
    stack: Stack, session: aiohttp.ClientSession, upstream: ScriptedProvider
) -> None:
    logprobs = [{"token": "aaaa", "usage": {"input_tokens": 9}}] * 200_000
    ended = {
        "output": [{"logprobs": logprobs}],
        "usage": {"input_tokens": 3, "output_tokens": 2},
        "metadata": {"a": "}"},
    }
    upstream.content_type = "text/event-stream"
    event = {"type": "response.completed", "response": ended, "sequence_number": 7}
    upstream.pieces = [f"data: {json.dumps(event)}\n\n".encode()]
    response = {"model": "odd-response", "input": "Hi", "stream": True}
    assert (await asked(stack, session, "/v1/responses", response))[:3] == (
        "settled",
        "provider",
        {"input": 3, "output": 2},
    )


async def test_what_a_response_says_again_is_no_output(
    stack: Stack, session: aiohttp.ClientSession, upstream: ScriptedProvider
) -> None:
    instructions = 'Say "type":"response.output_text.delta" often. ' * 2000
    said_again = {"instructions": instructions, "usage": None}
    upstream.content_type = "text/event-stream"
    upstream.pieces = [
        *(
            f"event: {kind}\ndata: {json.dumps({'type': kind, 'response': said_again})}\n\n".encode()
            for kind in ("response.created", "response.in_progress")
        ),
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hi"}\n\n',
        b'data: {"type":"response.output_text.delta","delta":"' + b"x" * 2400 + b'"}\n\n',
        f"data: {json.dumps({'type': 'response.output_text.done', 'text': 'x' * 50_000})}\n\n".encode(),
        # Broken off in the middle.
        f"data: {json.dumps({'type': 'response.completed', 'response': said_again})}"[:50_000].encode(),
    ]
    response = {"model": "odd-response", "input": "Hi", "instructions": instructions, "stream": True}
    outcome, _, meters, _ = await asked(stack, session, "/v1/responses", response)
    assert outcome == "estimated"
    assert 100 <= meters["output"] <= 200


@pytest.mark.parametrize("at_the_end", [True, False])
async def test_embeddings_longer_than_envoy_keeps_pass_and_are_charged_by_their_usage(
    stack: Stack, session: aiohttp.ClientSession, upstream: ScriptedProvider, at_the_end: bool
) -> None:
    data, usage = b'"data":"' + b"x" * (40 << 20) + b'"', b'"usage":{"prompt_tokens":7,"total_tokens":7}'
    fields = (data, usage) if at_the_end else (usage, data)
    upstream.content_type = "application/json"
    upstream.pieces = [b"{" + b",".join(fields) + b',"model":"m"}']
    async with session.post("/v1/embeddings", json={"model": "odd-vectors", "input": ["a"] * 2048}) as response:
        assert response.status == 200
        assert await response.read() == upstream.pieces[0]
    assert await charged(stack, response.headers[HEADER]) == ("settled", "provider", {"input": 7}, 7)


@pytest.mark.parametrize(
    ("path", "key", "body", "status", "kind", "code"),
    [
        ("/v1/messages", None, b"{}", 401, "authentication_error", "invalid_api_key"),
        ("/v1/messages", "good", b"{", 400, "invalid_request_error", "invalid_json"),
        ("/v1/messages/count_tokens", "good", b"{}", 400, "invalid_request_error", "missing_model"),
        ("/v1/messages", "good", b'{"model":"nope"}', 404, "not_found_error", "model_not_found"),
        ("/v1/messages", "bad", b'{"model":"nope"}', 401, "authentication_error", "invalid_api_key"),
        ("/v1/messages/nothing", "good", b"{}", 404, "not_found_error", "not_found"),
        ("/v1/messages", "good", b'{"model":"counted-down"}', 503, "api_error", "provider_unavailable"),
        (
            "/v1/messages",
            "good",
            b'{"model":"' + b"x" * (33 * 1024 * 1024) + b'"}',
            413,
            "request_too_large",
            "request_too_large",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_errors_on_anthropics_endpoints_are_in_its_form_whoever_words_them(
    stack: Stack, path: str, key: str | None, body: bytes, status: int, kind: str, code: str
) -> None:
    if b"counted-down" in body:
        await add_provider(stack, "gone", "http://127.0.0.1:9/v1", "gone-secret", "anthropic")
        await add_model(stack, "counted-down", [("gone", "counted-down")])
        await wait_until_routed(stack, "counted-down", "messages")
    keys = {"good": stack.endpoints["api_key"], "bad": "sk-tg-live-" + "0" * 49}
    headers = {"x-api-key": keys[key]} if key else {}
    async with (
        aiohttp.ClientSession(stack.url, headers=headers) as session,
        session.post(path, data=BytesIO(body)) as response,
    ):
        assert response.status == status
        answer = await response.json()
        request_id = response.headers[HEADER]
    assert answer == {
        "type": "error",
        "error": {"type": kind, "message": answer["error"]["message"], "code": code},
        "request_id": request_id,
    }


async def test_a_provider_that_refuses_our_credential_is_told_of_in_the_form_of_the_endpoint(
    stack: Stack, upstream: ScriptedProvider
) -> None:
    await add_provider(stack, "odd-anthropic", upstream.url, "odd-anthropic-secret", "anthropic")
    await add_model(stack, "odd-claude", [("odd-anthropic", "odd-claude")])
    await wait_until_routed(stack, "odd-claude", "messages")
    upstream.status, upstream.pieces = 401, [b"{}"]

    async def refused() -> dict[str, Any] | None:
        body = {"model": "odd-claude", "max_tokens": 5, "messages": []}
        async with (
            aiohttp.ClientSession(stack.url, headers=stack.headers) as session,
            session.post("/v1/messages", json=body) as response,
        ):
            assert response.status == 502
            answer = await response.json()
            return dict(answer) | {"same": answer["request_id"] == response.headers[HEADER]}

    answer = await eventually(refused)
    upstream.status = 200
    assert answer is not None
    assert (answer["error"]["type"], answer["error"]["code"], answer["same"]) == (
        "api_error",
        "provider_credential_rejected",
        True,
    )


async def test_the_official_anthropic_client_reads_our_errors(stack: Stack) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=stack.endpoints["anthropic_base_url"], api_key=stack.endpoints["api_key"], max_retries=0
    ) as client:
        with pytest.raises(anthropic.NotFoundError) as refused:
            await client.messages.create(model="nope", max_tokens=5, messages=[{"role": "user", "content": "Hi"}])
    body = refused.value.body
    assert isinstance(body, dict)
    assert body["error"]["type"] == "not_found_error"
