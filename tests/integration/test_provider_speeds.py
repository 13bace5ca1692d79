"""How fast providers answer, taken from finished requests in a real Postgres."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from billing_sink.postgres_ledger import _row
from control_plane.catalog.postgres_first_bytes import first_bytes, take_in
from gateway_core.contract import Channel
from tests.support.ledger import open_org, posting

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def heard(pool: asyncpg.Pool) -> AsyncIterator[list[str]]:
    """Model `m` at `a` and `b`, by speed; and what is told of changes of the catalogue."""
    await open_org(pool, balance=1_000_000)
    await pool.execute(
        """
        INSERT INTO catalog.providers (name, kind, base_url) VALUES ('a', 'openai', 'http://a'), ('b', 'openai', 'http://b');
        INSERT INTO catalog.models (name, owned_by, context_tokens, max_output_tokens) VALUES ('m', 'test', 1000, 100);
        INSERT INTO catalog.deployments VALUES ('m', 'a', 'm'), ('m', 'b', 'm');
        INSERT INTO catalog.prices SELECT 'm', provider, 0, 'input', 1, 1 FROM unnest(ARRAY['a', 'b']) provider;
        INSERT INTO catalog.routes (name, match, strategy) VALUES ('m', 'm', 'lowest_latency');
        INSERT INTO catalog.route_members VALUES ('m', 'a'), ('m', 'b');
        """
    )
    told: list[str] = []
    async with pool.acquire() as connection:
        listening: asyncpg.Connection = connection  # type: ignore[assignment]  # a proxy of one

        def hear(*heard: object) -> None:
            told.append(str(heard[-1]))

        await listening.add_listener(Channel.CATALOG, hear)
        yield told
        await listening.remove_listener(Channel.CATALOG, hear)


class Requests:
    """Requests that are over, each with a name of its own."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._made = 0

    async def over(self, provider: str, first_byte_ms: int | None, *, times: int = 1, **fields: object) -> None:
        rows = []
        for _ in range(times):
            self._made += 1
            row = _row(posting(f"r{self._made}", price=0))
            told = {"provider": provider, "model": "m", "first_byte_ms": first_byte_ms, "attempts": 1, "status": 200}
            rows.append({**row, **told, **fields})
        assert await self._pool.fetch("SELECT billing.settle($1::jsonb)", json.dumps(rows)) == []


async def taken_in(pool: asyncpg.Pool) -> bool:
    async with pool.acquire() as db, db.transaction():
        return await take_in(db, NOW)


async def figures(pool: asyncpg.Pool) -> dict[str, int]:
    return {provider: found for (_, provider), found in (await first_bytes(pool)).items()}


async def test_figures_follow_what_providers_do_but_not_every_step_of_it(pool: asyncpg.Pool, heard: list[str]) -> None:
    requests = Requests(pool)
    assert not await taken_in(pool)
    await requests.over("a", 100, times=5)
    await requests.over("b", 110)
    assert await taken_in(pool)
    assert await figures(pool) == {"a": 100, "b": 110}
    # A step back and forth about the other one: the order stays.
    for first_byte_ms in (120, 100, 120, 100):
        await requests.over("a", first_byte_ms, times=20)
        assert not await taken_in(pool)
    assert await figures(pool) == {"a": 100, "b": 110}
    await requests.over("a", 400, times=20)
    assert await taken_in(pool)
    found = await figures(pool)
    assert 300 < found["a"] <= 400
    assert found["b"] == 110
    # And back, which takes as many.
    await requests.over("a", 50, times=40)
    assert await taken_in(pool)
    assert (await figures(pool))["a"] < 60
    assert not await taken_in(pool)
    assert len(heard) == 3


async def test_one_answer_that_takes_a_minute_changes_nothing(pool: asyncpg.Pool, heard: list[str]) -> None:
    requests = Requests(pool)
    await requests.over("a", 100, times=20)
    assert await taken_in(pool)
    await requests.over("a", 100, times=20)
    await requests.over("a", 60_000)
    await requests.over("a", 100, times=20)
    assert not await taken_in(pool)
    assert len(heard) == 1


async def test_only_answers_of_the_first_provider_asked_count_and_only_where_a_route_goes_by_them(
    pool: asyncpg.Pool, heard: list[str]
) -> None:
    requests = Requests(pool)
    await requests.over("a", 10, status=429)
    await requests.over("a", 10, attempts=2)
    await requests.over("a", None)
    await requests.over("c", 10)
    await requests.over("a", 10, model="another")
    assert not await taken_in(pool)
    assert await figures(pool) == {}
    await requests.over("a", 70)
    assert await taken_in(pool)
    assert await figures(pool) == {"a": 70}
    # Of a provider that has left nothing is kept.
    await pool.execute("DELETE FROM catalog.route_members WHERE provider = 'a'")
    assert await taken_in(pool)
    assert await figures(pool) == {}
    assert len(heard) >= 2


async def test_of_two_that_look_at_once_one_takes_in_and_nothing_counts_twice(
    pool: asyncpg.Pool, heard: list[str]
) -> None:
    requests = Requests(pool)
    await requests.over("a", 100, times=3)
    async with pool.acquire() as db, db.transaction():
        assert await take_in(db, NOW)
        assert not await taken_in(pool)
    rolling = await pool.fetchval("SELECT rolling_ms FROM catalog.first_bytes WHERE provider = 'a'")
    await taken_in(pool)
    assert await pool.fetchval("SELECT rolling_ms FROM catalog.first_bytes WHERE provider = 'a'") == rolling
    assert len(heard) == 1
