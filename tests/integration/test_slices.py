"""Slices in the ledger on a real Postgres: money for many requests, and where each nano-USD of it ends."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from billing_sink.postgres_ledger import ClosedSlices, PostgresLedger
from billing_sink.postings import Posting, Quarantined, SpoolBatch
from billing_sink.rating import Outcome
from billing_sink.spool import SpoolId
from gateway_core.clock import utc_now
from gateway_core.ids import OrgId
from gateway_core.money import NanoUsd
from tests.support.ledger import QUARANTINE_WAIT, Books, hold, odd_line, open_org, open_slice, posting, read_books

SPOOL = SpoolId("spool")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOON = NOW + timedelta(hours=1)


def batch(*postings: Posting, begin: int = 0, quarantined: tuple[Quarantined, ...] = ()) -> SpoolBatch:
    return SpoolBatch(SPOOL, begin, begin + 100, postings, quarantined)


async def slice_of(pool: asyncpg.Pool) -> dict[str, int]:
    row = await pool.fetchrow(
        """
        SELECT settled_nano_usd AS settled, returned_nano_usd AS returned, unknown_nano_usd AS unknown,
               open_nano_usd AS open, requests_settled AS requests FROM billing.slices
        """
    )
    assert row is not None
    return dict(row)


async def test_a_slice_is_a_part_of_what_is_free_and_no_more_than_that_is_held(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await hold(pool, "r1", 500)
    assert await open_slice(pool, "s1", 20_000) == 10
    assert await open_slice(pool, "s2", 500_000) == 245
    assert (await read_books(pool)).held == 500 + 10 + 245


@pytest.mark.parametrize(("balance", "amount_min"), [(0, 1), (49, 1), (1000, 21)])
async def test_there_is_no_slice_where_it_would_be_too_small(pool: asyncpg.Pool, balance: int, amount_min: int) -> None:
    await open_org(pool, balance=balance)
    assert await open_slice(pool, "s1", 20_000, amount_min=amount_min) is None
    assert (await read_books(pool)).held == 0


async def test_requests_are_paid_from_their_shares_and_what_they_did_not_need_is_free_at_once(
    pool: asyncpg.Pool,
) -> None:
    await open_org(pool, balance=1000)
    await open_slice(pool, "s1", 500_000)
    await PostgresLedger(pool).post(
        batch(
            posting("r1", price=60, slice_id="s1", share=100),
            posting("r2", price=0, outcome=Outcome.RELEASED, slice_id="s1", share=100),
        )
    )
    assert await slice_of(pool) == {"settled": 200, "returned": 0, "unknown": 0, "open": 300, "requests": 2}
    assert await read_books(pool) == Books(balance=940, held=300, revenue=60, absorbed=0, funding=-1000)


async def test_a_replayed_line_takes_its_share_once(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await open_slice(pool, "s1", 500_000)
    ledger, line = PostgresLedger(pool), posting("r1", price=60, slice_id="s1", share=100)
    await ledger.post(batch(line))
    await ledger.post(batch(line, begin=100))
    assert (await slice_of(pool))["settled"] == 100
    assert (await read_books(pool)).balance == 940


async def test_usage_beyond_its_share_is_paid_from_what_is_free_and_not_from_other_shares(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await open_slice(pool, "s1", 500_000)
    await hold(pool, "other", 450)
    await PostgresLedger(pool).post(batch(posting("r1", price=700, slice_id="s1", share=100)))
    # The share and the 50 that are free; neither the rest of the slice nor what the other request holds.
    assert await read_books(pool) == Books(balance=850, held=850, revenue=700, absorbed=-550, funding=-1000)


async def test_what_was_not_spent_goes_back_and_the_shares_that_are_out_stay(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await open_slice(pool, "s1", 500_000)
    await pool.execute("SELECT billing.return_slice('s1', 400)")
    assert (await read_books(pool)).held == 100
    await PostgresLedger(pool).post(batch(posting("r1", price=80, slice_id="s1", share=100)))
    assert await slice_of(pool) == {"settled": 100, "returned": 400, "unknown": 0, "open": 0, "requests": 1}
    # Said again, nothing more comes back.
    await pool.execute("SELECT billing.return_slice('s1', 400)")
    assert await read_books(pool) == Books(balance=920, held=0, revenue=80, absorbed=0, funding=-1000)


async def test_what_nobody_accounted_for_goes_back_when_the_time_is_over_and_is_counted(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await open_slice(pool, "s1", 500_000, expires_at=SOON)
    ledger = PostgresLedger(pool)
    await ledger.post(batch(posting("r1", price=80, slice_id="s1", share=100)))
    assert await ledger.close_slices(SOON - timedelta(seconds=1)) == ClosedSlices(0, NanoUsd(0))
    assert await ledger.close_slices(SOON) == ClosedSlices(1, NanoUsd(400))
    assert await ledger.close_slices(SOON) == ClosedSlices(0, NanoUsd(0))
    assert await slice_of(pool) == {"settled": 100, "returned": 0, "unknown": 400, "open": 0, "requests": 1}
    assert (await read_books(pool)).held == 0


async def test_a_line_that_comes_after_its_slice_was_closed_is_late_and_pays_from_what_is_free(
    pool: asyncpg.Pool,
) -> None:
    await open_org(pool, balance=1000)
    await open_slice(pool, "s1", 500_000, expires_at=SOON)
    ledger = PostgresLedger(pool)
    await ledger.close_slices(SOON)
    await ledger.post(batch(posting("r1", price=80, slice_id="s1", share=100)))
    assert await pool.fetchval("SELECT late FROM billing.requests") is True
    assert await read_books(pool) == Books(balance=920, held=0, revenue=80, absorbed=0, funding=-1000)


async def test_the_share_of_a_quarantined_request_stays_until_a_person_has_decided(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await open_slice(pool, "s1", 500_000, expires_at=SOON)
    ledger = PostgresLedger(pool)
    await ledger.post(batch(quarantined=(odd_line("r1", slice_id="s1", share=100),)))
    assert await ledger.close_slices(SOON) == ClosedSlices(1, NanoUsd(400))
    assert await ledger.close_slices(SOON) == ClosedSlices(0, NanoUsd(0))
    assert (await read_books(pool)).held == 100
    assert (await slice_of(pool))["open"] == 100
    waited = utc_now() + QUARANTINE_WAIT
    assert await ledger.close_slices(waited) == ClosedSlices(1, NanoUsd(100))
    assert (await read_books(pool)).held == 0


@pytest.mark.parametrize("price", [0, 60, 450, 700])
async def test_a_request_that_has_a_hold_and_a_share_ends_both(pool: asyncpg.Pool, price: int) -> None:
    """One process placed the hold and was too late with its answer; Envoy asked another one, which took a share."""
    await open_org(pool, balance=1000)
    await hold(pool, "r1", 400)
    await open_slice(pool, "s1", 500_000)
    await hold(pool, "other", 300)
    outcome = Outcome.SETTLED if price else Outcome.RELEASED
    await PostgresLedger(pool).post(batch(posting("r1", price=price, outcome=outcome, slice_id="s1", share=100)))
    assert await pool.fetchval("SELECT state FROM billing.holds WHERE request_id = 'r1'") == outcome
    assert await slice_of(pool) == {"settled": 100, "returned": 0, "unknown": 0, "open": 200, "requests": 1}
    # Nothing is left for it beyond 400 and 100: the rest of the slice and the other hold have taken it.
    paid = min(price, 500)
    assert await read_books(pool) == Books(1000 - paid, 500, revenue=price, absorbed=paid - price, funding=-1000)


async def test_a_request_whose_hold_has_expired_is_late_and_paid_by_its_share(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await hold(pool, "r1", 400, expires_at=NOW)
    await open_slice(pool, "s1", 500_000, expires_at=SOON)
    ledger = PostgresLedger(pool)
    assert await ledger.expire_holds(NOW) == 1
    await hold(pool, "other", 700)
    await ledger.post(batch(posting("r1", price=80, slice_id="s1", share=100)))
    assert await pool.fetchval("SELECT late FROM billing.requests") is True
    assert await slice_of(pool) == {"settled": 100, "returned": 0, "unknown": 0, "open": 200, "requests": 1}
    assert await read_books(pool) == Books(balance=920, held=900, revenue=80, absorbed=0, funding=-1000)


async def test_a_slice_pays_for_its_own_organisation_only(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    await open_org(pool, balance=1000, org_id="org_other")
    await open_slice(pool, "s1", 500_000)
    line = posting("r1", price=60, slice_id="s1", share=100)
    assert line.rated.line.grant is not None
    stolen = replace(line.rated.line.grant, org_id=OrgId("org_other"))
    theft = replace(line, rated=replace(line.rated, line=replace(line.rated.line, grant=stolen)))
    for wrong in (theft, posting("r2", price=60, slice_id="no_such_slice", share=100)):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await PostgresLedger(pool).post(batch(wrong))
    assert await pool.fetchval("SELECT count(*) FROM billing.requests") == 0


async def test_a_batch_with_more_shares_than_a_slice_has_takes_what_there_is(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=1000)
    assert await open_slice(pool, "s1", 250_000) == 250
    await PostgresLedger(pool).post(
        batch(*(posting(f"r{number}", price=100, slice_id="s1", share=100) for number in range(4)))
    )
    assert await slice_of(pool) == {"settled": 250, "returned": 0, "unknown": 0, "open": 0, "requests": 4}
    assert await read_books(pool) == Books(balance=600, held=0, revenue=400, absorbed=0, funding=-1000)
