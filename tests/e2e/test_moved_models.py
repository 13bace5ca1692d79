"""The story of a model that is moved under traffic: every answer is charged at the price of what served it.

Envoy and admission come to each change at different moments, a few milliseconds apart. So the moves here are many.
"""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import asyncpg
import pytest

from tests.support.stack import Stack, add_provider, wait_until_routed

MOVES: Final = 30
PAUSE_S: Final = 0.04
ASKING: Final = 6
METERS: Final = ("input", "cached_input", "output", "reasoning")
CHEAP, DEAR = 1_000, 50_000
"""Nano-USD per token: so far apart that a request held at the one is no match for the other."""


@dataclass
class Traffic:
    """Requests to one name, and what each was answered with.

    Attributes:
        served: by request id, the provider's own name of the model that answered.
        refused: how many got which code.
    """

    stack: Stack
    key: str
    served: dict[str, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    is_over: bool = False

    async def ask(self, session: aiohttp.ClientSession, path: str, name: str) -> None:
        """One request after another, until it is over."""
        body = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
        while not self.is_over:
            async with session.post(
                f"{self.stack.url}{path}", json=body, headers={"Authorization": f"Bearer {self.key}"}
            ) as response:
                answer: dict[str, Any] = await response.json()
                if response.status == 200:
                    self.served[response.headers["x-request-id"]] = answer["model"]
                else:
                    self.refused[answer["error"]["code"]] += 1

    def is_hardly_noticed(self) -> None:
        """Only what was there between two readings of admission, which on a busy machine are far apart, may be refused."""
        assert self.refused["model_changing"] < len(self.served) / 20

    async def rows(self) -> Mapping[str, asyncpg.Record]:
        """The row of every request that was answered, once all are settled; nothing is left over."""
        await self.stack.settled()
        async with self.stack.database() as database:
            ids = [*self.served]
            assert await database.fetch("SELECT reason FROM billing.quarantine WHERE request_id = ANY($1)", ids) == []
            rows = await database.fetch("SELECT * FROM billing.requests WHERE request_id = ANY($1)", ids)
            held = await database.fetchval("SELECT count(*) FROM billing.holds WHERE state = 'held'")
            assert {check["wrong"] for check in await database.fetch("SELECT * FROM billing.check_books()")} == {0}
        assert held == 0
        return {row["request_id"]: row for row in rows}


async def traffic_while(
    stack: Stack, key: str, name: str, paths: tuple[str, ...], moves: Sequence[tuple[str, ...]]
) -> Traffic:
    """Ask for a name on these paths while each of these statements is committed in turn, again and again."""
    traffic = Traffic(stack, key)
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for number in range(ASKING):
            group.create_task(traffic.ask(session, paths[number % len(paths)], name), name=f"ask_{number}")
        try:
            async with stack.database() as database:
                for number in range(MOVES):
                    async with database.transaction():
                        for statement in moves[number % len(moves)]:
                            await database.execute(statement)
                    # Some are overtaken by the next ones; how quick that has to be depends on the machine.
                    await asyncio.sleep(PAUSE_S * (1 + number // len(moves)))
        finally:
            traffic.is_over = True
    return traffic


async def add_served(stack: Stack, model: str, provider: str, upstream_model: str, price: int, context: int) -> None:
    """A model at a provider, at a price, with a route."""
    async with stack.database() as database, database.transaction():
        await database.execute("INSERT INTO catalog.models VALUES ($1, 'test', $2, 1000)", model, context)
        await database.execute("INSERT INTO catalog.routes (name, match) VALUES ($1, $1)", model)
        await add_deployment(database, model, provider, upstream_model, price)
        await database.execute("INSERT INTO catalog.route_members VALUES ($1, $2, 0)", model, provider)


async def add_deployment(
    database: asyncpg.Connection, model: str, provider: str, upstream_model: str, price: int
) -> None:
    await database.execute("INSERT INTO catalog.deployments VALUES ($1, $2, $3)", model, provider, upstream_model)
    await database.execute(priced(model, provider, price))


def priced(model: str, provider: str, price: int) -> str:
    """The statement that sets a price, in nano-USD per token."""
    values = ", ".join(f"('{model}', '{provider}', '{meter}', {price}000000, {price}000000)" for meter in METERS)
    return f"""
        INSERT INTO catalog.prices (model, provider, meter, cost_nano_usd_per_mtok, price_nano_usd_per_mtok)
        VALUES {values}
    """


def at(row: asyncpg.Record, price: int) -> int:
    """What the request of a row costs at a price per token."""
    tokens: int = sum(json.loads(row["meters"]).values())
    return price * tokens


@pytest.fixture
def name() -> str:
    return f"moved-{secrets.token_hex(4)}"


async def test_an_alias_that_moves_under_traffic_is_charged_as_what_it_was_at_that_moment(
    stack: Stack, name: str
) -> None:
    key = await stack.make_key(name, balance="500.00")
    prices = {f"{name}-cheap": CHEAP, f"{name}-dear": DEAR, f"{name}-other": 7_000}
    for model, price in prices.items():
        kind = "anthropic" if model == f"{name}-other" else "openai"
        await add_provider(stack, model, f"{stack.simulator_url}/v1", f"sk-{model}", kind)
        await add_served(stack, model, model, f"up/{model}", price, 200_000 if price == CHEAP else 100_000)
    async with stack.database() as database:
        await database.execute(
            "INSERT INTO catalog.model_aliases (alias, model) VALUES ($1, $2)", name, f"{name}-cheap"
        )
    await wait_until_routed(stack, name)

    moves = [
        (f"UPDATE catalog.model_aliases SET model = '{model}' WHERE alias = '{name}'",)
        for model in (
            f"{name}-dear",
            f"{name}-cheap",
            f"{name}-other",
            f"{name}-dear",
            f"{name}-other",
            f"{name}-cheap",
        )
    ]
    traffic = await traffic_while(stack, key, name, ("/v1/chat/completions", "/v1/messages"), moves)

    rows = await traffic.rows()
    assert {model.removeprefix("up/") for model in traffic.served.values()} == {*prices}
    for request_id, upstream_model in traffic.served.items():
        model, row = upstream_model.removeprefix("up/"), rows[request_id]
        assert (row["outcome"], row["model"], row["provider"]) == ("settled", model, model)
        assert row["price_nano_usd"] == at(row, prices[model]) > 0
        assert row["price_nano_usd"] <= row["hold_nano_usd"]
        assert row["absorbed_nano_usd"] == 0
    # On the path that a model is not served on, a name that stands for it is none.
    assert {*traffic.refused} <= {"endpoint_not_supported", "not_found", "model_changing"}, traffic.refused
    traffic.is_hardly_noticed()


async def test_a_route_and_a_deployment_that_change_under_traffic_are_charged_as_what_served(
    stack: Stack, name: str
) -> None:
    key = await stack.make_key(name, balance="500.00")
    for provider in (f"{name}-1", f"{name}-2"):
        await add_provider(stack, provider, f"{stack.simulator_url}/v1", f"sk-{provider}")
    await add_served(stack, name, f"{name}-1", "up/cheap", CHEAP, 100_000)
    async with stack.database() as database:
        await add_deployment(database, name, f"{name}-2", "up/dear", DEAR)
    await wait_until_routed(stack, name)

    route = f"UPDATE catalog.route_members SET provider = '{name}-%s' WHERE route = '{name}'"
    deployment = f"UPDATE catalog.deployments SET upstream_model = 'up/%s' WHERE provider = '{name}-1'"
    moves: Sequence[tuple[str, ...]] = [
        (route % 2,),
        (route % 1,),
        # The same provider under another name of its own, and at another price: one change.
        (deployment % "middle", priced(name, f"{name}-1", 9_000)),
        (route % 2, deployment % "cheap", priced(name, f"{name}-1", CHEAP)),
        (route % 1,),
    ]
    traffic = await traffic_while(stack, key, name, ("/v1/chat/completions",), moves)

    prices = {"up/cheap": CHEAP, "up/middle": 9_000, "up/dear": DEAR}
    rows = await traffic.rows()
    assert {*traffic.served.values()} == {*prices}
    for request_id, upstream_model in traffic.served.items():
        row = rows[request_id]
        assert row["price_nano_usd"] == at(row, prices[upstream_model]) > 0
        assert row["absorbed_nano_usd"] == 0
    assert {*traffic.refused} <= {"model_changing"}, traffic.refused
    traffic.is_hardly_noticed()
