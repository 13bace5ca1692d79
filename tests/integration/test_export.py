"""From a real Postgres to a real ClickHouse: every finished request arrives, in spite of crashes and of late commits."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from clickhouse_connect.driver.client import Client
from pydantic import SecretStr

from billing_sink import clickhouse, postgres_ledger
from billing_sink.exporter import (
    ATTEMPTS,
    AUDIT,
    METERS_WITH_A_COLUMN,
    PROVIDER_HEALTH,
    REQUESTS,
    TABLES,
    Exporter,
    Table,
)
from billing_sink.postgres_exports import Position, PostgresExports
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postings import make_batch, parse_lines
from billing_sink.prices import PriceBook
from billing_sink.spool import RawBatch, RawLine, SpoolId
from gateway_core.contract import Service
from gateway_core.ids import PriceVersion
from gateway_core.postgres import connect_pool
from gateway_core.usage import Meter, ServiceTier
from local_stack.clickhouse import running_clickhouse
from tests.support.ledger import batch, open_org, posting
from tests.support.spool_lines import failed_attempt, render


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with running_clickhouse(tmp_path_factory.mktemp("clickhouse")) as url:
        yield url


@pytest.fixture
def client(clickhouse_url: str) -> Iterator[Client]:
    """On a ClickHouse that is migrated and holds nothing."""
    with clickhouse.connect(SecretStr(clickhouse_url)) as connected:
        clickhouse.migrate(connected)
        for table in TABLES:
            connected.command(f"TRUNCATE TABLE {table.name}")
        yield connected


@pytest.fixture
async def sink_pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    """Of the same database, with the rights that the sink has."""
    async with await connect_pool(SecretStr(database), service=Service.BILLING_SINK, size_max=4) as created:
        yield created


@pytest.fixture
async def ledger(pool: asyncpg.Pool) -> PostgresLedger:
    await open_org(pool, balance=1_000_000)
    return PostgresLedger(pool)


def ids(client: Client) -> list[str]:
    return [row[0] for row in client.query("SELECT request_id FROM requests FINAL ORDER BY request_id").result_rows]


class DiesBeforeItsCursorMoves(PostgresExports):
    async def move(self, to: Position) -> None:
        raise ConnectionResetError(f"before {to}")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_has_exactly_the_columns_that_are_exported(client: Client, table: Table) -> None:
    described: Sequence[Sequence[Any]] = client.query(f"DESCRIBE TABLE {table.name}").result_rows
    assert [row[0] for row in described] == list(table.columns)


async def test_failed_attempts_arrive_by_a_cursor_of_their_own_and_once_however_often_they_are_copied(
    pool: asyncpg.Pool, client: Client, ledger: PostgresLedger
) -> None:
    lines = [
        render(failed_attempt("r1", status=status, start_time=f"2026-01-01T00:00:0{second}.000001Z"))
        for second, status in enumerate((0, 500))
    ]
    parsed = parse_lines(RawBatch(0, 1, [RawLine(number, content) for number, content in enumerate(lines)]))
    made = make_batch(SpoolId("spool"), parsed, PriceBook.of(PriceVersion(0), ()))
    assert (await ledger.post(made)).quarantined == []
    with pytest.raises(ConnectionResetError):
        await Exporter(DiesBeforeItsCursorMoves(pool, "attempts"), client, ATTEMPTS, batch_rows=10).export_batch()
    exporter = Exporter(PostgresExports(pool, "attempts"), client, ATTEMPTS, batch_rows=10)
    assert [await exporter.export_batch() for _ in range(2)] == [2, 0]
    rows = list(client.query("SELECT * FROM attempts FINAL ORDER BY started_at").named_results())
    assert [(row["request_id"], row["provider"], row["upstream_model"], row["status"]) for row in rows] == [
        ("r1", "openai", "gpt-4o-mini-2024", 0),
        ("r1", "openai", "gpt-4o-mini-2024", 500),
    ]
    assert rows[0]["started_at"].microsecond == 1
    assert await Exporter(PostgresExports(pool), client, REQUESTS, batch_rows=10).export_batch() == 0


async def test_every_meter_and_the_money_arrive_in_their_own_columns(
    pool: asyncpg.Pool, client: Client, ledger: PostgresLedger
) -> None:
    meters = {meter: number for number, meter in enumerate(Meter, start=1)}
    finished = posting("r1", price=300)
    rated = replace(finished.rated, meters=meters, service_tier=ServiceTier("flex"))
    await ledger.post(batch("spool", replace(finished, rated=rated)))
    assert await Exporter(PostgresExports(pool), client, REQUESTS, batch_rows=10).export_batch() == 1
    [row] = client.query("SELECT * FROM requests FINAL").named_results()
    assert row["meters"] == meters
    assert {meter: row[f"{meter}_tokens"] for meter in METERS_WITH_A_COLUMN} == {
        meter: meters[meter] for meter in METERS_WITH_A_COLUMN
    }
    assert row["service_tier"] == "flex"
    assert (row["request_id"], row["outcome"], row["org_id"]) == ("r1", "settled", "org_test")
    assert (row["price_nano_usd"], row["error_code"], row["first_byte_ms"]) == (300, "", None)


async def test_rows_arrive_once_batch_after_batch(pool: asyncpg.Pool, client: Client, ledger: PostgresLedger) -> None:
    await ledger.post(batch("spool", *(posting(f"r{number}", price=1) for number in range(5))))
    exporter = Exporter(PostgresExports(pool), client, REQUESTS, batch_rows=2)
    assert [await exporter.export_batch() for _ in range(4)] == [2, 2, 1, 0]
    assert client.query("SELECT count() FROM requests").result_rows == [(5,)]
    assert ids(client) == [f"r{number}" for number in range(5)]


async def test_a_batch_repeated_after_a_crash_counts_once(
    pool: asyncpg.Pool, client: Client, ledger: PostgresLedger
) -> None:
    await ledger.post(batch("spool", posting("r1", price=1), posting("r2", price=1)))
    with pytest.raises(ConnectionResetError):
        await Exporter(DiesBeforeItsCursorMoves(pool), client, REQUESTS, batch_rows=10).export_batch()
    assert ids(client) == ["r1", "r2"]
    exporter = Exporter(PostgresExports(pool), client, REQUESTS, batch_rows=10)
    assert await exporter.export_batch() == 2
    assert await exporter.export_batch() == 0
    assert ids(client) == ["r1", "r2"]


async def test_a_transaction_that_commits_late_with_an_older_number_is_not_skipped(
    pool: asyncpg.Pool, client: Client, ledger: PostgresLedger
) -> None:
    exporter = Exporter(PostgresExports(pool), client, REQUESTS, batch_rows=10)
    await ledger.post(batch("before", posting("before", price=1)))
    async with pool.acquire() as slow, slow.transaction():
        # As PostgresLedger.post does: its number is taken with the offset, long before its rows are there.
        await slow.fetchval("SELECT billing.move_offset('slow', 0, 1)")
        await ledger.post(batch("fast", posting("fast", price=1)))
        assert await exporter.export_batch() == 1
        assert ids(client) == ["before"]
        settled = json.dumps([postgres_ledger._row(posting("slow", price=1))])
        await slow.fetch("SELECT billing.settle($1::jsonb)", settled)
        assert await exporter.export_batch() == 0
    assert await exporter.export_batch() == 2
    assert ids(client) == ["before", "fast", "slow"]
    rows = await pool.fetch("SELECT request_id, written_by FROM billing.requests ORDER BY written_by, seq")
    assert [row["request_id"] for row in rows] == ["before", "slow", "fast"]


async def test_states_of_providers_and_who_changed_what_arrive_by_cursors_of_their_own(
    pool: asyncpg.Pool, client: Client, sink_pool: asyncpg.Pool
) -> None:
    await pool.execute(
        """
        INSERT INTO catalog.providers (name, kind, base_url) VALUES ('openai', 'openai', 'https://api.openai.com');
        INSERT INTO catalog.provider_states (provider, condition, since, until, why)
            VALUES ('openai', 'cooling', '2026-01-01T00:00:00Z', '2026-01-01T00:01:00Z', 'it failed');
        INSERT INTO accounts.audit_log (org_id, actor_kind, actor_id, action, target_id, after, request_id)
            VALUES ('org_a', 'user', 'usr_a', 'key.create', 'key_a', '{"name": "not for analysts"}', 'req_a');
        """
    )
    for table in (PROVIDER_HEALTH, AUDIT):
        with pytest.raises(ConnectionResetError):
            await Exporter(DiesBeforeItsCursorMoves(sink_pool, table.name), client, table, batch_rows=10).export_batch()
        exporter = Exporter(PostgresExports(sink_pool, table.name), client, table, batch_rows=10)
        assert [await exporter.export_batch() for _ in range(2)] == [1, 0]
    [state] = client.query("SELECT * FROM provider_health FINAL").named_results()
    assert (state["provider"], state["condition"], state["why"], state["actor_id"]) == (
        "openai",
        "cooling",
        "it failed",
        "",
    )
    [change] = client.query("SELECT * FROM audit FINAL").named_results()
    assert (change["org_id"], change["actor_id"], change["action"], change["target_id"]) == (
        *("org_a", "usr_a"),
        *("key.create", "key_a"),
    )
