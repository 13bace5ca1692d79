"""A client of one dialect, a provider of another: the official SDKs, money, failover, and a translator that is gone."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import anthropic
import openai
import pytest
import pytest_asyncio
from anthropic.types import Message
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from local_stack.ports import free_port
from tests.support.processes import running_python
from tests.support.stack import Stack, add_model, add_provider, eventually, wait_until_routed

CLAUDE, GPT = "claude-sonnet-4-6", "gpt-4o"
PROMPT: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Hello. [[sim output_tokens=12 cached_tokens=2]]"}
]
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture
async def chat(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=stack.endpoints["openai_base_url"], api_key=stack.endpoints["api_key"], max_retries=0
    ) as created:
        yield created


@pytest.fixture
async def messages(stack: Stack) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=stack.endpoints["anthropic_base_url"], api_key=stack.endpoints["api_key"], max_retries=0
    ) as created:
        yield created


async def test_a_chat_request_is_answered_and_charged_by_a_provider_of_messages(
    stack: Stack, chat: openai.AsyncOpenAI
) -> None:
    await stack.forget_provider_requests()
    raw = await chat.chat.completions.with_raw_response.create(model=CLAUDE, messages=PROMPT, seed=1)
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert raw.headers["x-tollgate-dropped"] == "seed"
    row = await stack.request_row(raw.headers["x-request-id"])
    assert (row["outcome"], row["usage_source"], row["provider"]) == ("settled", "provider", "anthropic")
    assert answer.usage is not None
    assert json.loads(row["meters"]) == {"input": answer.usage.prompt_tokens - 2, "cached_input": 2, "output": 12}
    [received] = await stack.provider_requests()
    assert received["path"] == "/v1/messages"
    assert received["headers"]["x-api-key"].startswith("simulated-")
    assert "authorization" not in received["headers"]
    assert not [name for name in received["headers"] if name.startswith("x-tg-")]


async def test_a_chat_stream_comes_event_by_event_from_a_provider_of_messages(stack: Stack) -> None:
    slow = [{"role": "user", "content": "Slowly. [[sim output_tokens=20 token_delay_ms=30]]"}]
    body = {"model": CLAUDE, "messages": slow, "stream": True, "stream_options": {"include_usage": True}}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stack.url}/v1/chat/completions", json=body, headers=stack.headers) as got,
    ):
        pieces = [(asyncio.get_running_loop().time(), piece) async for piece in got.content.iter_any()]
    assert pieces[-1][0] - pieces[0][0] > 0.3
    assert len(pieces) > 15
    *_, usage, done, _ = b"".join(piece for _, piece in pieces).split(b"\n\n")
    assert done == b"data: [DONE]"
    assert json.loads(usage.removeprefix(b"data: "))["usage"]["completion_tokens"] == 20
    row = await stack.request_row(got.headers["x-request-id"])
    assert json.loads(row["meters"])["output"] == 20


async def test_a_tool_is_called_through_the_translator(chat: openai.AsyncOpenAI) -> None:
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Weather?"}]
    answer = await chat.chat.completions.create(model=CLAUDE, messages=asked, tools=[TOOL], tool_choice="required")
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    json.loads(call.function.arguments)
    asked.append(answer.choices[0].message.model_dump(exclude_none=True))  # type: ignore[arg-type]  # as clients do
    asked.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
    again = await chat.chat.completions.create(model=CLAUDE, messages=asked, tools=[TOOL])
    assert again.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_message_is_answered_and_charged_by_a_provider_of_chat(
    stack: Stack, messages: anthropic.AsyncAnthropic, *, streamed: bool
) -> None:
    await stack.forget_provider_requests()
    prompt = "Hello. [[sim output_tokens=12 cached_tokens=2]]"
    if streamed:
        async with messages.messages.stream(
            model=GPT, max_tokens=50, messages=[{"role": "user", "content": prompt}]
        ) as stream:
            answer: Message = await stream.get_final_message()
            request_id = stream.response.headers["x-request-id"]
    else:
        raw = await messages.messages.with_raw_response.create(
            model=GPT, max_tokens=50, messages=[{"role": "user", "content": prompt}]
        )
        answer, request_id = await raw.parse(), raw.headers["x-request-id"]
    assert answer.content[0].type == "text"
    assert answer.usage.output_tokens == 12
    row = await stack.request_row(request_id)
    assert (row["outcome"], row["usage_source"], row["provider"]) == ("settled", "provider", "openai")
    meters = json.loads(row["meters"])
    assert (meters["cached_input"], meters["output"]) == (2, 12)
    assert meters["input"] == answer.usage.input_tokens
    [received] = await stack.provider_requests()
    assert received["path"] == "/v1/chat/completions"
    assert received["headers"]["authorization"].startswith("Bearer simulated-")
    assert "x-api-key" not in received["headers"]


@pytest.mark.parametrize(("path", "model"), [("chat/completions", CLAUDE), ("messages", GPT)])
async def test_a_translated_stream_that_is_left_is_charged_for_what_was_delivered_and_read(
    stack: Stack, path: str, model: str
) -> None:
    said = "Slowly. [[sim output_tokens=200 token_delay_ms=20]] " + "word " * 400
    body = {"model": model, "max_tokens": 300, "stream": True, "messages": [{"role": "user", "content": said}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stack.url}/v1/{path}", json=body, headers=stack.headers) as got,
    ):
        seen = b""
        async for piece in got.content.iter_any():
            seen += piece
            if seen.count(b"\n\n") > 12:
                break
        request_id = got.headers["x-request-id"]
        got.close()
    row = await stack.request_row(request_id)
    meters = json.loads(row["meters"])
    assert (row["outcome"], row["usage_source"]) == ("estimated", "estimated")
    assert meters["input"] >= 500
    assert 10 <= meters["output"] < 200


async def test_what_cannot_be_said_is_refused_by_its_name_in_the_clients_dialect(chat: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await chat.chat.completions.create(model=CLAUDE, messages=PROMPT, response_format={"type": "json_object"})
    assert (refused.value.param, refused.value.code) == ("response_format", "unsupported_by_provider")


async def test_an_error_of_the_provider_comes_in_the_clients_dialect(messages: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.RateLimitError) as refused:
        await messages.messages.create(
            model=GPT, max_tokens=50, messages=[{"role": "user", "content": "x [[sim error=429]]"}]
        )
    error = json.loads(refused.value.response.text)
    assert (error["type"], error["error"]["type"]) == ("error", "rate_limit_error")


async def test_a_chain_fails_over_from_one_dialect_into_the_other_with_the_right_body_path_and_credential(
    stack: Stack, chat: openai.AsyncOpenAI
) -> None:
    port = free_port()
    async with running_python(
        "simulator",
        ready=f"http://127.0.0.1:{port}/readyz",
        TOLLGATE_SIMULATOR_PORT=str(port),
        TOLLGATE_SIMULATOR_KNOBS="error=500",
    ):
        await add_provider(stack, "over-o", f"http://127.0.0.1:{port}/v1", "secret-of-over-o")
        await add_provider(stack, "over-a", f"{stack.simulator_url}/v1", "secret-of-over-a", "anthropic")
        await add_model(stack, "over", [("over-o", "gpt-x"), ("over-a", "claude-x")])
        await wait_until_routed(stack, "over")
        for size in (10, 5_000_000):
            await stack.forget_provider_requests()
            stream = await chat.chat.completions.create(
                model="over", messages=[{"role": "user", "content": "x" * size}], stream=True
            )
            assert [chunk async for chunk in stream][-1].choices[0].finish_reason == "stop"
            row = await stack.request_row(stream.response.headers["x-request-id"])
            assert (row["provider"], row["outcome"], row["usage_source"]) == ("over-a", "settled", "provider")
            [received] = await stack.provider_requests()
            assert received["path"] == "/v1/messages"
            assert received["headers"]["x-api-key"] == "secret-of-over-a"
            assert "secret-of-over-o" not in json.dumps(received["headers"])
            assert received["body_start"].startswith('{"model":"claude-x","max_tokens":')


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def responding(stack: Stack) -> dict[str, str]:
    """Models that are sold as responses at providers that have none, by the path that those are asked at."""
    await add_provider(stack, "resp-a", f"{stack.simulator_url}/v1", "secret-of-resp-a", "anthropic")
    await add_provider(stack, "resp-o", f"{stack.simulator_url}/v1", "secret-of-resp-o", "together")
    for provider in ("resp-a", "resp-o"):
        await add_model(stack, f"{provider}-m", [(provider, "x")], endpoints=("responses",))
    await wait_until_routed(stack, "resp-o-m", "responses")
    return {"/v1/messages": "resp-a-m", "/v1/chat/completions": "resp-o-m"}


async def test_a_response_is_answered_and_charged_by_a_provider_that_has_none(
    stack: Stack, chat: openai.AsyncOpenAI, responding: dict[str, str]
) -> None:
    said = "Hello. [[sim output_tokens=12 cached_tokens=2]]"
    for path, model in responding.items():
        await stack.forget_provider_requests()
        raw = await chat.responses.with_raw_response.create(model=model, input=said, instructions="Be brief.")
        answer = raw.parse()
        assert answer.output_text
        assert answer.usage is not None
        meters = {"input": answer.usage.input_tokens - 2, "cached_input": 2, "output": 12}
        row = await stack.request_row(raw.headers["x-request-id"])
        assert (row["outcome"], row["usage_source"]) == ("settled", "provider")
        assert json.loads(row["meters"]) == meters

        stream = await chat.responses.create(model=model, input=said, instructions="Be brief.", stream=True)
        assert [event.type async for event in stream][-1] == "response.completed"
        row = await stack.request_row(stream.response.headers["x-request-id"])
        assert (row["outcome"], row["usage_source"]) == ("settled", "provider")
        assert json.loads(row["meters"]) == meters
        assert [received["path"] for received in await stack.provider_requests()] == [path, path]
        # What is not sold is not there, however well it could be translated.
        for refused in ("chat/completions", "messages"):
            asked = {"model": model, "max_tokens": 9, "messages": []}
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{stack.url}/v1/{refused}", json=asked, headers=stack.headers) as got,
            ):
                assert got.status in {400, 404}
                assert "/v1/responses" in await got.text()


async def test_near_the_end_of_the_money_a_translated_response_is_made_shorter(
    stack: Stack, responding: dict[str, str]
) -> None:
    key = await stack.make_key("short-response", balance="0.0000005")
    for path, model in responding.items():
        await stack.forget_provider_requests()
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{stack.url}/v1/responses",
                json={"model": model, "input": "Hi"},
                headers={"Authorization": f"Bearer {key}"},
            ) as got,
        ):
            assert got.status == 200, await got.text()
            bound = int(got.headers["x-tollgate-max-tokens"])
            await stack.request_row(got.headers["x-request-id"])
        [received] = await stack.provider_requests()
        assert received["path"] == path
        assert f'_tokens":{bound}' in received["body_start"]


async def fault_of(stack: Stack, model: str) -> tuple[int, str]:
    """How a message fails; after a look at the form, which is Anthropic's."""
    asked = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stack.url}/v1/messages", json=asked, headers=stack.headers) as got,
    ):
        body = await got.json()
        assert (body["type"], body["error"]["type"]) == ("error", "api_error")
        assert body["request_id"] == got.headers["x-request-id"]
        return got.status, body["error"]["code"]


async def test_what_fails_between_the_two_passes_is_told_in_the_form_of_the_endpoint(stack: Stack) -> None:
    await add_provider(stack, "nowhere", f"http://127.0.0.1:{free_port()}/v1", "secret-of-nowhere")
    await add_model(stack, "nowhere", [("nowhere", "x")])
    await wait_until_routed(stack, "nowhere", "messages")
    assert await fault_of(stack, "nowhere") == (503, "provider_unavailable")


@pytest.fixture
async def mixed(stack: Stack) -> str:
    """A model at a provider of messages first and at one of chat second."""
    base = f"{stack.simulator_url}/v1"
    await add_provider(stack, "mixed-a", base, "simulated-mixed-a", kind="anthropic")
    await add_provider(stack, "mixed-o", base, "simulated-mixed-o")
    await add_model(stack, "mixed", [("mixed-a", "claude-x"), ("mixed-o", "gpt-x")])
    await wait_until_routed(stack, "mixed")
    return "mixed"


async def test_with_its_translator_gone_a_chain_goes_on_at_once_and_one_dialect_is_not_touched(
    stack: Stack, chat: openai.AsyncOpenAI, mixed: str
) -> None:
    raw = await chat.chat.completions.with_raw_response.create(model=mixed, messages=PROMPT)
    assert (await stack.request_row(raw.headers["x-request-id"]))["provider"] == "mixed-a"
    # What this provider has no words for, the next one may take as it is.
    raw = await chat.chat.completions.with_raw_response.create(
        model=mixed, messages=PROMPT, response_format={"type": "json_object"}
    )
    assert (await stack.request_row(raw.headers["x-request-id"]))["provider"] == "mixed-o"
    big: list[ChatCompletionMessageParam] = [{"role": "user", "content": "x" * 3_000_000}]
    raw = await chat.chat.completions.with_raw_response.create(model=mixed, messages=big)
    assert (await stack.request_row(raw.headers["x-request-id"]))["provider"] == "mixed-a"

    pid = stack.kill("translator")
    assert await fault_of(stack, GPT) == (503, "translator_unavailable")
    slowest, providers = 0.0, set()
    for _ in range(20):
        began = asyncio.get_running_loop().time()
        raw = await chat.chat.completions.with_raw_response.create(model=mixed, messages=PROMPT)
        slowest = max(slowest, asyncio.get_running_loop().time() - began)
        providers.add(raw.headers["x-request-id"])
        native = await chat.chat.completions.create(model=GPT, messages=PROMPT)
        assert native.choices[0].message.content
    print(f"slowest request without a translator: {slowest * 1000:.0f} ms")
    assert slowest < 1
    # That is no failure of the provider behind it.
    await stack.settled()
    async with stack.database() as database:
        attempts = await database.fetch(
            "SELECT own_reply, org_id FROM billing.attempts WHERE provider = 'mixed-a' AND status = 503"
        )
    assert attempts
    assert {tuple(attempt) for attempt in attempts} == {(True, "org_demo")}

    async def is_back() -> bool:
        return int(stack.endpoints["pids"]["translator"]) != pid

    await eventually(is_back)

    async def is_translated() -> bool:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{stack.url}/v1/messages",
                json={"model": GPT, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]},
                headers=stack.headers,
            ) as got,
        ):
            return got.status == 200

    await eventually(is_translated)
