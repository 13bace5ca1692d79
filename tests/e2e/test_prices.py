"""The story of a price: an operator changes what a model costs and what one organisation pays, and requests are charged by it."""

import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aiohttp
import asyncpg
import pytest

from gateway_core.clock import utc_now
from tests.support.stack import Stack, eventually

MODEL = {"owned_by": "test", "context_tokens": 100_000, "max_output_tokens": 100}
LIST = {"input": 1000, "cached_input": 1000, "output": 2000, "reasoning": 2000, "request": 1_000_000}
"""Nano-USD per token, and per request: what tenants pay. It costs us half."""


def written(prices: Mapping[str, int]) -> list[dict[str, str]]:
    """As an operator writes them: in dollars per million tokens, and per request."""
    return [
        {
            "meter": meter,
            "unit": "request" if meter == "request" else "1M tokens",
            "cost": f"{nano / 2 / (10**9 if meter == 'request' else 1000):.6f}",
            "price": f"{nano / (10**9 if meter == 'request' else 1000):.6f}",
        }
        for meter, nano in prices.items()
    ]


@dataclass(frozen=True)
class Shop:
    """A model with a provider of its own, and an organisation that buys from it."""

    stack: Stack
    session: aiohttp.ClientSession
    name: str
    key: str

    async def operate(self, method: str, path: str, body: object, **headers: str) -> dict[str, Any]:
        """An operator's change, once it is final; or what it answered, if it waits for a moment."""
        headers["Authorization"] = f"Bearer {self.stack.endpoints['operator_token']}"
        url = f"{self.stack.endpoints['control_plane_url']}/api/v1"
        async with self.session.request(method, url + path, json=body, headers=headers) as response:
            assert response.status == 202, await response.text()
            answer = dict(await response.json())
        if answer["state"] == "pending":
            async with self.session.get(f"{url}/operations/{answer['id']}?wait_ms=10000", headers=headers) as response:
                answer = dict(await response.json())
            assert answer["state"] == "applied", answer
        return answer

    async def charged_since(self, revision: int) -> asyncpg.Record:
        """The row of a request that was admitted at a revision or a later one."""

        async def ask() -> asyncpg.Record | None:
            body = {"model": self.name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
            url, headers = f"{self.stack.url}/v1/chat/completions", {"Authorization": f"Bearer {self.key}"}
            async with self.session.post(url, json=body, headers=headers) as response:
                assert response.status == 200, await response.text()
                row = await self.stack.request_row(response.headers["x-request-id"])
            assert row["outcome"] == "settled"
            return row if row["price_version"] >= revision else None

        return await eventually(ask)


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    name = f"shop-{secrets.token_hex(4)}"
    key = await stack.make_key(name, balance="5.00")
    async with aiohttp.ClientSession() as session:
        yield Shop(stack, session, name, key)


async def open_shop(shop: Shop, **price: object) -> int:
    """Offer the model at a price; returns the revision from which it can be bought."""
    name = shop.name
    provider = {"kind": "openai", "base_url": f"{shop.stack.simulator_url}/v1", "credential": "sk-shop"}
    await shop.operate("PUT", f"/providers/{name}", provider)
    await shop.operate("PUT", f"/models/{name}", MODEL)
    await shop.operate("PUT", f"/deployments/{name}/{name}", {"upstream_model": "up"})
    await shop.operate("POST", "/prices", {"model": name, "provider": name, **price})
    route = await shop.operate("PUT", f"/routes/{name}", {"match": name, "groups": [[{"provider": name}]]})
    return int(route["revision"])


def at(row: asyncpg.Record, prices: Mapping[str, int]) -> int:
    """What the request of a row costs at these prices."""
    return sum(count * prices[meter] for meter, count in json.loads(row["meters"]).items())


async def test_a_markup_and_a_price_of_its_own_change_what_an_organisation_pays_and_nothing_else(shop: Shop) -> None:
    row = await shop.charged_since(await open_shop(shop, prices=written(LIST)))
    assert json.loads(row["meters"])["request"] == 1
    assert row["price_nano_usd"] == at(row, LIST) > 1_000_000
    assert row["cost_nano_usd"] == at(row, LIST) // 2

    terms = f"/orgs/org_{shop.name}/terms"
    operation = await shop.operate("PUT", terms, {"markup_percent": "50"})
    row = await shop.charged_since(operation["revision"])
    assert row["price_nano_usd"] == at(row, LIST) * 3 // 2
    assert row["cost_nano_usd"] == at(row, LIST) // 2

    override = {"model": shop.name, "meter": "output", "unit": "1K tokens", "price": "0.007"}
    body = {"markup_percent": "-10", "overrides": [override]}
    operation = await shop.operate("PUT", terms, body, **{"If-Match": f'"{operation["revision"]}"'})
    row = await shop.charged_since(operation["revision"])
    discounted = {meter: nano * 9 // 10 for meter, nano in LIST.items()}
    assert row["price_nano_usd"] == at(row, discounted | {"output": 7000})
    assert row["cost_nano_usd"] == at(row, LIST) // 2


async def test_a_free_deployment_charges_nothing_until_a_scheduled_price_is_due(shop: Shop) -> None:
    row = await shop.charged_since(await open_shop(shop, free=True))
    assert (row["price_nano_usd"], row["cost_nano_usd"]) == (0, 0)
    assert row["hold_nano_usd"] == 0

    due = utc_now() + timedelta(seconds=1)
    change = {"model": shop.name, "provider": shop.name, "effective_from": due.isoformat(), "prices": written(LIST)}
    assert (await shop.operate("POST", "/prices", change))["state"] == "scheduled"
    row = await shop.charged_since(row["price_version"] + 1)
    assert row["price_nano_usd"] == at(row, LIST)
    assert row["started_at"] > due
    assert utc_now() - due < timedelta(seconds=10)
