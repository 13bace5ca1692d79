"""Decisions about quarantined requests in the ledger, on a real Postgres: who pays, how much, and once."""

import asyncio
import json

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from billing_sink.postgres_books import PostgresBooks
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postings import Posting, Quarantined, SpoolBatch
from billing_sink.rating import Outcome
from billing_sink.spool import SpoolId
from billing_sink.standing import StandingMetrics
from gateway_core.clock import utc_now
from gateway_core.mode import Mode
from tests.support.ledger import (
    QUARANTINE_WAIT,
    Books,
    decide,
    hold,
    odd_line,
    open_org,
    open_slice,
    posting,
    read_books,
)

SPOOL = SpoolId("spool")


async def post(
    pool: asyncpg.Pool, *quarantined: Quarantined, begin: int = 0, postings: tuple[Posting, ...] = ()
) -> None:
    await PostgresLedger(pool).post(SpoolBatch(SPOOL, begin, begin + 100, postings, quarantined))


async def books_are_right(pool: asyncpg.Pool) -> bool:
    return not any(row["wrong"] for row in await pool.fetch("SELECT * FROM billing.check_books()"))


@pytest.fixture
async def held(pool: asyncpg.Pool) -> asyncpg.Pool:
    """A balance of 1000 of which a quarantined request holds 400 and a running one 500."""
    await open_org(pool, balance=1000)
    await hold(pool, "r1", 400)
    await hold(pool, "running", 500)
    await post(pool, odd_line("r1"))
    return pool


async def test_what_is_held_and_what_waits_for_a_decision_are_metrics(held: asyncpg.Pool) -> None:
    registry = CollectorRegistry()
    shown = StandingMetrics(registry)

    async def standing() -> tuple[float | None, float | None, float | None]:
        shown.show(await PostgresBooks(held).standing())
        of_live = {"mode": "live"}
        return (
            registry.get_sample_value("tollgate_billing_sink_balances_nano_usd", of_live),
            registry.get_sample_value("tollgate_billing_sink_held_nano_usd", of_live),
            registry.get_sample_value("tollgate_billing_sink_quarantine_waiting"),
        )

    assert await standing() == (1000, 900, 1)
    assert await decide(held, "r1", "charge") is not None
    assert await standing() == (600, 500, 0)


@pytest.mark.parametrize(
    ("amount", "charged"),
    [
        pytest.param(None, 400, id="what was held, where no amount is named"),
        pytest.param(1, 1, id="less than that"),
        pytest.param(450, 450, id="more: from what is free"),
        pytest.param(10_000, 500, id="never what another request holds"),
    ],
)
async def test_a_charge_takes_what_is_held_and_free_and_never_more(
    held: asyncpg.Pool, amount: int | None, charged: int
) -> None:
    made = await decide(held, "r1", "charge", amount)
    assert made is not None
    assert (made["charged_nano_usd"], made["held_nano_usd"], made["amount_nano_usd"]) == (charged, 400, amount)
    assert await read_books(held) == Books(balance=1000 - charged, held=500, revenue=charged, absorbed=0, funding=-1000)
    row = await held.fetchrow("SELECT * FROM billing.requests")
    assert row is not None
    assert (row["outcome"], row["price_nano_usd"], row["usage_source"]) == ("settled", charged, "none")
    assert (row["model"], row["key_id"], json.loads(row["usage_raw"])) == ("m", "key_test", ["{}"])
    assert await held.fetchval("SELECT state FROM billing.holds WHERE request_id = 'r1'") == "settled"
    assert await books_are_right(held)


async def test_a_release_gives_the_hold_back_and_charges_nothing(held: asyncpg.Pool) -> None:
    made = await decide(held, "r1", "release")
    assert made is not None
    assert (made["charged_nano_usd"], made["held_nano_usd"]) == (0, 400)
    assert await read_books(held) == Books(balance=1000, held=500, revenue=0, absorbed=0, funding=-1000)
    assert await held.fetchval("SELECT outcome FROM billing.requests") == "released"
    assert await books_are_right(held)


async def test_the_first_decision_holds_whoever_decides_again_and_however_many_at_once(held: asyncpg.Pool) -> None:
    made = await asyncio.gather(*(decide(held, "r1", "charge", 10 + number) for number in range(8)))
    assert len({row["charged_nano_usd"] for row in made if row is not None}) == 1
    again = await decide(held, "r1", "release")
    assert again == made[0]
    assert await held.fetchval("SELECT count(*) FROM billing.transactions WHERE kind = 'usage'") == 1
    assert await books_are_right(held)


async def test_the_line_read_again_after_a_decision_changes_nothing(held: asyncpg.Pool) -> None:
    await decide(held, "r1", "charge", 100)
    before = await read_books(held)
    await post(held, odd_line("r1"), begin=100)
    assert await read_books(held) == before
    assert await held.fetchval("SELECT count(*) FROM billing.quarantine") == 1


async def test_a_share_of_a_slice_is_charged_like_a_hold(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await open_slice(pool, "s1", 500_000)
    await post(pool, odd_line("r1", slice_id="s1", share=100), odd_line("r2", slice_id="s1", share=50))
    made = [await decide(pool, "r1", "charge", 700), await decide(pool, "r2", "release")]
    # 100 of the share and 500 that are free; what else is in the slice is for other requests.
    assert [(row["charged_nano_usd"], row["held_nano_usd"]) for row in made if row] == [(600, 100), (0, 50)]
    assert await read_books(pool) == Books(balance=400, held=350, revenue=600, absorbed=0, funding=-1000)
    assert await books_are_right(pool)
    # A slice whose quarantined shares are decided about waits for nobody.
    await PostgresLedger(pool).close_slices(utc_now().replace(year=2100))
    assert (await read_books(pool)).held == 0


async def test_a_decision_that_comes_after_the_hold_has_gone_back_is_paid_from_what_is_free(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await hold(pool, "r1", 400, expires_at=utc_now())
    await post(pool, odd_line("r1"))
    assert await PostgresLedger(pool).expire_holds(utc_now() + QUARANTINE_WAIT) == 1
    await hold(pool, "running", 700)
    made = await decide(pool, "r1", "charge")
    assert made is not None
    assert (made["charged_nano_usd"], made["held_nano_usd"]) == (300, 0)
    assert await read_books(pool) == Books(balance=700, held=700, revenue=300, absorbed=0, funding=-1000)
    assert await pool.fetchval("SELECT late FROM billing.requests")
    assert await books_are_right(pool)


async def test_what_nobody_could_read_is_charged_to_whose_money_was_held(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await hold(pool, "r1", 400, mode=Mode.TEST)
    await post(pool, odd_line("r1", is_read=False))
    made = await decide(pool, "r1", "charge", 30)
    assert made is not None
    assert made["charged_nano_usd"] == 30
    assert (await read_books(pool, Mode.TEST)).revenue == 30
    assert (await read_books(pool)).revenue == 0
    assert await books_are_right(pool)


@pytest.mark.parametrize("request_id", [None, "nobody's"])
async def test_a_line_that_is_nobodys_can_be_put_away_and_not_charged(
    pool: asyncpg.Pool, request_id: str | None
) -> None:
    await open_org(pool, balance=1000)
    await post(pool, odd_line(request_id, is_read=False))
    assert await decide(pool, request_id, "charge", 30) is None
    assert await pool.fetchval("SELECT count(*) FROM billing.quarantine_decisions") == 0
    assert await decide(pool, request_id, "release") is not None
    assert await pool.fetchval("SELECT count(*) FROM billing.requests") == 0


async def test_a_request_that_is_recorded_already_is_not_charged_again(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await hold(pool, "r1", 400)
    await post(pool, postings=(posting("r1", price=300),))
    await post(pool, odd_line("r1", is_read=False), begin=100)
    assert await decide(pool, "r1", "charge", 30) is None
    assert await decide(pool, "r1", "release") is not None
    assert (await read_books(pool)).revenue == 300
    assert await pool.fetchval("SELECT state FROM billing.holds") == "settled"
    assert await books_are_right(pool)


@pytest.mark.parametrize("statement", ["UPDATE {} SET reason = ''", "DELETE FROM {}", "TRUNCATE {}"])
async def test_a_decision_cannot_be_changed(held: asyncpg.Pool, statement: str) -> None:
    await decide(held, "r1", "release")
    with pytest.raises(asyncpg.RaiseError, match="append-only"):
        await held.execute(statement.format("billing.quarantine_decisions"))


async def test_a_decision_and_the_sink_settling_the_same_request_at_once_count_once(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=100_000)
    requests = [f"r{number}" for number in range(20)]
    for request_id in requests:
        await hold(pool, request_id, 100)
    await post(pool, *(odd_line(request_id) for request_id in requests))
    lines = tuple(posting(request_id, price=60, outcome=Outcome.SETTLED) for request_id in requests)
    await asyncio.gather(
        post(pool, begin=100, postings=lines), *(decide(pool, request_id, "charge", 80) for request_id in requests)
    )
    assert await pool.fetchval("SELECT count(*) FROM billing.transactions WHERE kind = 'usage'") == len(requests)
    assert (await read_books(pool)).held == 0
    assert await books_are_right(pool)
