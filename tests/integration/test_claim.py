"""Several sinks on one spool, on a real Postgres: one works, and the next one goes on from where it was."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from billing_sink.current_prices import CurrentPrices
from billing_sink.postgres_claim import ASK_S, ClaimLostError, SpoolClaim, connect
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postgres_prices import PostgresPrices
from billing_sink.sink import Sink
from billing_sink.spool import SpoolId
from gateway_core.clock import monotonic
from gateway_core.postgres import Trouble
from tests.support.logs import QUIET
from tests.support.spool_lines import refused, render
from tests.support.stack import eventually

SPOOL = SpoolId("spool")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def other(database: str) -> AsyncIterator[SpoolClaim]:
    created = SpoolClaim(partial(connect, SecretStr(database)), monotonic)
    yield created
    await created.close()


async def backends(pool: asyncpg.Pool) -> set[int]:
    """The processes of Postgres that hold a claim."""
    return {row["pid"] for row in await pool.fetch("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted")}


async def hang_up(pool: asyncpg.Pool) -> None:
    """Postgres ends every connection that holds a claim."""
    for pid in await backends(pool):
        await pool.execute("SELECT pg_terminate_backend($1)", pid)


async def test_a_spool_is_one_sinks_until_it_lets_go(claim: SpoolClaim, other: SpoolClaim) -> None:
    assert await claim.take(SPOOL) is not None
    assert await other.take(SPOOL) is None
    assert (claim.is_held, other.is_held) == (True, False)
    await claim.close()
    assert await eventually(partial(other.take, SPOOL), deadline_s=2)
    assert not claim.is_held


async def test_sinks_with_a_spool_each_do_not_wait_for_each_other(claim: SpoolClaim, other: SpoolClaim) -> None:
    assert await claim.take(SPOOL) is not None
    assert await other.take(SpoolId("another")) is not None


async def test_a_sink_that_turns_to_another_spool_lets_go_of_the_first(claim: SpoolClaim, other: SpoolClaim) -> None:
    first = await claim.take(SPOOL)
    second = await claim.take(SpoolId("another"))
    assert None is not first != second is not None
    assert await other.take(SPOOL) is not None


async def test_without_the_claim_nothing_can_be_posted_or_expired(claim: SpoolClaim, other: SpoolClaim) -> None:
    await other.take(SPOOL)
    await claim.take(SPOOL)
    with pytest.raises(ClaimLostError):
        await PostgresLedger(claim).expire_holds(NOW)


async def test_with_its_connection_a_sink_loses_the_claim_and_whatever_it_was_posting(
    pool: asyncpg.Pool, claim: SpoolClaim, other: SpoolClaim
) -> None:
    async def post() -> None:
        async with claim.acquire() as connection, connection.transaction():
            await connection.execute("SELECT billing.move_offset('unposted', 0, 0)")
            await hang_up(pool)
            assert await eventually(partial(other.take, SPOOL), deadline_s=2)
            assert await pool.fetchval("SELECT count(*) FROM billing.spool_offsets WHERE spool_id = 'unposted'") == 0

    await claim.take(SPOOL)
    with pytest.raises(Trouble):
        await post()
    assert await pool.fetchval("SELECT count(*) FROM billing.spool_offsets WHERE spool_id = 'unposted'") == 0
    assert not claim.is_held
    await asyncio.sleep(ASK_S)
    assert await claim.take(SPOOL) is None


async def test_a_claim_that_was_lost_and_taken_again_is_another_turn(pool: asyncpg.Pool, claim: SpoolClaim) -> None:
    before = await claim.take(SPOOL)
    await hang_up(pool)

    async def again() -> int | None:
        try:
            return await claim.take(SPOOL)
        except Trouble:
            return None

    async def is_another() -> bool:
        return (await again()) not in {None, before}

    await eventually(is_another, deadline_s=20)


async def test_the_next_sink_reads_on_where_the_last_one_was(
    pool: asyncpg.Pool, claim: SpoolClaim, other: SpoolClaim, tmp_path: Path
) -> None:
    spool = tmp_path / "access.jsonl"

    def sink(by: SpoolClaim) -> Sink:
        return Sink(
            spool,
            by,
            PostgresLedger(by),
            CurrentPrices(PostgresPrices(by)),
            batch_lines=10,
            registry=CollectorRegistry(),
            log=QUIET,
        )

    def write(name: str) -> None:
        with spool.open("ab") as file:
            file.write(render(refused(name)) + b"\n")

    working, standing_by = sink(claim), sink(other)
    write("r1")
    assert await working.step()
    assert not await standing_by.step()
    assert not await working.step()
    assert (working.is_caught_up, standing_by.is_caught_up) == (True, False)
    write("r2")
    await claim.close()

    await eventually(standing_by.step, deadline_s=2)
    write("r3")
    # The first one has not noticed: what it asks for is refused, and it stands by.
    await asyncio.sleep(ASK_S)
    assert not await working.step()
    assert await standing_by.step()
    assert await pool.fetchval("SELECT array_agg(request_id ORDER BY request_id) FROM billing.requests") == [
        *("r1", "r2", "r3")
    ]


async def test_a_sink_that_says_nothing_for_five_seconds_is_followed_by_another(
    claim: SpoolClaim, other: SpoolClaim
) -> None:
    """Stopped by a signal, or on a machine that is gone: its connection stays open as far as Postgres can tell."""
    await claim.take(SPOOL)
    began = monotonic()
    assert await eventually(partial(other.take, SPOOL), deadline_s=8)
    assert monotonic() - began > 4
    with pytest.raises(Trouble):
        await PostgresLedger(claim).expire_holds(NOW)
