"""The check of the books on a real Postgres: quiet while they are right, and loud about each thing that can be wrong."""

from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from billing_sink.inspection import SAME
from billing_sink.postgres_books import Check as InspectionCheck
from billing_sink.postgres_books import Mended, PostgresBooks, mend_held
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postings import SpoolBatch
from billing_sink.spool import SpoolId
from tests.support.api import running_api
from tests.support.command_line import CommandLine
from tests.support.ledger import ORG, decide, hold, odd_line, open_org, open_slice, posting


async def found(pool: asyncpg.Pool) -> dict[str, int]:
    rows = await pool.fetch("SELECT name, wrong FROM billing.check_books()")
    return {row["name"]: row["wrong"] for row in rows if row["wrong"]}


@pytest.fixture
async def busy(pool: asyncpg.Pool) -> asyncpg.Pool:
    """Books with a bit of everything."""
    await open_org(pool, balance=1000)
    await open_slice(pool, "s1", 100_000)
    for request_id in ("r1", "r2", "r3"):
        await hold(pool, request_id, 100)
    lines = (posting("r1", price=60), posting("r2", price=0), posting("r4", price=50, slice_id="s1", share=50))
    await hold(pool, "r5", 100)
    await PostgresLedger(pool).post(SpoolBatch(SpoolId("spool"), 0, 100, lines, (odd_line("r5"),)))
    await decide(pool, "r5", "charge", 40)
    return pool


async def test_books_that_are_right_give_no_alarm(busy: asyncpg.Pool) -> None:
    assert await found(busy) == {}
    async with running_api(busy) as api:
        answer = await api.as_(await api.operator_token()).get("/billing/books")
    assert answer["ok"] is False  # nobody has compared ClickHouse
    assert {check["wrong"] for check in answer["checks"]} == {0}
    assert len(answer["checks"]) == 12
    assert (answer["seal"], answer["last_inspection"]) == (None, None)


@pytest.mark.parametrize(
    ("tampering", "alarm"),
    [
        ("UPDATE billing.accounts SET posted_nano_usd = posted_nano_usd + 1 WHERE kind = 'revenue'", "accounts_equal_their_entries"),
        ("UPDATE billing.accounts SET held_nano_usd = held_nano_usd + 1 WHERE org_id = $1", "held_is_in_open_holds_and_slices"),
        ("UPDATE billing.slices SET returned_nano_usd = 1", "held_is_in_open_holds_and_slices"),
        ("UPDATE billing.entries SET amount_nano_usd = amount_nano_usd + 1 WHERE amount_nano_usd = 60", "transactions_sum_to_zero"),
        ("UPDATE billing.entries SET mode = 'test' WHERE amount_nano_usd IN (60, -60)", "transactions_sum_to_zero"),
        ("UPDATE billing.entries SET mode = 'test' WHERE amount_nano_usd IN (60, -60)", "accounts_equal_their_entries"),
        ("DELETE FROM billing.transactions WHERE request_id = 'r1'", "transactions_sum_to_zero"),
        ("DELETE FROM billing.accounts WHERE kind = 'revenue'", "accounts_equal_their_entries"),
        ("DELETE FROM billing.requests WHERE request_id = 'r1'", "usage_transactions_have_a_request"),
        ("UPDATE billing.requests SET price_nano_usd = 61 WHERE request_id = 'r1'", "charged_requests_have_one_transaction_of_their_price"),
        ("UPDATE billing.holds SET state = 'settled', finished_at = now() WHERE request_id = 'r3'", "ended_holds_have_an_outcome"),
        ("UPDATE billing.spending SET amount_nano_usd = 101 WHERE spender_kind = 'key'", "spending_is_what_requests_have_paid"),
        ("DELETE FROM billing.spending WHERE spender_kind = 'project'", "spending_is_what_requests_have_paid"),
        ("UPDATE billing.spending SET quarters = '{}' WHERE spender_kind = 'project'", "spending_is_what_requests_have_paid"),
        ("UPDATE billing.spending SET quarters = array_prepend(NULL, quarters)", "spending_is_what_requests_have_paid"),
        ("UPDATE billing.spending SET day = day - 1", "spending_is_what_requests_have_paid"),
        ("UPDATE billing.quarantine_decisions SET charged_nano_usd = 41", "decided_charges_are_in_the_ledger"),
        ("UPDATE billing.holds SET state = 'held', finished_at = NULL WHERE request_id = 'r1'", "recorded_requests_hold_nothing"),
    ],
)  # fmt: skip
async def test_whatever_somebody_does_to_the_books_behind_their_back_is_found(
    busy: asyncpg.Pool, tampering: str, alarm: str
) -> None:
    async with busy.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")  # past the triggers
        await connection.execute(tampering.replace("$1", f"'{ORG}'"))
    assert alarm in await found(busy)


async def test_the_newest_seal_and_the_last_inspection_are_shown(busy: asyncpg.Pool) -> None:
    books = PostgresBooks(busy)
    await books.seal()
    await books.keep(datetime(2026, 1, 2, tzinfo=UTC), [InspectionCheck(SAME, 2, "an hour")])
    async with running_api(busy) as api:
        answer = await api.as_(await api.operator_token()).get("/billing/books")
    assert (answer["seal"]["seal_id"], len(answer["seal"]["digest"])) == (1, 64)
    assert answer["ok"] is False  # though nothing is wrong in Postgres
    assert not any(check["wrong"] for check in answer["checks"])
    assert answer["last_inspection"] == {
        "inspected_at": "2026-01-02T00:00:00Z",
        "ok": False,
        "checks": [{"name": "clickhouse_equals_postgres", "wrong": 2, "example": "an hour"}],
    }


async def test_the_command_that_verifies_ends_with_1_when_something_is_wrong(
    busy: asyncpg.Pool, tmp_path: Path
) -> None:
    async with running_api(busy) as api:
        operator = CommandLine(tmp_path, {"TOLLGATE_SERVER": api.url, "TOLLGATE_TOKEN": await api.operator_token()})
        not_compared = await operator.run("books", "verify", "--last")
        assert not_compared.code > 1
        assert "nobody has compared ClickHouse yet" in not_compared.err
        assert "books right in Postgres, not compared" in " ".join(not_compared.out.split())
        await PostgresBooks(busy).keep(datetime(2026, 1, 2, tzinfo=UTC), [InspectionCheck(SAME, 0, None)])
        right = await operator.run("books", "verify", "--last")
        assert right.code == 0, right.err
        assert "books right" in " ".join(right.out.split())
        async with busy.acquire() as connection, connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")  # past the triggers
            await connection.execute("DELETE FROM billing.requests WHERE request_id = 'r1'")
        wrong = await operator.run("books", "verify", "--last")
        assert wrong.code == 1
        assert "books WRONG" in " ".join(wrong.out.split())
        assert (await operator.run("books", "verify", "--last", "--json")).code == 1
        stranger = CommandLine(tmp_path, {"TOLLGATE_SERVER": api.url, "TOLLGATE_TOKEN": "sk-tg-op-none"})
        assert (await stranger.run("books", "verify", "--last")).code > 1


async def test_a_hold_of_a_request_that_is_recorded_is_found_and_released_by_the_sink(busy: asyncpg.Pool) -> None:
    held = "SELECT held_nano_usd FROM billing.accounts WHERE org_id = $1 AND mode = 'live' AND kind = 'balance'"
    before = await busy.fetchval(held, ORG)
    async with busy.acquire() as connection, connection.transaction():
        # As if it had been placed while its line, which did not say whose it was, was settled.
        await connection.execute("UPDATE billing.holds SET state = 'held', finished_at = NULL WHERE request_id = 'r1'")
        await connection.execute(
            "UPDATE billing.accounts SET held_nano_usd = held_nano_usd + 100 WHERE org_id = $1 AND mode = 'live' AND kind = 'balance'",
            ORG,
        )
    assert await found(busy) == {"recorded_requests_hold_nothing": 1}
    ledger, now = PostgresLedger(busy), datetime.now(UTC)
    assert await ledger.end_stray_holds(now) == (1, 100)
    assert await found(busy) == {}
    assert await busy.fetchval(held, ORG) == before
    assert await ledger.end_stray_holds(now) == (0, 0)


async def test_what_a_balance_holds_for_nobody_comes_free_when_a_person_says_so(
    busy: asyncpg.Pool, tmp_path: Path
) -> None:
    columns = (
        "posted_nano_usd, held_nano_usd FROM billing.accounts WHERE org_id = $1 AND mode = 'live' AND kind = 'balance'"
    )
    before = await busy.fetchrow(f"SELECT {columns}", ORG)
    assert before is not None
    await busy.execute(
        "UPDATE billing.accounts SET held_nano_usd = held_nano_usd + 7 WHERE org_id = $1 AND mode = 'live'", ORG
    )
    assert await found(busy) == {"held_is_in_open_holds_and_slices": 1}
    async with running_api(busy) as api:
        operator = CommandLine(tmp_path, {"TOLLGATE_SERVER": api.url, "TOLLGATE_TOKEN": await api.operator_token()})
        told = await operator.run("books", "verify", "--last")
        assert told.code == 1
        assert "python -m billing_sink mend" in told.err
    async with busy.acquire() as connection:
        assert await mend_held(connection) == [
            Mended(ORG, "live", before["held_nano_usd"] + 7, before["held_nano_usd"])
        ]
        assert await mend_held(connection) == []
    assert await found(busy) == {}
    assert await busy.fetchrow(f"SELECT {columns}", ORG) == before


async def test_what_an_inspection_has_found_is_shown_without_reading_the_ledger_again(busy: asyncpg.Pool) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    await PostgresBooks(busy).keep(at, [*await PostgresBooks(busy).check(), InspectionCheck(SAME, 0, None)])
    async with busy.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")  # past the triggers
        await connection.execute("DELETE FROM billing.requests WHERE request_id = 'r1'")
    async with running_api(busy) as api:
        operator = api.as_(await api.operator_token())
        seen = await operator.get("/billing/books?anew=false")
        assert (seen["ok"], seen["checked_at"], len(seen["checks"])) == (True, "2026-01-02T00:00:00Z", 13)
        assert (await operator.get("/billing/books"))["ok"] is False
