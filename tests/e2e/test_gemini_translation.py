"""Gemini's own dialect on one side of the gateway and another one on the other: bodies, streams, tools, errors and money."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from local_stack.ports import free_port
from tests.support.stack import Stack, add_model, add_provider, wait_until_routed

pytestmark = pytest.mark.asyncio(loop_scope="session")

NATIVE, COMPATIBLE, SAID_BY_CLAUDE = "gem-native", "gem-chat", "gem-messages"
SECRET = "secret-of-gem-native"
PROMPT = "Hello. [[sim output_tokens=12 cached_tokens=2 reasoning_tokens=5]]"
WHAT_IT_USED = {"cached_input": 2, "output": 12, "reasoning": 5}
CHAT_TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
GOOGLE_TOOL = {
    "functionDeclarations": [
        {"name": "weather", "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}}
    ]
}
VERBS = (("generateContent", ""), ("streamGenerateContent", "?alt=sse"))


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def models(stack: Stack) -> None:
    """One that only Gemini has, and two that only others have."""
    generated = ("generate", "stream_generate")
    await add_provider(stack, "gem-google", f"{stack.simulator_url}/v1beta", SECRET, "gemini-native")
    await add_provider(stack, "gem-other", f"{stack.simulator_url}/v1", "secret-of-gem-other")
    await add_provider(stack, "gem-claude", f"{stack.simulator_url}/v1", "secret-of-gem-claude", "anthropic")
    await add_model(stack, NATIVE, [("gem-google", "gemini-x")])
    await add_model(stack, COMPATIBLE, [("gem-other", "gpt-x")], endpoints=generated)
    await add_model(stack, SAID_BY_CLAUDE, [("gem-claude", "claude-x")], endpoints=generated)
    await wait_until_routed(stack, NATIVE)
    await wait_until_routed(stack, COMPATIBLE, "stream_generate")
    await wait_until_routed(stack, SAID_BY_CLAUDE, "stream_generate")


@pytest_asyncio.fixture(loop_scope="session")
async def chat(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=stack.endpoints["openai_base_url"], api_key=stack.endpoints["api_key"], max_retries=0
    ) as created:
        yield created


@pytest_asyncio.fixture(loop_scope="session")
async def google(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(stack.url, headers={"x-goog-api-key": stack.endpoints["api_key"]}) as created:
        yield created


async def charged(stack: Stack, request_id: str) -> dict[str, int]:
    row = await stack.request_row(request_id)
    assert (row["outcome"], row["usage_source"]) == ("settled", "provider")
    meters: dict[str, int] = json.loads(row["meters"])
    assert row["price_nano_usd"] == sum(meters.values())
    return meters


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_chat_is_answered_and_charged_by_gemini(
    stack: Stack, chat: openai.AsyncOpenAI, *, streamed: bool
) -> None:
    await stack.forget_provider_requests()
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": PROMPT}]
    if streamed:
        stream = await chat.chat.completions.create(
            model=NATIVE, messages=messages, stream=True, stream_options={"include_usage": True}, user="u"
        )
        chunks = [chunk async for chunk in stream]
        headers, usage = stream.response.headers, chunks[-1].usage
        assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert chunks[-2].choices[0].finish_reason == "stop"
    else:
        raw = await chat.chat.completions.with_raw_response.create(model=NATIVE, messages=messages, user="u")
        answer = raw.parse()
        headers, usage = raw.headers, answer.usage
        assert answer.choices[0].message.content
    assert headers["x-tollgate-dropped"] == "user"
    assert usage is not None
    meters = await charged(stack, headers["x-request-id"])
    assert meters == {"input": usage.prompt_tokens - 2, **WHAT_IT_USED}
    assert usage.completion_tokens == 12 + 5
    [received] = await stack.provider_requests()
    verb, query = VERBS[streamed]
    assert received["path"] == f"/v1beta/models/gemini-x:{verb}{query}"
    assert received["headers"]["x-goog-api-key"] == SECRET
    assert not {"authorization", "x-api-key"} & received["headers"].keys()


async def test_a_message_is_answered_and_charged_by_gemini(stack: Stack) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=stack.url, api_key=stack.endpoints["api_key"], max_retries=0
    ) as client:
        raw = await client.messages.with_raw_response.create(
            model=NATIVE, max_tokens=50, messages=[{"role": "user", "content": PROMPT}]
        )
    answer = await raw.parse()
    meters = await charged(stack, raw.headers["x-request-id"])
    assert meters == {"input": answer.usage.input_tokens, **WHAT_IT_USED}


async def test_a_tool_is_called_by_gemini_and_its_result_understood(chat: openai.AsyncOpenAI) -> None:
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Weather?"}]
    answer = await chat.chat.completions.create(model=NATIVE, messages=asked, tools=[CHAT_TOOL], tool_choice="required")
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, answer.choices[0].finish_reason) == ("weather", "tool_calls")
    json.loads(call.function.arguments)
    asked.append(answer.choices[0].message.model_dump(exclude_none=True))  # type: ignore[arg-type]  # as clients do
    asked.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
    again = await chat.chat.completions.create(model=NATIVE, messages=asked, tools=[CHAT_TOOL])
    assert again.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("model", [COMPATIBLE, SAID_BY_CLAUDE])
@pytest.mark.parametrize(("verb", "query"), VERBS)
async def test_a_client_of_gemini_is_answered_and_charged_by_a_provider_of_another_dialect(
    stack: Stack, google: aiohttp.ClientSession, model: str, verb: str, query: str
) -> None:
    await stack.forget_provider_requests()
    body = {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": PROMPT}]}],
        "generationConfig": {"maxOutputTokens": 50},
        "safetySettings": [],
    }
    async with google.post(f"/v1beta/models/{model}:{verb}{query}", json=body) as response:
        text = await response.text()
    assert response.status == 200, text
    chunks = (
        [json.loads(each.removeprefix("data: ")) for each in text.split("\n\n") if each]
        if query
        else [json.loads(text)]
    )
    assert "".join(part["text"] for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"])
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    usage = chunks[-1]["usageMetadata"]
    meters = await charged(stack, response.headers["x-request-id"])
    assert usage["promptTokenCount"] == meters["input"] + 2
    assert usage["cachedContentTokenCount"] == meters["cached_input"] == 2
    assert usage["candidatesTokenCount"] == meters["output"]
    assert meters["output"] + meters.get("reasoning", 0) == 12 + 5
    [received] = await stack.provider_requests()
    path, upstream = {
        COMPATIBLE: ("/v1/chat/completions", "gpt-x"),
        SAID_BY_CLAUDE: ("/v1/messages", "claude-x"),
    }[model]
    assert received["path"] == path
    assert f'"model":"{upstream}"' in received["body_start"]
    assert "x-goog-api-key" not in received["headers"]


@pytest.mark.parametrize("model", [COMPATIBLE, SAID_BY_CLAUDE])
async def test_a_client_of_gemini_has_its_function_called_by_another(google: aiohttp.ClientSession, model: str) -> None:
    contents: list[dict[str, Any]] = [{"role": "user", "parts": [{"text": "Weather?"}]}]
    body: dict[str, Any] = {
        "contents": contents,
        "tools": [GOOGLE_TOOL],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
    }
    async with google.post(f"/v1beta/models/{model}:generateContent", json=body) as response:
        said = (await response.json())["candidates"][0]["content"]
    [call] = [part["functionCall"] for part in said["parts"] if "functionCall" in part]
    assert call["name"] == "weather"
    result = {"functionResponse": {"name": "weather", "response": {"result": "rain"}}}
    body = {"contents": [*contents, said, {"role": "user", "parts": [result]}], "tools": [GOOGLE_TOOL]}
    async with google.post(f"/v1beta/models/{model}:generateContent", json=body) as response:
        assert response.status == 200, await response.text()
        assert (await response.json())["candidates"][0]["finishReason"] == "STOP"


async def test_a_stream_of_gemini_is_told_piece_by_piece_and_charged_when_it_is_left(
    stack: Stack, google: aiohttp.ClientSession
) -> None:
    body = {"contents": [{"parts": [{"text": "Slowly. [[sim output_tokens=200 token_delay_ms=20]]"}]}]}
    seen = b""
    async with google.post(f"/v1beta/models/{COMPATIBLE}:streamGenerateContent?alt=sse", json=body) as response:
        async for piece in response.content.iter_any():
            seen += piece
            if seen.count(b"\n\n") > 12:
                break
        response.close()
    row = await stack.request_row(response.headers["x-request-id"])
    assert (row["outcome"], row["usage_source"]) == ("estimated", "estimated")
    assert 10 <= json.loads(row["meters"])["output"] < 200


async def test_an_error_of_gemini_comes_in_the_form_of_chat(chat: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as refused:
        await chat.chat.completions.create(model=NATIVE, messages=[{"role": "user", "content": "x [[sim error=429]]"}])
    assert refused.value.type == "rate_limit_error"


async def test_errors_of_others_come_in_googles_form(stack: Stack, google: aiohttp.ClientSession) -> None:
    await add_provider(stack, "gem-nowhere", f"http://127.0.0.1:{free_port()}/v1", "secret-of-gem-nowhere")
    await add_model(stack, "gem-gone", [("gem-nowhere", "x")], endpoints=["generate"])
    await wait_until_routed(stack, "gem-gone", "generate")
    said = {"parts": [{"text": "x [[sim error=429]]"}]}
    many: dict[str, Any] = {"contents": [said], "generationConfig": {"candidateCount": 2}}
    for model, body, status, name, reason in (
        (COMPATIBLE, {"contents": [said]}, 429, "RESOURCE_EXHAUSTED", "rate_limit_exceeded"),
        (COMPATIBLE, many, 400, "INVALID_ARGUMENT", "unsupported_by_provider"),
        ("gem-gone", {"contents": [said]}, 503, "UNAVAILABLE", "provider_unavailable"),
    ):
        async with google.post(f"/v1beta/models/{model}:generateContent", json=body) as response:
            error = (await response.json())["error"]
        assert (response.status, error["code"], error["status"], error["reason"]) == (status, status, name, reason)


async def test_no_script_failed(stack: Stack) -> None:
    assert sum((await stack.envoy_stats(r"lua\..*errors$")).values()) == 0
