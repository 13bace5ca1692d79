"""The story of one chat request: what hops 1 to 10 of docs/ARCHITECTURE.md leave behind, with the official SDK and real parts."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionMessageParam
from pydantic import SecretStr

from gateway_core.api_keys import LIVE_PREFIX, hash_key, new_key
from tests.support.stack import Stack, provider_credentials

PROMPT: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Tell me about rivers. [[sim output_tokens=30 cached_tokens=4]]"}
]


@dataclass(frozen=True)
class Offer:
    """A model of the demo catalogue; prices are nano-USD per token, a thousand times its US dollars per million tokens."""

    model: str
    provider: str
    path: str
    input: int
    cached_input: int
    output: int

    def meters(self, usage: CompletionUsage) -> dict[str, int]:
        """What a client that was given this usage expects to be counted."""
        assert usage.prompt_tokens_details is not None
        cached = usage.prompt_tokens_details.cached_tokens or 0
        return {"input": usage.prompt_tokens - cached, "cached_input": cached, "output": usage.completion_tokens}

    def price(self, usage: CompletionUsage) -> int:
        """What it expects to pay, in nano-USD."""
        meters = self.meters(usage)
        return (
            meters["input"] * self.input + meters["cached_input"] * self.cached_input + meters["output"] * self.output
        )


OFFERS = [
    Offer("gpt-4o-mini", "openai", "/v1/chat/completions", input=150, cached_input=75, output=600),
    Offer("gemini-2.5-flash", "gemini", "/v1beta/openai/chat/completions", input=300, cached_input=30, output=2500),
]

each_offer = pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: offer.model)


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=stack.endpoints["openai_base_url"], api_key=stack.endpoints["api_key"], max_retries=0
    ) as created:
        yield created


@each_offer
async def test_hop_table_of_a_unary_chat_completion(stack: Stack, client: openai.AsyncOpenAI, offer: Offer) -> None:
    await stack.settled()
    balance_before = await _balance(stack)
    await stack.forget_provider_requests()

    # 1, 2: Envoy has taken the control plane's configuration, all of it.
    assert set(await _accepted_versions(stack)) == {"Cluster", "Secret", "Listener", "RouteConfiguration"}

    # 3, 4: the client's request passes.
    raw = await client.chat.completions.with_raw_response.create(
        model=offer.model, messages=PROMPT, extra_headers={"x-request-id": "my-own-id"}
    )
    answer = raw.parse()
    request_id = raw.headers["x-request-id"]
    assert request_id != "my-own-id"
    assert answer.choices[0].message.content
    assert answer.usage is not None

    # 5: the provider got its own credential and not the client's.
    [received] = await stack.provider_requests()
    credentials = await provider_credentials(stack)
    assert received["path"] == offer.path
    assert received["headers"]["authorization"] == f"Bearer {credentials[offer.provider]}"
    assert stack.endpoints["api_key"] not in json.dumps(received)
    assert not [name for name in received["headers"] if name.startswith(("x-tg-", "x-envoy-"))]

    # 6: the provider's usage was captured in its own words; nothing was streamed.
    row = await stack.request_row(request_id)
    line = _spool_line(stack, request_id)
    assert json.loads(line["usage_first"]) == json.loads(raw.content)["usage"]
    assert (line["usage_last"], line["sse_events"]) == (None, None)

    # 7: one line in the spool.
    assert (line["cluster"], line["request"]["model"]) == (f"provider/{offer.provider}", offer.model)
    assert (line["request"]["model"], line["attempts"], line["status"]) == (offer.model, 1, 200)

    # 8: read, and rated.
    assert (row["outcome"], row["usage_source"], row["stream"]) == ("settled", "provider", False)
    assert row["client_request_id"] == "my-own-id"
    assert json.loads(row["meters"]) == offer.meters(answer.usage)

    # 9: moved in the ledger, to the nano-dollar. 10: the same in ClickHouse.
    await stack.settled()
    assert balance_before - await _balance(stack) == offer.price(answer.usage)
    await _is_posted(stack, request_id, offer, answer.usage)


@each_offer
async def test_hop_table_of_a_streamed_chat_completion(stack: Stack, client: openai.AsyncOpenAI, offer: Offer) -> None:
    await stack.settled()
    balance_before = await _balance(stack)
    raw = await client.chat.completions.with_raw_response.create(model=offer.model, messages=PROMPT, stream=True)
    request_id = raw.headers["x-request-id"]
    stream = raw.parse()
    assert isinstance(stream, openai.AsyncStream)
    chunks = [chunk async for chunk in stream]
    # The client did not ask for usage, so it sees no chunk without choices; we asked, and were told.
    assert all(chunk.choices for chunk in chunks)
    row = await stack.request_row(request_id)
    assert (row["outcome"], row["usage_source"], row["stream"]) == ("settled", "provider", True)
    await stack.settled()
    balance_after = await _balance(stack)

    # What it should have cost is known from the same request by a client that asks for the usage.
    usage = await _streamed_usage(client, offer.model)
    assert usage.completion_tokens == 30
    line = _spool_line(stack, request_id)
    assert json.loads(line["usage_first"]) == usage.model_dump(exclude_unset=True)
    # The chunk with the usage, which was kept from the client, is counted too; and so is [DONE].
    assert line["sse_events"] == len(chunks) + 2
    assert json.loads(row["meters"]) == offer.meters(usage)
    assert balance_before - balance_after == offer.price(usage)
    await _is_posted(stack, request_id, offer, usage)


@each_offer
async def test_a_client_that_asks_for_usage_in_its_stream_gets_it(client: openai.AsyncOpenAI, offer: Offer) -> None:
    assert (await _streamed_usage(client, offer.model)).completion_tokens == 30


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
        assert {model.id async for model in client.models.list()} == {"gpt-4o", "gpt-4o-mini", "gpt-4o-transcribe"}
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client.chat.completions.create(model="gemini-2.5-flash", messages=PROMPT)
        assert refused.value.code == "model_not_allowed"


async def _accepted_versions(stack: Stack) -> dict[str, str]:
    """By resource type, what the one Envoy says it has taken; it has refused nothing."""
    url = f"{stack.endpoints['control_plane_url']}/api/v1/nodes"
    headers = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        [node] = (await response.json())["data"]
    assert not [status["rejection"] for status in node["types"].values() if status["rejection"]]
    return {name: status["accepted_version"] for name, status in node["types"].items() if status["accepted_version"]}


async def _streamed_usage(client: openai.AsyncOpenAI, model: str) -> CompletionUsage:
    """What a stream of the prompt costs, as the client is told when it asks."""
    stream = await client.chat.completions.create(
        model=model, messages=PROMPT, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    return chunks[-1].usage


def _spool_line(stack: Stack, request_id: str) -> dict[str, Any]:
    """The one line of a request."""
    lines = (Path(stack.endpoints["spool_dir"]) / "access.jsonl").read_text().splitlines()
    [line] = [json.loads(text) for text in lines if request_id in text]
    assert isinstance(line, dict)
    return line


async def _balance(stack: Stack) -> int:
    async with stack.database() as database:
        found: int = await database.fetchval(
            "SELECT posted_nano_usd FROM billing.accounts WHERE org_id = 'org_demo' AND mode = 'live'"
        )
        return found


async def _is_posted(stack: Stack, request_id: str, offer: Offer, usage: CompletionUsage) -> None:
    """Hops 9 and 10: the ledger's entries for a request, and its row in ClickHouse, are worth what the usage costs."""
    price = offer.price(usage)
    async with stack.database() as database:
        entries = await database.fetch(
            """
            SELECT a.kind, e.amount_nano_usd FROM billing.transactions t
            JOIN billing.entries e USING (transaction_id) JOIN billing.accounts a USING (account_id)
            WHERE t.request_id = $1
            """,
            request_id,
        )
        # Hop 4 set money aside: as a share of a slice that this request, once it had ended, has left.
        slice_ = await database.fetchrow(
            """
            SELECT requests_settled, settled_nano_usd, r.hold_nano_usd FROM billing.slices
            JOIN billing.requests r USING (slice_id) WHERE request_id = $1
            """,
            request_id,
        )
    assert slice_ is not None
    assert slice_["requests_settled"] > 0
    assert slice_["settled_nano_usd"] >= slice_["hold_nano_usd"] > 0
    assert {entry["kind"]: entry["amount_nano_usd"] for entry in entries} == {"balance": -price, "revenue": price}
    row = await stack.clickhouse_row(request_id)
    assert (row["outcome"], row["model"], row["provider"]) == ("settled", offer.model, offer.provider)
    tokens = {name.removesuffix("_tokens"): count for name, count in row.items() if name.endswith("_tokens") and count}
    assert tokens == offer.meters(usage)
    assert row["price_nano_usd"] == price
