"""The official Anthropic SDK through the gateway: unary, streamed, and left in the middle."""

import json
from collections.abc import AsyncIterator

import anthropic
import pytest
from anthropic.types import MessageParam

from tests.support.stack import Stack, eventually

PROMPT: list[MessageParam] = [{"role": "user", "content": "Hello. [[sim output_tokens=12 cached_tokens=2]]"}]

# claude-sonnet-4-6, nano-USD per token: input 3.00, cached input 0.30, output 15.00 US dollars per million.
INPUT, CACHED_INPUT, OUTPUT = 3000, 300, 15000


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=stack.endpoints["anthropic_base_url"], api_key=stack.endpoints["api_key"], max_retries=0
    ) as created:
        yield created


async def test_a_message_is_charged_by_its_usage(stack: Stack, client: anthropic.AsyncAnthropic) -> None:
    raw = await client.messages.with_raw_response.create(model="claude-sonnet-4-6", max_tokens=50, messages=PROMPT)
    usage = (await raw.parse()).usage
    row = await stack.request_row(raw.headers["x-request-id"])
    assert json.loads(row["meters"]) == {"input": usage.input_tokens, "cached_input": 2, "output": 12}
    assert row["price_nano_usd"] == usage.input_tokens * INPUT + 2 * CACHED_INPUT + 12 * OUTPUT
    [received] = [request for request in await stack.provider_requests() if request["path"] == "/v1/messages"][-1:]
    assert received["headers"]["x-api-key"].startswith("simulated-")
    assert received["headers"]["anthropic-version"]


async def test_a_streamed_message_is_charged_by_its_last_usage(stack: Stack, client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(model="claude-sonnet-4-6", max_tokens=50, messages=PROMPT) as stream:
        text = await stream.get_final_text()
        request_id = stream.response.headers["x-request-id"]
    assert text
    row = await stack.request_row(request_id)
    assert (row["outcome"], row["usage_source"]) == ("settled", "provider")
    assert json.loads(row["meters"])["output"] == 12
    assert len(json.loads(row["usage_raw"])) == 2


async def test_a_stream_that_is_left_is_charged_for_what_was_delivered(
    stack: Stack, client: anthropic.AsyncAnthropic
) -> None:
    slow: list[MessageParam] = [{"role": "user", "content": "Slowly. [[sim output_tokens=200 token_delay_ms=20]]"}]
    async with client.messages.stream(model="claude-sonnet-4-6", max_tokens=300, messages=slow) as stream:
        seen = 0
        async for _ in stream.text_stream:
            seen += 1
            if seen == 10:
                break
        request_id = stream.response.headers["x-request-id"]

    async def find() -> bool:
        return (await stack.request_row(request_id)) is not None

    assert await eventually(find)
    row = await stack.request_row(request_id)
    assert (row["outcome"], row["usage_source"]) == ("estimated", "estimated")
    meters = json.loads(row["meters"])
    assert 10 <= meters["output"] < 100
    assert meters["input"] > 0
