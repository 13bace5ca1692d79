"""The real process, asked by the official SDKs where there is one, and by plain HTTP where a fault is the point."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from anthropic.types import TextBlock, ToolParam, ToolUseBlock
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

CHECKOUT = Path(__file__).parents[2]
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
SCHEMA: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OPENAI_TOOL: ChatCompletionToolParam = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
ANTHROPIC_TOOL: ToolParam = {"name": "weather", "input_schema": SCHEMA}

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
GENERATE = "/v1beta/models/gemini-2.5-pro:generateContent"
STREAM_GENERATE = "/v1beta/models/gemini-2.5-pro:streamGenerateContent"
HEADERS = {"authorization": "Bearer x", "anthropic-version": "2023-06-01"}


@contextmanager
def simulator(**settings: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process on a free port and its URL; it says the port in its first line."""
    environment = {f"TOLLGATE_SIMULATOR_{name.upper()}": value for name, value in settings.items()}
    with subprocess.Popen(
        [sys.executable, "-m", "simulator"],
        cwd=CHECKOUT,
        env=os.environ | {"TOLLGATE_SIMULATOR_PORT": "0"} | environment,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stderr is not None
            started = json.loads(process.stderr.readline())
            assert started["event"] == "simulator_started"
            yield process, f"http://{started['host']}:{started['port']}"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with simulator(record="true") as (_, url):
        yield url


@pytest.fixture
async def http(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url, headers=HEADERS) as session:
        yield session


@pytest.fixture
async def gpt(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as client:
        yield client


def chat(content: str, **fields: object) -> dict[str, object]:
    return {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": content}]} | fields


async def test_openai_sdk_gets_a_completion_and_the_models(gpt: openai.AsyncOpenAI) -> None:
    completion = await gpt.chat.completions.create(model="gpt-5", messages=HELLO, n=2)
    again = await gpt.chat.completions.create(model="gpt-5", messages=HELLO, n=2)

    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert (again.id, again.choices) == (completion.id, completion.choices)
    assert [model.id async for model in gpt.models.list()] == ["simulator-small", "simulator-large"]


async def test_openai_sdk_streams_text_and_usage(gpt: openai.AsyncOpenAI) -> None:
    completion = await gpt.chat.completions.create(model="gpt-5", messages=HELLO)

    stream = await gpt.chat.completions.create(
        model="gpt-5", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == completion.choices[0].message.content
    assert chunks[-1].usage == completion.usage


async def test_openai_sdk_assembles_a_streamed_tool_call(gpt: openai.AsyncOpenAI) -> None:
    async with gpt.chat.completions.stream(model="gpt-5", messages=HELLO, tools=[OPENAI_TOOL]) as stream:
        completion = await stream.get_final_completion()

    assert completion.choices[0].message.tool_calls is not None
    (call,) = completion.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert list(json.loads(call.function.arguments)) == ["city"]


async def test_openai_sdk_talks_to_geminis_compatible_path(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1beta/openai", api_key="x") as client:
        completion = await client.chat.completions.create(model="gemini-2.5-pro", messages=HELLO)

    assert completion.choices[0].message.content


async def test_openai_sdk_raises_its_own_errors(gpt: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as limited:
        await gpt.chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": "Hello [[sim error=429]]"}]
        )
    with pytest.raises(openai.BadRequestError, match="messages"):
        await gpt.chat.completions.create(model="gpt-5", messages=[])

    assert limited.value.code == "rate_limit_exceeded"
    assert limited.value.response.headers["retry-after"] == "1"


async def test_anthropic_sdk_gets_a_message_and_streams_the_same(claude: anthropic.AsyncAnthropic) -> None:
    message = await claude.messages.create(
        model="claude", max_tokens=100, messages=[{"role": "user", "content": "Hello"}], system="Be kind."
    )
    async with claude.messages.stream(
        model="claude", max_tokens=100, messages=[{"role": "user", "content": "Hello"}], system="Be kind."
    ) as stream:
        streamed = await stream.get_final_message()

    (block,) = message.content
    (streamed_block,) = streamed.content
    assert isinstance(block, TextBlock)
    assert isinstance(streamed_block, TextBlock)
    assert streamed_block.text == block.text
    assert streamed.usage == message.usage
    assert message.stop_reason == "end_turn"


async def test_anthropic_sdk_assembles_a_streamed_tool_use_and_continues(claude: anthropic.AsyncAnthropic) -> None:
    async with claude.messages.stream(
        model="claude", max_tokens=100, messages=[{"role": "user", "content": "Hello"}], tools=[ANTHROPIC_TOOL]
    ) as stream:
        message = await stream.get_final_message()

    (block,) = message.content
    assert isinstance(block, ToolUseBlock)
    assert list(block.input) == ["city"]
    answer = await claude.messages.create(
        model="claude",
        max_tokens=100,
        tools=[ANTHROPIC_TOOL],
        messages=[
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}]},
        ],
    )
    assert answer.content[0].type == "text"


async def test_anthropic_sdk_raises_its_own_errors(claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        await claude.messages.create(
            model="claude", max_tokens=9, messages=[{"role": "user", "content": "Hello [[sim error=529]]"}]
        )

    assert overloaded.value.status_code == 529
    assert overloaded.value.request_id


async def test_gemini_answers_whole_in_events_and_as_an_array(http: aiohttp.ClientSession) -> None:
    body = {"contents": [{"parts": [{"text": "Hello"}]}]}

    async with http.post(GENERATE, json=body) as response:
        whole = await response.json()
    async with http.post(STREAM_GENERATE, params={"alt": "sse"}, json=body) as response:
        assert response.content_type == "text/event-stream"
        events = [json.loads(line[6:]) async for line in response.content if line.startswith(b"data: ")]
    async with http.post(STREAM_GENERATE, json=body) as response:
        assert await response.json() == events

    assert events[-1]["usageMetadata"] == whole["usageMetadata"]


@pytest.mark.parametrize("path", [CHAT, MESSAGES, GENERATE, "/v1/models"])
async def test_missing_credential_is_401(url: str, path: str) -> None:
    async with (
        aiohttp.ClientSession(url) as session,
        session.request("GET" if path == "/v1/models" else "POST", path) as response,
    ):
        assert response.status == 401
        assert "error" in await response.json()


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503, 529])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_status_comes_as_asked(http: aiohttp.ClientSession, path: str, status: int) -> None:
    async with http.post(path, json=chat(f"Hello [[sim error={status}]]")) as response:
        assert response.status == status
        assert ("retry-after" in response.headers) == (status == 429)
        assert (await response.json())["error"]["message"]


async def test_knobs_come_by_header_too_and_the_directive_wins(http: aiohttp.ClientSession) -> None:
    headers = {"x-simulator": "output_tokens=3 cached_tokens=2"}

    async with http.post(CHAT, json=chat("Hello [[sim output_tokens=4]]"), headers=headers) as response:
        usage = (await response.json())["usage"]

    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (6, 4)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 2


async def test_invalid_knob_is_400_that_names_it(http: aiohttp.ClientSession) -> None:
    async with http.post(MESSAGES, json=chat("Hello [[sim colour=red]]")) as response:
        assert response.status == 400
        assert "'colour' is no knob" in (await response.json())["error"]["message"]


async def test_reset_gives_no_response(http: aiohttp.ClientSession) -> None:
    with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
        await http.post(CHAT, json=chat("Hello [[sim error=reset]]"))


async def test_timeout_gives_nothing_while_the_client_waits(http: aiohttp.ClientSession) -> None:
    with pytest.raises(TimeoutError):
        await http.post(CHAT, json=chat("Hello [[sim error=timeout]]"), timeout=aiohttp.ClientTimeout(total=0.3))


async def test_cut_body_ends_before_its_announced_length(http: aiohttp.ClientSession) -> None:
    async with http.post(CHAT, json=chat("Hello [[sim error=cut]]")) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


@pytest.mark.parametrize("delay", ["", "token_delay_ms=1"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_cut_stream_ends_after_half_of_its_events(http: aiohttp.ClientSession, path: str, delay: str) -> None:
    async with http.post(path, json=chat("Hello [[sim output_tokens=20]]", stream=True)) as response:
        whole = (await response.read()).count(b"data: ")

    received = bytearray()
    async with http.post(path, json=chat(f"Hello [[sim output_tokens=20 error=cut {delay}]]", stream=True)) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await read_into(received, response)

    assert received.count(b"data: ") == whole // 2


async def read_into(received: bytearray, response: aiohttp.ClientResponse) -> None:
    async for part in response.content.iter_any():
        received += part


async def test_malformed_body_is_no_json_and_malformed_stream_has_one_broken_event(
    http: aiohttp.ClientSession,
) -> None:
    async with http.post(CHAT, json=chat("Hello [[sim error=malformed]]")) as response:
        assert response.status == 200
        with pytest.raises(json.JSONDecodeError):
            await response.json()
    async with http.post(CHAT, json=chat("Hello [[sim error=malformed]]", stream=True)) as response:
        *events, done = (await response.text()).removesuffix("\n\n").split("\n\n")

    assert done == "data: [DONE]"
    assert sum(not is_json(event.removeprefix("data: ")) for event in events) == 1


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


async def test_no_usage_leaves_it_out(http: aiohttp.ClientSession) -> None:
    async with http.post(CHAT, json=chat("Hello [[sim error=no_usage]]")) as response:
        assert "usage" not in await response.json()


async def test_latency_comes_before_the_first_byte_and_delay_between_events(http: aiohttp.ClientSession) -> None:
    knobs = "[[sim latency_ms=200 token_delay_ms=50 output_tokens=4]]"
    start = time.monotonic()

    async with http.post(CHAT, json=chat(f"Hello {knobs}", stream=True)) as response:
        first_byte_s = time.monotonic() - start
        arrivals = [time.monotonic() - start async for _ in response.content.iter_any()]

    assert first_byte_s >= 0.2
    # Role, four words, the end and [DONE] have six pauses between them.
    assert arrivals[-1] - arrivals[0] >= 0.28
    assert len(arrivals) >= 4


async def test_body_beyond_the_limit_is_413(http: aiohttp.ClientSession) -> None:
    async with http.post(CHAT, data=io.BytesIO(b" " * (64 * 1024 * 1024 + 1))) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "request_too_large"


async def test_received_requests_are_shown_and_forgotten(http: aiohttp.ClientSession) -> None:
    async with http.delete("/simulator/requests") as response:
        assert response.status == 204
    async with http.post(f"{CHAT}?a=1", json=chat("Hello"), headers={"X-Mine": "yes"}) as response:
        assert response.status == 200

    async with http.get("/simulator/requests") as response:
        (received,) = (await response.json())["requests"]

    assert (received["method"], received["path"]) == ("POST", f"{CHAT}?a=1")
    assert received["headers"]["x-mine"] == "yes"
    assert json.loads(received["body_start"]) == chat("Hello")
    assert received["body_bytes"] == len(received["body_start"])


async def test_nothing_is_recorded_unless_asked_for_and_knobs_have_defaults() -> None:
    with simulator(knobs="output_tokens=2 error=503") as (_, url):
        async with aiohttp.ClientSession(url, headers=HEADERS) as session:
            async with session.get("/simulator/requests") as response:
                assert response.status == 404
            async with session.post(CHAT, json=chat("Hello")) as response:
                assert response.status == 503
            async with session.post(CHAT, json=chat("Hello [[sim error=none]]")) as response:
                assert (await response.json())["usage"]["completion_tokens"] == 2


async def test_probes_answer(http: aiohttp.ClientSession) -> None:
    for path in ("/livez", "/readyz"):
        async with http.get(path) as response:
            assert response.status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_stops_the_process_within_a_second_even_with_open_requests(number: signal.Signals) -> None:
    with simulator() as (process, url):
        async with aiohttp.ClientSession(url, headers=HEADERS) as session:
            silent = asyncio.create_task(post_until_closed(session, "Hello [[sim error=timeout]]"))
            async with session.post(CHAT, json=chat("Hello [[sim token_delay_ms=60000]]", stream=True)) as response:
                await response.content.readany()
                start = time.monotonic()
                process.send_signal(number)
                code = await asyncio.to_thread(process.wait, 5)
                took_s = time.monotonic() - start
            assert isinstance(await silent, aiohttp.ClientError)
        assert process.stderr is not None
        log = [json.loads(line) for line in process.stderr.read().splitlines()]

    assert code == 0
    assert took_s < 1
    assert [line["event"] for line in log] == ["simulator_stopped"]


async def post_until_closed(session: aiohttp.ClientSession, content: str) -> Any:
    try:
        async with session.post(CHAT, json=chat(content)) as response:
            return await response.read()
    except aiohttp.ClientError as error:
        return error


async def test_a_batch_is_over_when_its_slowest_line_is_and_says_what_each_has_come_to() -> None:
    with simulator() as (_, url):
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:

            def line(name: str, said: str) -> bytes:
                return (
                    json.dumps({"custom_id": name, "method": "POST", "url": CHAT, "body": chat(said)}).encode() + b"\n"
                )

            async def begin(*lines: bytes) -> openai.types.Batch:
                file = await client.files.create(file=("in.jsonl", io.BytesIO(b"".join(lines))), purpose="batch")
                return await client.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
                )

            async def answers(file_id: str | None) -> dict[str, Any]:
                assert file_id is not None
                content = (await client.files.content(file_id)).text
                return {each["custom_id"]: each for each in map(json.loads, content.splitlines())}

            batch = await begin(
                line("good", "Hi [[sim output_tokens=3 latency_ms=300]]"),
                line("bad", "Hi [[sim error=429]]"),
                line("silent", "Hi [[sim error=no_usage]]"),
            )
            assert (batch.status, batch.output_file_id) == ("in_progress", None)
            await asyncio.sleep(0.35)
            ended = await client.batches.retrieve(batch.id)
            assert ended.status == "completed"
            good, bad = await answers(ended.output_file_id), await answers(ended.error_file_id)
            assert good["good"]["response"]["body"]["usage"]["completion_tokens"] == 3
            assert "usage" not in good["silent"]["response"]["body"]
            assert bad["bad"]["response"]["status_code"] == 429
            with pytest.raises(openai.BadRequestError):
                await client.batches.cancel(batch.id)
            stopped = await begin(line("done", "Hi"), line("never", "Hi [[sim error=timeout]]"))
            ended = await client.batches.cancel(stopped.id)
            assert ended.status == "cancelled"
            assert set(await answers(ended.output_file_id)) == {"done"}
            assert (await answers(ended.error_file_id))["never"]["error"]["code"] == "batch_cancelled"
            assert [each.id for each in (await client.batches.list(limit=1)).data] == [stopped.id]
            assert [each.id async for each in await client.batches.list(limit=1)] == [stopped.id, batch.id]
