"""A key with a small budget: served, served shorter, refused; raised through the API and served within a second; renewed."""

import asyncio
import json
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from billing_sink.postgres_ledger import _row
from tests.support.ledger import posting
from tests.support.stack import Stack, add_model, eventually, wait_until_routed

TOKENS = 300
"""What is left of a budget, beside the bytes of the request; a token costs a nano-USD."""
HEADER = "x-tollgate-max-tokens"
BODY = {"messages": [{"role": "user", "content": "Tell me everything. [[sim output_tokens=1000]]"}], "max_tokens": 1000}


class Customer:
    """An organisation with one key, plenty of money, and an operator who changes its budgets through the API."""

    def __init__(
        self, stack: Stack, name: str, path: str, model: str, key: str, session: aiohttp.ClientSession
    ) -> None:
        self.stack = stack
        self.name = name
        self.path = path
        self.key = key
        self.body = json.dumps({"model": model, **BODY})
        self._session = session

    async def ask(self) -> tuple[int, Any, Any]:
        """Status, headers and document of the answer to a request."""
        headers = {"Authorization": f"Bearer {self.key}"}
        async with self._session.post(self.stack.url + self.path, data=self.body, headers=headers) as response:
            return response.status, response.headers, await response.json()

    async def api(self, method: str, path: str, body: object = None) -> Any:
        """One call of the API, as an operator."""
        headers = {"Authorization": f"Bearer {self.stack.endpoints['operator_token']}", "If-Match": "*"}
        url = f"{self.stack.endpoints['control_plane_url']}/api/v1/orgs/org_{self.name}{path}"
        async with self._session.request(method, url, json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def limit(self, thing: str, nano_usd: int, *, per: str = "day") -> None:
        """Give the key or the project a budget, and wait until everybody knows."""
        await self.api("PATCH", f"/{thing}", {f"budget_per_{per}_usd": f"{nano_usd / 1e9:.9f}"})

        async def is_known() -> bool:
            return bool((await self.api("GET", f"/keys/key_{self.name}/propagation"))["propagated"])

        await eventually(is_known, deadline_s=1)

    async def spent(self, nano_usd: int, at: datetime) -> None:
        """A request of the past, which cost that."""
        line = _row(posting(f"{self.name} {at.timestamp()}", price=nano_usd, key_id=f"key_{self.name}"))
        row = {**line, "org_id": f"org_{self.name}", "project_id": f"prj_{self.name}"}
        async with self.stack.database() as database:
            await database.execute("SELECT billing.settle($1::jsonb, $2)", json.dumps([row]), at)


async def customer(stack: Stack, name: str, path: str, session: aiohttp.ClientSession) -> Customer:
    model = f"{name}-model"
    await add_model(stack, model, [("anthropic" if path.endswith("messages") else "openai", model)])
    if path.endswith("completions"):
        await wait_until_routed(stack, model)
    created = Customer(stack, name, path, model, await stack.make_key(name, balance="1"), session)

    async def is_served() -> bool:
        return (await created.ask())[0] == 200

    await eventually(is_served)
    await stack.settled()
    return created


@pytest.mark.parametrize(
    ("name", "path", "thing"),
    [
        ("frugal", "/v1/chat/completions", "keys/key_frugal"),
        ("thrifty", "/v1/messages", "projects/prj_thrifty"),
    ],
)
async def test_a_budget_serves_then_shortens_then_refuses_until_it_is_raised(
    stack: Stack, name: str, path: str, thing: str
) -> None:
    async with aiohttp.ClientSession() as session:
        who = await customer(stack, name, path, session)
        [spent] = await prices(stack, name)
        await who.limit(thing, spent + len(who.body) + TOKENS)
        status, headers, answer = await who.ask()
        assert (status, headers[HEADER]) == (200, str(TOKENS)), answer
        row = await stack.request_row(headers["x-request-id"])
        assert (row["slice_id"], row["hold_nano_usd"]) == (None, len(who.body) + TOKENS)
        await stack.settled()

        status, headers, answer = await who.ask()
        assert (status, answer["error"]["code"], headers["x-should-retry"]) == (402, "budget_exceeded", "false")
        whose = "project" if thing.startswith("projects") else "API key does"
        assert "the daily budget of this API key" in answer["error"]["message"]
        assert whose in answer["error"]["message"]
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0)
        assert f"renews at {tomorrow:%Y-%m-%dT%H:%M:%SZ}" in answer["error"]["message"]
        assert (await stack.request_row(headers["x-request-id"]))["error_code"] == "budget_exceeded"
        [budget] = (await who.api("GET", "/budgets"))["data"]
        assert (budget["id"], budget["held"]) == (thing.partition("/")[2], "0.00")
        assert float(budget["left"]) * 1e9 < len(who.body) + 256

        began = time.monotonic()
        await who.api("PATCH", f"/{thing}", {"budget_per_day_usd": "1"})

        async def is_served_in_full() -> bool:
            status, headers, _ = await who.ask()
            return status == 200 and HEADER not in headers

        await eventually(is_served_in_full, deadline_s=1)
        assert time.monotonic() - began < 1
        await stack.settled()
    async with stack.database() as database:
        assert not await database.fetch("SELECT name FROM billing.check_books() WHERE wrong > 0")


async def test_who_is_refused_only_because_requests_are_running_may_try_again_and_passes_when_they_have_ended(
    stack: Stack,
) -> None:
    async with aiohttp.ClientSession() as session:
        who = await customer(stack, "busy", "/v1/chat/completions", session)
        [spent] = await prices(stack, "busy")
        await who.limit("keys/key_busy", spent + len(who.body) + TOKENS)
        running = ("running elsewhere", "org_busy", "key_busy", 100, datetime.now(UTC) + timedelta(hours=1), "prj_busy")
        async with stack.database() as database:
            await database.execute("SELECT billing.place_hold($1, $2, $3, $4, $5, p_project_id => $6)", *running)
        status, headers, answer = await who.ask()
        assert (status, answer["error"]["code"], headers["retry-after"]) == (429, "budget_held", "1")
        assert "x-should-retry" not in headers
        assert (await stack.request_row(headers["x-request-id"]))["error_code"] == "budget_held"
        async with stack.database() as database:
            await database.execute("SELECT billing.expire_holds($1, 1)", datetime.now(UTC) + timedelta(hours=2))
        assert (await who.ask())[0] == 200
        await stack.settled()


async def test_what_was_spent_yesterday_is_left_again_today_and_the_month_remembers_it(stack: Stack) -> None:
    async with aiohttp.ClientSession() as session:
        who = await customer(stack, "renewed", "/v1/chat/completions", session)
        now = datetime.now(UTC)
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        await who.limit("keys/key_renewed", 10_000)
        await who.spent(10_000, today - timedelta(microseconds=1))
        assert (await who.ask())[0] == 200
        await stack.settled()
        await who.spent(10_000, today)
        assert (await who.ask())[2]["error"]["code"] == "budget_exceeded"
        # Both days are of one month, unless it has begun today.
        await who.limit("keys/key_renewed", 1_000_000)
        await who.limit("keys/key_renewed", 15_000, per="month")
        _, _, answer = await who.ask()
        first_of_month = today.day == 1
        assert ("error" in answer) == (not first_of_month)
        if not first_of_month:
            assert "the monthly budget of this API key" in answer["error"]["message"]


async def prices(stack: Stack, name: str) -> list[int]:
    """What the requests of a key were charged."""
    async with stack.database() as database:
        rows = await database.fetch(
            "SELECT price_nano_usd FROM billing.requests WHERE key_id = $1 AND price_nano_usd > 0", f"key_{name}"
        )
    return [row["price_nano_usd"] for row in rows]


async def test_a_client_that_leaves_while_it_is_decided_about_leaves_nothing_held_and_nothing_set_aside(
    stack: Stack,
) -> None:
    async with aiohttp.ClientSession() as session:
        who = await customer(stack, "hurried", "/v1/chat/completions", session)
        # With a budget each request has a hold of its own.
        await who.limit("keys/key_hurried", 1_000_000_000)
        for number in range(120):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.001 + number % 12 / 1000):
                    await who.ask()
        await stack.settled()
        async with stack.database() as database:
            rows = await database.fetch(
                "SELECT state, count(*) FROM billing.holds JOIN billing.accounts USING (account_id)"
                " WHERE org_id = 'org_hurried' GROUP BY 1"
            )
            assert "held" not in {row["state"] for row in rows}
            assert not await database.fetchval(
                "SELECT count(*) FROM billing.quarantine WHERE reason LIKE 'the ledger refuses it%'"
            )
        assert (await who.ask())[0] == 200
