"""The ledger on a real Postgres: what it refuses, who pays, and that nothing counts twice."""

import asyncio
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from billing_sink.postgres_ledger import BeyondHold, Posted, PostgresLedger, SpoolMovedError, _row, encode
from billing_sink.postings import Posting, SpoolBatch
from billing_sink.rating import Outcome
from billing_sink.spool import SpoolId
from gateway_core.migrate import migrate, read_functions, read_migrations
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd
from tests.support.databases import MIGRATIONS, fresh_database
from tests.support.ledger import (
    FAR,
    ORG,
    QUARANTINE_WAIT,
    Books,
    Limits,
    hold,
    hold_within,
    odd_line,
    open_org,
    posting,
    read_books,
)

SPOOL = SpoolId("spool")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def _held_within(pool: asyncpg.Pool, request_id: str, amount: int, limits: Limits) -> int | None:
    return (await hold_within(pool, request_id, amount, limits)).held


def batch(*postings: Posting, begin: int = 0) -> SpoolBatch:
    return SpoolBatch(SPOOL, begin, begin + 100, postings, ())


async def test_settlement_moves_the_price_from_balance_to_revenue_and_frees_the_hold(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    assert await hold(pool, "r1", 400)
    await PostgresLedger(pool).post(batch(posting("r1", price=300)))
    books = await read_books(pool)
    assert books == Books(balance=700, held=0, revenue=300, absorbed=0, funding=-1000)
    assert await pool.fetchval("SELECT state FROM billing.holds") == "settled"


async def test_usage_beyond_its_hold_is_paid_from_what_is_free_and_the_rest_is_absorbed(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    assert await hold(pool, "r1", 100)
    assert await hold(pool, "other", 600)
    posted = await PostgresLedger(pool).post(batch(posting("r1", price=900)))
    assert posted.beyond_hold == [BeyondHold(Mode.LIVE, 1, NanoUsd(500))]
    # 100 held and 300 free are taken; the 600 another request holds are not.
    assert await read_books(pool) == Books(balance=600, held=600, revenue=900, absorbed=-500, funding=-1000)
    assert await pool.fetchval("SELECT absorbed_nano_usd FROM billing.requests") == 500


async def test_one_request_over_its_hold_never_takes_what_another_of_the_same_batch_held(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    assert await hold(pool, "greedy", 300)
    assert await hold(pool, "modest", 700)
    await PostgresLedger(pool).post(batch(posting("greedy", price=1200), posting("modest", price=650)))
    rows = await pool.fetch("SELECT request_id, absorbed_nano_usd FROM billing.requests")
    absorbed = {row["request_id"]: row["absorbed_nano_usd"] for row in rows}
    assert absorbed == {"greedy": 1200 - 300 - 50, "modest": 0}
    assert (await read_books(pool)).balance == 0


async def test_a_replayed_batch_with_the_same_input_changes_nothing(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await hold(pool, "r1", 400)
    ledger = PostgresLedger(pool)
    await ledger.post(batch(posting("r1", price=300)))
    before = await read_books(pool)
    assert await ledger.post(batch(posting("r1", price=300), begin=100)) == Posted([], [])
    assert await read_books(pool) == before


async def test_the_same_request_with_another_input_is_quarantined_and_not_charged(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    ledger = PostgresLedger(pool)
    await ledger.post(batch(posting("r1", price=300)))
    other = replace(posting("r1", price=400), input_hash=hashlib.sha256(b"other").digest())
    [conflict] = (await ledger.post(batch(other, begin=100))).quarantined
    assert "conflict" in conflict.reason
    assert (await read_books(pool)).balance == 700
    assert await pool.fetchval("SELECT count(*) FROM billing.quarantine") == 1


async def test_an_offset_that_has_moved_writes_nothing(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    ledger = PostgresLedger(pool)
    await ledger.post(batch(posting("r1", price=1)))
    with pytest.raises(SpoolMovedError):
        await ledger.post(batch(posting("r2", price=1)))
    assert await pool.fetchval("SELECT count(*) FROM billing.requests") == 1


async def test_a_thousand_concurrent_holds_on_a_balance_for_forty_admit_exactly_forty(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=4000)
    admitted = await asyncio.gather(*(hold(pool, f"r{n}", 100) for n in range(1000)))
    assert sum(each is not None for each in admitted) == 40
    assert await read_books(pool) == Books(balance=4000, held=4000, revenue=0, absorbed=0, funding=-4000)


async def test_a_hold_asked_for_again_is_the_same_hold(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    assert await hold(pool, "r1", 400)
    assert await hold(pool, "r1", 400)
    assert await read_books(pool) == Books(balance=1000, held=400, revenue=0, absorbed=0, funding=-1000)
    assert await pool.fetchval("SELECT count(*) FROM billing.holds") == 1


async def test_a_hold_asked_for_again_stands_when_it_has_taken_the_last_of_the_balance(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=400)
    assert await hold(pool, "r1", 400)
    assert await hold(pool, "r1", 400)
    assert not await hold(pool, "r2", 1)
    assert (await read_books(pool)).held == 400


async def test_many_asking_about_one_request_at_once_get_one_hold(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    assert all(await asyncio.gather(*(hold(pool, "r1", 600) for _ in range(50))))
    assert (await read_books(pool)).held == 600


async def test_a_question_that_waits_for_another_about_the_same_request_finds_its_hold(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=400)
    async with pool.acquire() as first, first.transaction():
        # A process that died here: its statement has run, and is committed by nobody's wish but the server's.
        assert await first.fetchval("SELECT billing.place_hold('r1', $1, 'key_test', 400, $2)", ORG, FAR)
        again = asyncio.create_task(hold(pool, "r1", 400))
        await asyncio.sleep(0.1)
        assert not again.done()
    assert await again
    assert (await read_books(pool)).held == 400


async def test_a_request_that_is_recorded_gets_no_hold(pool: asyncpg.Pool) -> None:
    """Asked by somebody who is gone, in a statement that was carried out after the request was over."""
    await open_org(pool, balance=1000)
    await PostgresLedger(pool).post(batch(posting("r1", price=0, outcome=Outcome.RELEASED)))
    assert await hold(pool, "r1", 400) is None
    assert (await hold_within(pool, "r1", 400, Limits(key_per_day=1000))).held is None
    assert await read_books(pool) == Books(balance=1000, held=0, revenue=0, absorbed=0, funding=-1000)
    assert await pool.fetchval("SELECT count(*) FROM billing.holds") == 0


@pytest.mark.parametrize("limits", [None, Limits(key_per_day=1000)])
async def test_a_question_that_waits_while_its_request_is_settled_gets_no_hold(
    pool: asyncpg.Pool, limits: Limits | None
) -> None:
    await open_org(pool, balance=1000)
    async with pool.acquire() as sink, sink.transaction():
        await sink.execute("SELECT billing.settle($1::jsonb)", encode([posting("r1", price=300)]))
        asked = asyncio.create_task(hold(pool, "r1", 400) if limits is None else _held_within(pool, "r1", 400, limits))
        await asyncio.sleep(0.1)
        assert not asked.done()
    assert await asked is None
    assert await read_books(pool) == Books(balance=700, held=0, revenue=300, absorbed=0, funding=-1000)


async def test_another_question_under_the_id_of_a_hold_is_refused_and_changes_nothing(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await open_org(pool, balance=1000, org_id="org_other")
    assert await hold(pool, "r1", 400)
    for org_id, key_id, amount in ((ORG, "key_test", 401), (ORG, "key_other", 400), ("org_other", "key_test", 400)):
        with pytest.raises(asyncpg.UniqueViolationError, match="r1 has another hold"):
            await pool.execute("SELECT billing.place_hold('r1', $1, $2, $3, $4)", org_id, key_id, amount, FAR)
    assert await pool.fetchval("SELECT sum(held_nano_usd) FROM billing.accounts") == 400


async def test_a_hold_is_as_much_of_the_amount_as_is_free_and_not_less_than_the_least(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    assert await hold(pool, "r1", 700, least=100) == 700
    assert await hold(pool, "r2", 700, least=301) is None
    assert await hold(pool, "r2", 700, least=300) == 300
    assert await hold(pool, "r3", 700, least=1) is None
    assert (await read_books(pool)).held == 1000
    # Asked again, with nothing free: what it holds, and for whoever needs more than that a fault.
    assert await hold(pool, "r2", 700, least=300) == 300
    with pytest.raises(asyncpg.UniqueViolationError, match="r2 has another hold"):
        await hold(pool, "r2", 700, least=301)


async def test_many_holds_of_whatever_is_free_share_a_balance_without_going_below_it(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=4050)
    held = await asyncio.gather(*(hold(pool, f"r{n}", 100, least=50) for n in range(1000)))
    assert sorted(each for each in held if each is not None) == [50] + [100] * 40
    assert (await read_books(pool)).held == 4050


async def test_no_hold_is_placed_again_for_a_request_that_has_ended(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    assert await hold(pool, "r1", 400)
    await PostgresLedger(pool).post(batch(posting("r1", price=300)))
    with pytest.raises(asyncpg.UniqueViolationError, match="r1 has another hold"):
        await hold(pool, "r1", 400)
    assert await read_books(pool) == Books(balance=700, held=0, revenue=300, absorbed=0, funding=-1000)


async def test_an_empty_balance_admits_nothing_not_even_for_free(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=100)
    await PostgresLedger(pool).post(batch(posting("r1", price=100)))
    assert await hold(pool, "r2", 0) is None


async def test_an_expired_hold_gives_its_money_back_and_a_late_line_is_marked(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await hold(pool, "r1", 400, expires_at=NOW)
    ledger = PostgresLedger(pool)
    assert await ledger.expire_holds(NOW - timedelta(seconds=1)) == 0
    assert await ledger.expire_holds(NOW) == 1
    assert await read_books(pool) == Books(balance=1000, held=0, revenue=0, absorbed=0, funding=-1000)
    await ledger.post(batch(posting("r1", price=300)))
    assert await read_books(pool) == Books(balance=700, held=0, revenue=300, absorbed=0, funding=-1000)
    assert await pool.fetchval("SELECT late FROM billing.requests")
    assert await pool.fetchval("SELECT state FROM billing.holds") == "expired"


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_request_whose_client_left_while_it_was_decided_about_ends_its_hold(
    pool: asyncpg.Pool, mode: Mode
) -> None:
    await open_org(pool, balance=100)
    assert await hold(pool, "left", 60, mode=mode) == 60
    assert await hold(pool, "stays", 30, mode=mode) == 30
    # Envoy got no answer, so its line says not whose the request is.
    left = posting("left", price=0, outcome=Outcome.REFUSED, mode=mode)
    nobodys = replace(left, rated=replace(left.rated, line=replace(left.rated.line, grant=None)))
    another = posting("another", price=10, mode=mode)
    await PostgresLedger(pool).post(batch(nobodys, another))
    rows = await pool.fetch("SELECT request_id, state FROM billing.holds ORDER BY 1")
    assert [tuple(row) for row in rows] == [("left", "released"), ("stays", "held")]
    assert (await read_books(pool, mode)).held == 30


async def test_a_hold_of_a_quarantined_request_waits_for_a_person_for_a_week_and_no_longer(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await hold(pool, "r1", 400, expires_at=NOW)
    ledger = PostgresLedger(pool)
    await ledger.post(SpoolBatch(SPOOL, 0, 100, (), (odd_line("r1"),)))
    since = await pool.fetchval("SELECT quarantined_at FROM billing.quarantine")
    assert await ledger.expire_holds(since + QUARANTINE_WAIT - timedelta(seconds=1)) == 0
    assert await ledger.expire_holds(since + QUARANTINE_WAIT) == 1
    assert await read_books(pool) == Books(balance=1000, held=0, revenue=0, absorbed=0, funding=-1000)


@pytest.mark.parametrize(
    ("table", "column"), [("transactions", "reason"), ("entries", "amount_nano_usd"), ("requests", "price_nano_usd")]
)
@pytest.mark.parametrize(
    "statement",
    ["UPDATE billing.{table} SET {column} = NULL", "DELETE FROM billing.{table}", "TRUNCATE billing.{table} CASCADE"],
)
async def test_ledger_rows_cannot_be_changed_or_removed(
    pool: asyncpg.Pool, table: str, column: str, statement: str
) -> None:
    await open_org(pool, balance=1000)
    with pytest.raises(asyncpg.RaiseError, match=f"billing.{table} is append-only"):
        await pool.execute(statement.format(table=table, column=column))


async def test_entries_that_do_not_sum_to_zero_are_refused(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    with pytest.raises(asyncpg.RaiseError, match="sum to zero"):
        await pool.execute(
            """
            INSERT INTO billing.entries SELECT 1, account_id, 5, mode FROM billing.accounts
            WHERE kind = 'revenue' AND mode = 'test'
            """
        )


async def test_a_balance_cannot_be_written_below_zero(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute("UPDATE billing.accounts SET posted_nano_usd = -1 WHERE org_id = $1", ORG)


async def test_two_sinks_with_the_same_request_record_it_once(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    batches = [SpoolBatch(SpoolId(f"s{n}"), 0, 1, (posting("r1", price=10),), ()) for n in range(8)]
    await asyncio.gather(*(PostgresLedger(pool).post(each) for each in batches))
    assert (await read_books(pool)).balance == 990


PLAY_MONEY = 10**12
"""What every organisation begins with: 1,000 US dollars."""


async def test_every_organisation_begins_with_play_money_in_books_of_its_own(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=0)
    assert await read_books(pool) == Books(balance=0, held=0, revenue=0, absorbed=0, funding=0)
    begun = Books(balance=PLAY_MONEY, held=0, revenue=0, absorbed=0, funding=-PLAY_MONEY)
    assert await read_books(pool, Mode.TEST) == begun


async def test_a_test_request_is_held_paid_and_booked_without_touching_the_live_books(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    live = await read_books(pool)
    assert await hold(pool, "r1", 400, mode=Mode.TEST)
    assert (await read_books(pool, Mode.TEST)).held == 400
    await PostgresLedger(pool).post(batch(posting("r1", price=300, mode=Mode.TEST)))
    assert await read_books(pool) == live
    assert await read_books(pool, Mode.TEST) == Books(
        balance=PLAY_MONEY - 300, held=0, revenue=300, absorbed=0, funding=-PLAY_MONEY
    )
    assert await pool.fetchval("SELECT mode FROM billing.requests") == "test"
    assert {row["mode"] for row in await pool.fetch("SELECT mode FROM billing.entries")} == {"live", "test"}


async def test_one_batch_may_hold_requests_of_both_modes_and_each_is_paid_in_its_own(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    assert await hold(pool, "real", 100)
    assert await hold(pool, "play", 100, mode=Mode.TEST)
    finished = (posting("play", price=250, mode=Mode.TEST), posting("real", price=1200))
    await PostgresLedger(pool).post(batch(*finished))
    assert await read_books(pool) == Books(balance=0, held=0, revenue=1200, absorbed=-200, funding=-1000)
    assert await read_books(pool, Mode.TEST) == Books(
        balance=PLAY_MONEY - 250, held=0, revenue=250, absorbed=0, funding=-PLAY_MONEY
    )


async def test_an_empty_live_balance_stops_no_test_request_and_a_full_one_pays_for_none(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=0)
    assert not await hold(pool, "live", 1)
    assert await hold(pool, "test", PLAY_MONEY, mode=Mode.TEST)
    await pool.execute("SELECT billing.credit($1, 1000, 'real')", ORG)
    assert not await hold(pool, "one more", 1, mode=Mode.TEST)


async def test_an_expired_test_hold_gives_its_play_money_back(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await hold(pool, "r1", 400, expires_at=NOW, mode=Mode.TEST)
    ledger = PostgresLedger(pool)
    assert await ledger.expire_holds(NOW) == 1
    await ledger.post(batch(posting("r1", price=300, mode=Mode.TEST)))
    assert (await read_books(pool, Mode.TEST)).balance == PLAY_MONEY - 300
    assert await pool.fetchval("SELECT late FROM billing.requests")
    assert (await read_books(pool)).balance == 1000


async def test_a_refill_fills_up_and_never_adds_to_what_is_full(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    ledger = PostgresLedger(pool)
    await hold(pool, "r1", 700, mode=Mode.TEST)
    await ledger.post(batch(posting("r1", price=700, mode=Mode.TEST)))
    refills = [pool.fetchval("SELECT billing.refill_test_balance($1)", ORG) for _ in range(8)]
    assert sorted(await asyncio.gather(*refills)) == [0] * 7 + [700]
    assert (await read_books(pool, Mode.TEST)).balance == PLAY_MONEY
    assert (await read_books(pool)).balance == 1000


@pytest.mark.parametrize(("held_in", "finished_in"), [(Mode.LIVE, Mode.TEST), (Mode.TEST, Mode.LIVE)])
@pytest.mark.parametrize("price", [0, 300])
async def test_a_request_that_is_held_in_one_mode_cannot_be_settled_in_the_other(
    pool: asyncpg.Pool, held_in: Mode, finished_in: Mode, price: int
) -> None:
    await open_org(pool, balance=1000)
    await hold(pool, "r1", 400, mode=held_in)
    books = [await read_books(pool, mode) for mode in Mode]
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await PostgresLedger(pool).post(batch(posting("r1", price=price, mode=finished_in)))
    assert [await read_books(pool, mode) for mode in Mode] == books


async def test_no_transaction_mixes_modes_whoever_writes_it(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    for statement in (
        # Balanced, but from play money to real money.
        """
        WITH t AS (INSERT INTO billing.transactions (kind, mode) VALUES ('credit', 'live') RETURNING transaction_id)
        INSERT INTO billing.entries SELECT transaction_id, account_id, CASE a.mode WHEN 'live' THEN 5 ELSE -5 END, a.mode
        FROM t, billing.accounts a WHERE kind = 'revenue'
        """,
        # The same, with an entry that lies about its account.
        """
        WITH t AS (INSERT INTO billing.transactions (kind, mode) VALUES ('credit', 'live') RETURNING transaction_id)
        INSERT INTO billing.entries SELECT transaction_id, account_id, CASE a.mode WHEN 'live' THEN 5 ELSE -5 END, 'live'
        FROM t, billing.accounts a WHERE kind = 'revenue'
        """,
        # The same, with entries that lie about their transaction.
        """
        WITH t AS (INSERT INTO billing.transactions (kind, mode) VALUES ('credit', 'live') RETURNING transaction_id)
        INSERT INTO billing.entries SELECT transaction_id, account_id, CASE kind WHEN 'revenue' THEN 5 ELSE -5 END, mode
        FROM t, billing.accounts WHERE kind IN ('revenue', 'funding') AND mode = 'test'
        """,
        "UPDATE billing.accounts SET mode = 'live' WHERE kind = 'funding' AND mode = 'test'",
    ):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await pool.execute(statement)


@pytest.mark.parametrize(
    ("transaction_id", "account_id"),
    [("max(transaction_id) + 1", "max(account_id)"), ("max(transaction_id)", "max(account_id) + 1")],
)
async def test_entries_of_a_transaction_or_an_account_that_is_not_there_are_refused(
    pool: asyncpg.Pool, transaction_id: str, account_id: str
) -> None:
    await open_org(pool, balance=1000)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="not there"):
        await pool.execute(
            f"""
            INSERT INTO billing.entries SELECT transaction_id, side.account_id, side.amount, 'live'
            FROM (SELECT {transaction_id} AS transaction_id FROM billing.transactions) t,
                 (SELECT min(account_id) AS known, {account_id} AS other FROM billing.accounts WHERE mode = 'live') a,
                 LATERAL (VALUES (known, 5), (other, -5)) AS side (account_id, amount)
            """
        )


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM billing.accounts WHERE kind = 'stripe_clearing'",
        "TRUNCATE billing.accounts CASCADE",
        *(f"UPDATE billing.accounts SET {column} = {column}" for column in ("kind", "org_id", "mode")),
    ],
)
async def test_an_account_stays_what_it_is(pool: asyncpg.Pool, statement: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="stays what it is"):
        await pool.execute(statement)


async def test_live_settlement_does_not_wait_for_whoever_moves_play_money(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    async with pool.acquire() as slow, slow.transaction():
        await slow.execute("SELECT billing.open_balance('org_signing_up')")
        async with asyncio.timeout(5):
            await PostgresLedger(pool).post(batch(posting("r1", price=10)))


async def test_what_was_there_before_is_live_and_its_organisations_get_play_money(postgres_dsn: str) -> None:
    async with (
        fresh_database(postgres_dsn, {"billing_sink": 2}) as dsn,
        asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool,
    ):
        await pool.execute("SELECT billing.open_balance($1)", ORG)
        await pool.execute("SELECT billing.credit($1, 1000, 'before')", ORG)
        # By the one session of this pool, which then has the temporary table of the earlier function.
        await pool.fetch("SELECT billing.settle($1::jsonb)", json.dumps([_row(posting("r1", price=300))]))
        other = await asyncpg.connect(dsn)
        folder = MIGRATIONS["billing_sink"]
        await migrate(other, "billing_sink", read_migrations(folder), read_functions(folder))
        await other.close()
        # The version of then goes on, and knows no mode.
        without_mode = {name: value for name, value in _row(posting("r2", price=100)).items() if name != "mode"}
        await pool.fetch("SELECT billing.settle($1::jsonb)", json.dumps([without_mode]))
        await pool.fetchval("SELECT billing.place_hold('r3', $1, 'k', 1, 'infinity')", ORG)
        assert await read_books(pool) == Books(balance=600, held=1, revenue=400, absorbed=0, funding=-1000)
        assert (await read_books(pool, Mode.TEST)).balance == PLAY_MONEY
        assert {row["mode"] for row in await pool.fetch("SELECT mode FROM billing.requests")} == {"live"}
