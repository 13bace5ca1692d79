"""Requests added up in a real ClickHouse: whatever arrives, and however often it is tried, the sums are those of the ledger."""

import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio
from clickhouse_connect.driver.client import Client
from pydantic import SecretStr

from billing_sink import clickhouse
from billing_sink.exporter import ATTEMPTS, REQUESTS, Exporter
from billing_sink.postgres_exports import Position, PostgresExports
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postgres_roll_ups import ROLL_UPS as CURSOR
from billing_sink.postgres_roll_ups import PostgresRollUps
from billing_sink.postings import Posting
from billing_sink.roll_ups import ROLL_UPS, Adding
from gateway_core.histograms import percentiles
from local_stack.clickhouse import running_clickhouse
from tests.support.ledger import batch, open_org, posting

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TABLES = [each.table for each in ROLL_UPS]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with running_clickhouse(tmp_path_factory.mktemp("clickhouse")) as url:
        yield url


@pytest.fixture
def client(clickhouse_url: str) -> Iterator[Client]:
    """On a ClickHouse that is migrated and holds nothing."""
    with clickhouse.connect(SecretStr(clickhouse_url)) as connected:
        clickhouse.migrate(connected)
        for table in ("requests", "attempts", *TABLES):
            connected.command(f"TRUNCATE TABLE {table}")
        yield connected


@pytest.fixture
async def ledger(pool: asyncpg.Pool) -> PostgresLedger:
    await open_org(pool, balance=1_000_000_000)
    return PostgresLedger(pool)


class DiesBeforeItsCursorMoves(PostgresExports):
    async def move(self, to: Position) -> None:
        raise ConnectionResetError(f"before {to}")


def adding(
    pool: asyncpg.Pool, client: Client, cursor: type[PostgresExports] = PostgresExports, now: datetime = NOON
) -> Adding:
    return Adding(PostgresExports(pool), cursor(pool, CURSOR), PostgresRollUps(pool), client, lambda: now)


def began(name: str, at: datetime, *, price: int, duration_ms: int = 10) -> Posting:
    """A finished request of a moment."""
    made = posting(name, price=price)
    line = replace(made.rated.line, start_time=at, duration_ms=duration_ms)
    return replace(made, rated=replace(made.rated, line=line))


async def copy(pool: asyncpg.Pool, client: Client) -> None:
    exporter = Exporter(PostgresExports(pool), client, REQUESTS, batch_rows=7)
    while await exporter.export_batch():
        pass


async def add_up(pool: asyncpg.Pool, client: Client) -> None:
    while await adding(pool, client).add_up(rows_max=11):
        pass


def sums(client: Client, table: str) -> list[tuple[int, int]]:
    return [
        (requests, price)
        for requests, price in client.query(f"SELECT sum(requests), sum(price_nano_usd) FROM {table} FINAL").result_rows
    ]


async def in_ledger(pool: asyncpg.Pool) -> tuple[int, int]:
    row = await pool.fetchrow("SELECT count(*), sum(price_nano_usd)::bigint FROM billing.requests")
    assert row is not None
    return row[0], row[1]


async def test_requests_are_added_up_by_the_time_in_which_they_began_whenever_they_arrive(
    pool: asyncpg.Pool, client: Client, ledger: PostgresLedger
) -> None:
    await ledger.post(batch("one", began("a", NOON, price=1), began("b", NOON + timedelta(seconds=59), price=2)))
    await copy(pool, client)
    await add_up(pool, client)
    # Into a minute, an hour and a day that have been added up.
    await ledger.post(
        batch(
            "two", began("c", NOON + timedelta(seconds=30), price=4), began("d", NOON + timedelta(minutes=1), price=8)
        )
    )
    await copy(pool, client)
    await add_up(pool, client)
    found = {
        table: client.query(
            f"SELECT starts_at, sum(requests), sum(price_nano_usd) FROM {table} FINAL GROUP BY starts_at ORDER BY starts_at"
        ).result_rows
        for table in TABLES
    }
    noon, day = NOON.replace(tzinfo=None), NOON.replace(tzinfo=None, hour=0)
    assert found == {
        "requests_by_minute": [(noon, 3, 7), (noon + timedelta(minutes=1), 1, 8)],
        "requests_by_hour": [(noon, 4, 15)],
        "requests_by_day": [(day, 4, 15)],
    }


async def test_a_request_that_comes_when_the_minutes_of_its_time_are_gone_is_added_to_the_hour_and_the_day(
    pool: asyncpg.Pool, client: Client, ledger: PostgresLedger
) -> None:
    await ledger.post(batch("one", began("a", NOON, price=1), began("b", NOON + timedelta(minutes=5), price=2)))
    await copy(pool, client)
    await add_up(pool, client)
    client.command("TRUNCATE TABLE requests_by_minute")
    await ledger.post(batch("two", began("c", NOON + timedelta(minutes=9), price=4)))
    await copy(pool, client)
    assert not await adding(pool, client, now=NOON + timedelta(days=41)).add_up()
    for table in ("requests_by_hour", "requests_by_day"):
        assert sums(client, table) == [await in_ledger(pool)] == [(3, 7)]


async def test_what_is_added_up_again_after_a_crash_counts_once(
    pool: asyncpg.Pool, client: Client, ledger: PostgresLedger
) -> None:
    await ledger.post(batch("one", *(began(f"r{n}", NOON + timedelta(seconds=7 * n), price=n) for n in range(30))))
    await copy(pool, client)
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            await adding(pool, client, DiesBeforeItsCursorMoves).add_up(rows_max=11)
    await add_up(pool, client)
    assert not await adding(pool, client).add_up()
    for table in TABLES:
        assert sums(client, table) == [await in_ledger(pool)]


async def test_a_refill_gives_the_same_numbers(pool: asyncpg.Pool, client: Client, ledger: PostgresLedger) -> None:
    dice = random.Random(1)
    made = [
        began(
            f"r{n}",
            NOON + timedelta(minutes=dice.randrange(3000)),
            price=dice.randrange(1000),
            duration_ms=dice.randrange(9000),
        )
        for n in range(60)
    ]
    for n in range(0, 60, 20):
        await ledger.post(batch(f"spool-{n}", *made[n : n + 20]))
        await copy(pool, client)
        await add_up(pool, client)

    def everything() -> dict[str, list[object]]:
        queries = {table: f"SELECT * EXCEPT (version) FROM {table} FINAL ORDER BY ALL" for table in TABLES}
        queries["requests"] = "SELECT * FROM requests FINAL ORDER BY request_id"
        return {table: list(client.query(query).result_rows) for table, query in queries.items()}

    before = everything()
    client.command("ALTER TABLE requests DELETE WHERE price_nano_usd > 500 SETTINGS mutations_sync = 2")
    clickhouse.keep(client, "requests", 40)
    assert everything() != before
    await pool.execute("SELECT billing.refill_analytics()")
    await Exporter(PostgresExports(pool, "attempts"), client, ATTEMPTS, batch_rows=7).export_batch()
    await copy(pool, client)
    await add_up(pool, client)
    assert everything() == before
    assert (
        await pool.fetchval(
            "SELECT count(*) FROM billing.export_cursors WHERE begins_anew AND name IN ('requests', 'attempts', 'roll_ups')"
        )
        == 0
    )


async def test_what_is_kept_for_some_days_is_said_to_clickhouse_and_taken_back(client: Client) -> None:
    def ttl() -> bool:
        [[created]] = client.query(
            "SELECT create_table_query FROM system.tables WHERE name = 'requests_by_minute'"
        ).result_rows
        return "TTL toDateTime(starts_at) + toIntervalDay(40)" in created

    clickhouse.keep(client, "requests_by_minute", 40)
    clickhouse.keep(client, "requests_by_minute", 40)
    assert ttl()
    clickhouse.keep(client, "requests_by_minute", None)
    assert not ttl()


async def test_percentiles_of_sums_are_within_a_percent(
    pool: asyncpg.Pool, client: Client, ledger: PostgresLedger
) -> None:
    durations = list(range(1, 2001, 20))
    await ledger.post(
        batch("one", *(began(f"r{ms}", NOON + timedelta(minutes=ms), price=1, duration_ms=ms) for ms in durations))
    )
    await copy(pool, client)
    await add_up(pool, client)
    for table in TABLES:
        [[counts]] = client.query(f"SELECT sumMap(duration_ms) FROM {table} FINAL").result_rows
        assert percentiles(counts, (0.5, 0.99)) == pytest.approx([durations[49], durations[98]], rel=0.01)
