"""Sums by provider on a real Postgres: each finished request once, whoever commits when, and read before it is added up."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from billing_sink import postgres_ledger
from billing_sink.postgres_books import PostgresBooks
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postings import Posting, SpoolBatch
from billing_sink.rating import Outcome
from billing_sink.spool import SpoolId
from gateway_core.ids import ModelName, ProviderName
from gateway_core.mode import Mode
from gateway_core.offering import Offering
from gateway_core.usage import Meter
from tests.support.ledger import hold, odd_line, open_org, posting

SINCE, UNTIL = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
async def ledger(pool: asyncpg.Pool) -> PostgresLedger:
    await open_org(pool, balance=1_000_000)
    return PostgresLedger(pool)


def batch(name: str, *postings: Posting) -> SpoolBatch:
    return SpoolBatch(SpoolId(name), 0, 1, postings, ())


def asked_as(finished: Posting, upstream_model: str, *, attempts: int = 1) -> Posting:
    """The same, of which the route says how the provider was asked."""
    line = finished.rated.line
    assert line.request is not None
    offering = Offering(ModelName("m"), {ProviderName("p"): upstream_model})
    line = replace(line, request=replace(line.request, offering=offering), attempts=attempts)
    return replace(finished, rated=replace(finished.rated, line=line))


async def used(pool: asyncpg.Pool, provider: str = "p") -> Mapping[tuple[str, str, str], int]:
    rows = await pool.fetch("SELECT * FROM billing.used_at_provider($1, $2, $3)", provider, SINCE, UNTIL)
    assert {row["hour"] for row in rows} <= {SINCE}
    return {(row["upstream_model"], row["outcome"], row["measure"]): row["amount"] for row in rows}


async def test_the_same_is_read_before_and_after_it_is_added_up(pool: asyncpg.Pool, ledger: PostgresLedger) -> None:
    finished = [asked_as(posting(f"r{number}", price=10), "big-2026-01-01", attempts=2) for number in range(3)]
    estimated = posting("r3", price=5, outcome=Outcome.ESTIMATED)
    await ledger.post(batch("one", *finished, estimated))
    expected = {
        ("big-2026-01-01", "settled", "requests"): 3,
        ("big-2026-01-01", "settled", "cost_nano_usd"): 30,
        ("big-2026-01-01", "settled", "failed_attempts"): 3,
        ("big-2026-01-01", "settled", "input"): 3,
        ("m", "estimated", "requests"): 1,
        ("m", "estimated", "cost_nano_usd"): 5,
        ("m", "estimated", "input"): 1,
    }
    assert await used(pool) == expected
    assert await pool.fetchval("SELECT billing.add_up_for_providers(3)") == 3
    assert await used(pool) == expected
    assert await PostgresBooks(pool).add_up_for_providers() == 1
    assert await used(pool) == expected
    assert await PostgresBooks(pool).add_up_for_providers() == 0
    assert await pool.fetchval("SELECT count(*) FROM billing.provider_sums") == len(expected)
    assert await used(pool, "other") == {}


async def test_a_transaction_that_commits_late_is_added_up_once(pool: asyncpg.Pool, ledger: PostgresLedger) -> None:
    books = PostgresBooks(pool)
    async with pool.acquire() as slow, slow.transaction():
        await slow.fetchval("SELECT billing.move_offset('slow', 0, 1)")
        await ledger.post(batch("fast", posting("fast", price=1)))
        assert await books.add_up_for_providers() == 0
        assert (await used(pool))["m", "settled", "requests"] == 1
        await slow.fetch(
            "SELECT billing.settle($1::jsonb)", json.dumps([postgres_ledger._row(posting("slow", price=1))])
        )
    assert await books.add_up_for_providers() == 2
    assert (await used(pool))["m", "settled", "requests"] == 2


async def test_play_money_and_what_reached_no_provider_are_not_in_it(
    pool: asyncpg.Pool, ledger: PostgresLedger
) -> None:
    refused = posting("r1", price=0, outcome=Outcome.REFUSED)
    await ledger.post(
        batch(
            "one", posting("r0", price=0, mode=Mode.TEST), replace(refused, rated=replace(refused.rated, provider=None))
        )
    )
    assert await used(pool) == {}
    assert await PostgresBooks(pool).add_up_for_providers() == 2
    assert await used(pool) == {}


async def test_lines_in_quarantine_are_told_apart(pool: asyncpg.Pool, ledger: PostgresLedger) -> None:
    odd = odd_line("r1")
    assert odd.line is not None
    line = replace(odd.line, cluster="provider/p")
    await ledger.post(SpoolBatch(SpoolId("one"), 0, 1, (), (replace(odd, line=line),)))
    assert await used(pool) == {("m", "quarantined", "requests"): 1}


async def test_what_nobody_heard_of_again_is_counted_beside(pool: asyncpg.Pool, ledger: PostgresLedger) -> None:
    await hold(pool, "r1", 10, expires_at=SINCE)
    await ledger.expire_holds(UNTIL)
    elsewhere = asked_as(posting("r2", price=1, outcome=Outcome.SETTLED), "x", attempts=3)
    elsewhere = replace(elsewhere, rated=replace(elsewhere.rated, provider=ProviderName("q"), meters={Meter.INPUT: 1}))
    await ledger.post(batch("one", elsewhere))
    [row] = await pool.fetch(
        "SELECT * FROM billing.unaccounted_for('p', $1, now() + interval '1 day')", datetime(2025, 1, 1, tzinfo=UTC)
    )
    assert (row["failed_attempts_elsewhere"], row["expired_holds"], row["unknown_slices_nano_usd"]) == (2, 1, 0)
    [own] = await pool.fetch(
        "SELECT * FROM billing.unaccounted_for('q', $1, now() + interval '1 day')", datetime(2025, 1, 1, tzinfo=UTC)
    )
    assert own["failed_attempts_elsewhere"] == 0
