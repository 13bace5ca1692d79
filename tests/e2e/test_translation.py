"""A client of one dialect, a provider of another: the official SDKs, money, failover, and a translator that is gone."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import anthropic
import openai
import pytest
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
