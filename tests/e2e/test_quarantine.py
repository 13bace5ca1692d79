"""The story of usage beyond what was held: what can be is charged, what cannot be waits for an operator, who decides."""

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg
import pytest

from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.stack import CONTEXT_TOKENS, Stack, add_model, add_provider, eventually, wait_until_routed

BALANCE = 1_000_000_000
"""One dollar. A token is one nano-USD."""


@dataclass
class Bench:
    """A model that a scripted provider serves, and an organisation that asks for it."""

    stack: Stack
    provider: ScriptedProvider
    session: aiohttp.ClientSession
    name: str
    key: str

    async def ask(self, output_tokens: int) -> str:
        """A request whose answer says that it took so many tokens; returns its id."""
        usage = {"prompt_tokens": 1, "completion_tokens": output_tokens, "total_tokens": output_tokens + 1}
        self.provider.pieces = [json.dumps({"id": "c", "choices": [], "usage": usage}).encode()]
        body = {"model": self.name, "messages": [], "max_tokens": 10}
        headers = {"Authorization": f"Bearer {self.key}"}
        async with self.session.post(f"{self.stack.url}/v1/chat/completions", json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            return response.headers["x-request-id"]

    async def operate(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """A call of the API by an operator."""
        headers = {"Authorization": f"Bearer {self.stack.endpoints['operator_token']}"}
        url = f"{self.stack.endpoints['control_plane_url']}/api/v1{path}"
        async with self.session.request(method, url, json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            return dict(await response.json())

    async def quarantined(self, request_id: str) -> dict[str, Any]:
        """Its line, once it is there."""

        async def find() -> dict[str, Any] | None:
            lines = (await self.operate("GET", "/billing/quarantine?open=true&reason=ImplausibleUsageError"))["data"]
            return next((line for line in lines if line["request_id"] == request_id), None)

        return await eventually(find)

    async def posted(self) -> int:
        """What is in the balance."""
        async with self.stack.database() as database:
            posted: int = await database.fetchval(
                "SELECT posted_nano_usd FROM billing.accounts WHERE org_id = $1 AND mode = 'live' AND kind = 'balance'",
                f"org_{self.name}",
            )
        return posted

    async def row(self, request_id: str) -> asyncpg.Record:
        return await self.stack.request_row(request_id)


@pytest.fixture
async def bench(stack: Stack) -> AsyncIterator[Bench]:
    name = f"beyond-{secrets.token_hex(4)}"
    async with scripted_provider() as provider, aiohttp.ClientSession() as session:
        provider.content_type = "application/json"
        await add_provider(stack, name, provider.url, "sk-beyond")
        await add_model(stack, name, [(name, "up")])
        key = await stack.make_key(name, balance="1.00")
        await wait_until_routed(stack, name)
        yield Bench(stack, provider, session, name, key)


async def test_usage_beyond_its_hold_is_paid_from_what_is_free_and_then_by_the_platform(bench: Bench) -> None:
    within = await bench.row(await bench.ask(5_000_000))
    assert within["price_nano_usd"] == 5_000_001 > within["hold_nano_usd"]
    assert (within["outcome"], within["absorbed_nano_usd"]) == ("settled", 0)
    assert await bench.posted() == BALANCE - 5_000_001

    async with bench.stack.database() as database:
        await database.execute("SELECT billing.credit($1, -970000000, 'test')", f"org_{bench.name}")
    left = await bench.posted()
    beyond = await bench.row(await bench.ask(9_000_000))
    # Of what is free some is in a slice, for other requests.
    assert 0 < beyond["absorbed_nano_usd"] < beyond["price_nano_usd"] == 9_000_001
    assert await bench.posted() == left - 9_000_001 + beyond["absorbed_nano_usd"] >= 0
    assert not any(check["wrong"] for check in (await bench.operate("GET", "/billing/books"))["checks"])


@pytest.mark.parametrize(
    ("decision", "charged"), [({"decision": "charge", "amount": "0.000002"}, 2000), ({"decision": "release"}, 0)]
)
async def test_numbers_that_no_model_could_cause_wait_for_an_operator_who_decides_once(
    bench: Bench, decision: dict[str, str], charged: int
) -> None:
    request_id = await bench.ask(CONTEXT_TOKENS * 3)
    line = await bench.quarantined(request_id)
    assert (line["org_id"], line["model"], line["provider"]) == (f"org_{bench.name}", bench.name, bench.name)
    assert float(line["held"]) > 0
    assert await bench.posted() == BALANCE
    path = f"/billing/quarantine/{line['id']}/decision"
    made = await bench.operate("POST", path, {**decision, "reason": "a fault of the provider's"})
    assert await bench.operate("POST", path, {**decision, "reason": "again"}) == made
    row = await bench.row(request_id)
    assert (row["model"], row["price_nano_usd"], row["absorbed_nano_usd"]) == (bench.name, charged, 0)
    assert await bench.posted() == BALANCE - charged
    assert not any(check["wrong"] for check in (await bench.operate("GET", "/billing/books"))["checks"])
