"""Seals over a real ledger, and the nightly inspection with a real ClickHouse."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from billing_sink import clickhouse
from billing_sink.exporter import REQUESTS, Exporter
from billing_sink.inspection import SAME, Inspection, NotComparedError
from billing_sink.postgres_books import PostgresBooks
from billing_sink.postgres_exports import PostgresExports
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postings import SpoolBatch
from billing_sink.spool import SpoolId
from local_stack.clickhouse import running_clickhouse
from tests.support.ledger import ORG, open_org, posting
from tests.support.logs import QUIET


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecretStr]:
    async with running_clickhouse(tmp_path_factory.mktemp("clickhouse")) as url:
        yield SecretStr(url)


@pytest.fixture
async def books(pool: asyncpg.Pool) -> PostgresBooks:
    await open_org(pool, balance=1000)
    lines = tuple(posting(f"r{number}", price=number) for number in range(1, 6))
    await PostgresLedger(pool).post(SpoolBatch(SpoolId("spool"), 0, 100, lines, ()))
    return PostgresBooks(pool)


async def wrong(pool: asyncpg.Pool) -> set[str]:
    return {check.name for check in await PostgresBooks(pool).check() if check.wrong}


async def test_what_is_posted_is_sealed_once_and_each_seal_stands_on_the_one_before(
    pool: asyncpg.Pool, books: PostgresBooks
) -> None:
    assert await books.seal() == 1
    assert await books.seal() == 0
    await pool.execute("SELECT billing.credit($1, 5, 'more')", ORG)
    assert await books.seal() == 1
    first, second = await pool.fetch("SELECT * FROM billing.seals ORDER BY seal_id")
    assert first["digest"] != second["digest"]
    assert second["last_transaction_id"] == await pool.fetchval("SELECT max(transaction_id) FROM billing.transactions")
    assert await wrong(pool) == set()


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE billing.transactions SET reason = 'nicer' WHERE kind = 'credit'",
        "UPDATE billing.transactions SET created_at = created_at - interval '1 month' WHERE request_id = 'r3'",
        "UPDATE billing.requests SET input_hash = sha256('other') WHERE request_id = 'r3'",
        # An amount moved from one request to another, everywhere and in balance: no sum shows it.
        """WITH moved AS (UPDATE billing.requests SET price_nano_usd = CASE request_id WHEN 'r1' THEN 2 ELSE 1 END
               WHERE request_id IN ('r1', 'r2') RETURNING request_id)
           UPDATE billing.entries e SET amount_nano_usd = sign(e.amount_nano_usd) * CASE t.request_id WHEN 'r1' THEN 2 ELSE 1 END
           FROM billing.transactions t JOIN moved USING (request_id) WHERE t.transaction_id = e.transaction_id""",
        "DELETE FROM billing.seals WHERE seal_id = 1",
    ],
)
async def test_a_change_that_no_sum_shows_breaks_a_seal(
    pool: asyncpg.Pool, books: PostgresBooks, tampering: str
) -> None:
    await books.seal()
    await pool.execute("SELECT billing.credit($1, 5, 'more')", ORG)
    await books.seal()
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")  # past the triggers
        await connection.execute(tampering)
    assert await wrong(pool) == {"seals_are_whole"}


async def test_a_transaction_that_commits_late_is_sealed_when_it_does(pool: asyncpg.Pool, books: PostgresBooks) -> None:
    async with pool.acquire() as slow:
        transaction = slow.transaction()
        await transaction.start()
        number = await slow.fetchval("SELECT billing.credit($1, 5, 'slow')", ORG)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await books.seal()
        sealing = asyncio.create_task(books.seal())
        await asyncio.sleep(0.2)
        await transaction.commit()
    assert await sealing == 1
    assert await pool.fetchval("SELECT last_transaction_id FROM billing.seals") == number


async def test_posting_goes_on_while_everything_is_sealed_again_and_again(
    pool: asyncpg.Pool, books: PostgresBooks
) -> None:
    done = asyncio.Event()

    async def seal() -> None:
        while not done.is_set():
            await books.seal()

    sealing = asyncio.create_task(seal())
    await asyncio.gather(*(pool.execute("SELECT billing.credit($1, 1, 'one')", ORG) for _ in range(40)))
    done.set()
    await sealing
    await books.seal()
    assert await pool.fetchval("SELECT count(*) FROM billing.seals") > 1
    assert await wrong(pool) == set()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


class Night:
    """An inspection whose clock a test moves."""

    def __init__(self, pool: asyncpg.Pool, url: SecretStr, registry: CollectorRegistry) -> None:
        self.now = datetime.now(UTC) + timedelta(days=1)
        self.registry = registry
        self.inspection = Inspection(
            PostgresBooks(pool),
            PostgresExports(pool),
            url,
            days=None,
            at_hour=3,
            now=lambda: self.now,
            registry=registry,
            log=QUIET,
        )

    def shown(self, check: str) -> float | None:
        return self.registry.get_sample_value("tollgate_billing_sink_books_wrong", {"check": check})


async def test_the_books_are_inspected_once_a_day_and_clickhouse_must_equal_postgres(
    pool: asyncpg.Pool, books: PostgresBooks, clickhouse_url: SecretStr, registry: CollectorRegistry
) -> None:
    with clickhouse.connect(clickhouse_url) as client:
        clickhouse.migrate(client)
        night = Night(pool, clickhouse_url, registry)
        assert await night.inspection.look()
        assert night.shown(SAME) == 1  # nothing has been copied yet

        assert not await night.inspection.look()
        await Exporter(PostgresExports(pool), client, REQUESTS, batch_rows=100).export_batch()
        night.now += timedelta(days=1)
        assert await night.inspection.look()
        assert night.shown(SAME) == 0
        assert night.shown("seals_are_whole") == 0

        client.command("ALTER TABLE requests DELETE WHERE request_id = 'r2'", settings={"mutations_sync": 1})
        night.now += timedelta(days=1)
        assert await night.inspection.look()
        last = await books.last_inspection()
        assert last is not None
        assert [(check.wrong, check.example) for check in last.checks if check.name == SAME] == [
            (1, "2026-01-01T00:00Z")
        ]


async def test_a_clickhouse_that_is_away_leaves_the_inspection_due(
    pool: asyncpg.Pool, books: PostgresBooks, registry: CollectorRegistry
) -> None:
    night = Night(pool, SecretStr("http://127.0.0.1:9/default"), registry)
    with pytest.raises(NotComparedError):
        await night.inspection.look()
    assert await books.last_inspection() is None
