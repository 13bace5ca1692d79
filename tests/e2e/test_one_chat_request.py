"""The story of one chat request, along the hop table of docs/ARCHITECTURE.md, with the official SDK and real parts."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import clickhouse_connect
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import SecretStr

from gateway_core.api_keys import LIVE_PREFIX, hash_key, new_key
from tests.support.stack import Stack, eventually

PROMPT: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Tell me about rivers. [[sim output_tokens=30 cached_tokens=4]]"}
]

# gpt-4o-mini, US dollars per million tokens as in the demo catalogue: input 0.15, cached input 0.075, output 0.60.
INPUT, CACHED_INPUT, OUTPUT = 150, 75, 600
"""Nano-USD per token."""


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=stack.endpoints["openai_base_url"], api_key=stack.endpoints["api_key"], max_retries=0
    ) as created:
        yield created


async def test_hop_table_of_a_unary_chat_completion(stack: Stack, client: openai.AsyncOpenAI) -> None:
    await stack.settled()
    balance_before = await _balance(stack)
    await stack.forget_provider_requests()

    # 1, 2: Envoy has its configuration from the control plane.
    assert "provider/openai" in str(await stack.envoy_stats("^cluster.provider/openai.membership_total"))

    # 3, 4: the client's request passes.
    raw = await client.chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=PROMPT, extra_headers={"x-request-id": "my-own-id"}
    )
    answer = raw.parse()
    request_id = raw.headers["x-request-id"]
    assert request_id != "my-own-id"
    assert answer.choices[0].message.content
    assert answer.usage is not None
    usage = answer.usage

    # 5: the provider got its own credential and not the client's.
    [received] = await stack.provider_requests()
    assert received["headers"]["authorization"].startswith("Bearer simulated-")
    assert stack.endpoints["api_key"] not in json.dumps(received)
    assert not [name for name in received["headers"] if name.startswith(("x-tg-", "x-envoy-"))]

    # 7: one line in the spool.
    row = await stack.request_row(request_id)
    lines = (Path(stack.endpoints["spool_dir"]) / "access.jsonl").read_text().splitlines()
    [line] = [json.loads(text) for text in lines if request_id in text]
    assert json.loads(line["usage_first"])["completion_tokens"] == usage.completion_tokens == 30

    # 8, 9: rated, and moved in the ledger to the nano-dollar.
    expected = (usage.prompt_tokens - 4) * INPUT + 4 * CACHED_INPUT + 30 * OUTPUT
    assert row["outcome"] == "settled"
    assert row["client_request_id"] == "my-own-id"
    assert json.loads(row["meters"]) == {"input": usage.prompt_tokens - 4, "cached_input": 4, "output": 30}
    assert row["price_nano_usd"] == expected
    await stack.settled()
    assert balance_before - await _balance(stack) == expected
    async with stack.database() as database:
        entries = await database.fetch(
            """
            SELECT a.kind, e.amount_nano_usd FROM billing.transactions t
            JOIN billing.entries e USING (transaction_id) JOIN billing.accounts a USING (account_id)
            WHERE t.request_id = $1
            """,
            request_id,
        )
    assert {row["kind"]: row["amount_nano_usd"] for row in entries} == {"balance": -expected, "revenue": expected}

    # 10: the same row in ClickHouse.
    clickhouse = clickhouse_connect.get_client(dsn=stack.endpoints["clickhouse_url"])

    async def find_row() -> Sequence[Sequence[Any]]:
        return clickhouse.query(
            "SELECT outcome, output_tokens, price_nano_usd FROM requests FINAL WHERE request_id = {id:String}",
            parameters={"id": request_id},
        ).result_rows

    assert await eventually(find_row) == [("settled", 30, expected)]
    clickhouse.close()


async def test_hop_table_of_a_streamed_chat_completion(stack: Stack, client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=PROMPT, stream=True)
    request_id = raw.headers["x-request-id"]
    stream = raw.parse()
    assert isinstance(stream, openai.AsyncStream)
    chunks = [chunk async for chunk in stream]
    # The client did not ask for usage, so it sees no chunk without choices; we asked, and were told.
    assert all(chunk.choices for chunk in chunks)
    row = await stack.request_row(request_id)
    assert (row["outcome"], row["usage_source"], row["stream"]) == ("settled", "provider", True)
    meters = json.loads(row["meters"])
    assert meters["output"] == 30
    assert row["price_nano_usd"] == meters["input"] * INPUT + 4 * CACHED_INPUT + 30 * OUTPUT


async def test_a_client_that_asks_for_usage_in_its_stream_gets_it(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="gpt-4o-mini", messages=PROMPT, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 30


async def test_the_models_a_key_may_use_are_listed_in_openai_form(client: openai.AsyncOpenAI) -> None:
    models = {model.id async for model in client.models.list()}
    assert {"gpt-4o-mini", "gpt-4o", "claude-sonnet-4-6", "gemini-2.5-flash"} <= models


async def test_a_key_limited_to_some_models_lists_and_uses_only_those(stack: Stack) -> None:
    key = new_key(LIVE_PREFIX, lambda count: b"\x07" * count).get_secret_value()
    async with stack.database() as database:
        await database.execute(
            """
            INSERT INTO accounts.api_keys (key_id, org_id, project_id, name, key_hash, models_allowed)
            VALUES ('key_limited', 'org_demo', 'prj_demo', 'limited', $1, '{gpt-4o*}')
            """,
            hash_key(key, SecretStr(stack.secret("tollgate_api_key_pepper"))),
        )
    async with openai.AsyncOpenAI(base_url=stack.endpoints["openai_base_url"], api_key=key, max_retries=0) as client:
        assert {model.id async for model in client.models.list()} == {"gpt-4o", "gpt-4o-mini"}
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client.chat.completions.create(model="gemini-2.5-flash", messages=PROMPT)
        assert refused.value.code == "model_not_allowed"


async def _balance(stack: Stack) -> int:
    async with stack.database() as database:
        found: int = await database.fetchval("SELECT posted_nano_usd FROM billing.accounts WHERE org_id = 'org_demo'")
        return found
