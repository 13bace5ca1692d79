"""The books of a running stack while parts of it are killed: what they have of requests, and whether they are whole."""

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Final

import asyncpg
import clickhouse_connect

from bench.chaos.verdict import Recorded, Seen
from gateway_core.clock import utc_now
from gateway_core.money import NanoUsd, parse_usd
from gateway_core.postgres import Trouble
from tests.support.stack import Stack, eventually

SAMPLE_S: Final = 0.02
LONG_AFTER: Final = timedelta(hours=2)
"""Longer than anything is held for a request that is never heard of again."""
AT_ONCE: Final = 1000
CAUGHT_UP_S: Final = 60.0

_COLUMNS: Final = "request_id, outcome, mode, cost_nano_usd, price_nano_usd, absorbed_nano_usd"


class WrongBooksError(AssertionError):
    """Something is in the books that must not be."""


@dataclass
class Watch:
    """What was seen in the books while it was watched.

    Attributes:
        samples: how often balances were looked at.
        below_zero: how often one was below zero, or promised more than there was.
        first_seen_s: when each request's row was there, by the client's id.
    """

    samples: int = 0
    below_zero: int = 0
    first_seen_s: dict[str, float] = field(default_factory=dict)


@asynccontextmanager
async def watching(stack: Stack) -> AsyncIterator[Watch]:
    """Look at balances and at new rows all the time while the block runs; a Postgres that is away is waited for."""
    watch = Watch()
    task = asyncio.create_task(_watch(stack, watch), name="watch the books")
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def _watch(stack: Stack, watch: Watch) -> None:
    # One sink writes at a time, so no row comes behind one of a higher number.
    seq = 0
    while True:
        try:
            async with stack.database() as database:
                while True:
                    seq = await _look(database, watch, seq)
                    await asyncio.sleep(SAMPLE_S)
        except Trouble:
            await asyncio.sleep(SAMPLE_S)


async def _look(database: asyncpg.Connection, watch: Watch, seq: int) -> int:
    watch.below_zero += await database.fetchval(
        "SELECT count(*) FROM billing.accounts WHERE kind = 'balance' AND (posted_nano_usd < 0 OR posted_nano_usd < held_nano_usd)"
    )
    watch.samples += 1
    rows = await database.fetch(
        "SELECT seq, client_request_id FROM billing.requests WHERE seq > $1 AND client_request_id LIKE 'chaos-%' ORDER BY seq",
        seq,
    )
    now_s = monotonic()
    for row in rows:
        watch.first_seen_s.setdefault(row["client_request_id"], now_s)
    return rows[-1]["seq"] if rows else seq


async def recorded(stack: Stack, seen: Sequence[Seen]) -> Mapping[str, Sequence[Recorded]]:
    """What the books have of requests, by the client's id."""
    async with stack.database() as database:
        rows = await database.fetch(
            """
            SELECT client_request_id, request_id, outcome, price_nano_usd,
                   (SELECT count(*) FROM billing.transactions t WHERE t.request_id = r.request_id) AS charges
            FROM billing.requests r WHERE client_request_id = ANY($1)
            """,
            [each.client_request_id for each in seen],
        )
    found: defaultdict[str, list[Recorded]] = defaultdict(list)
    for row in rows:
        found[row["client_request_id"]].append(
            Recorded(row["request_id"], row["outcome"], row["price_nano_usd"], row["charges"])
        )
    return found


async def check(stack: Stack) -> None:
    """Look the books through, once the sink has read all there is.

    Raises:
        WrongBooksError: entries do not sum to zero, or not to what was charged; a check of the ledger fails; ClickHouse has something else;
            something other than a line that was cut by Envoy's death is set aside.
    """
    async with stack.database() as database:
        wrong = {
            "entries do not sum to zero": await database.fetchval(
                "SELECT coalesce(sum(amount_nano_usd), 0) <> 0 FROM billing.entries"
            ),
            "charges are not revenue": await database.fetchval(
                """
                SELECT count(*) FROM billing.accounts a WHERE kind = 'revenue' AND posted_nano_usd <>
                    (SELECT coalesce(sum(price_nano_usd), 0) FROM billing.requests r WHERE r.mode = a.mode)
                """
            ),
            "lines are set aside": await database.fetchval(
                "SELECT string_agg(DISTINCT reason, '; ') FROM billing.quarantine WHERE reason NOT LIKE 'torn: %'"
            ),
        }
    if found := {what: amount for what, amount in wrong.items() if amount}:
        raise WrongBooksError(str(found))
    await _compare_with_clickhouse(stack)
    await _verify(stack)


async def _verify(stack: Stack) -> None:
    """`tollgate books verify`."""
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("tollgate"), "books", "verify", "--json", "--data-dir", stack.data_dir),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode != 0 or not json.loads(out)["ok"]:
        raise WrongBooksError((out + err).decode())


async def _compare_with_clickhouse(stack: Stack) -> None:
    async with stack.database() as database:
        rows = await database.fetch(f"SELECT {_COLUMNS} FROM billing.requests")  # noqa: S608 - ours
    here = {tuple(row) for row in rows}

    async def is_same() -> bool:
        return here == await asyncio.to_thread(_copied, stack)

    try:
        await eventually(is_same, deadline_s=CAUGHT_UP_S)
    except TimeoutError:
        there = await asyncio.to_thread(_copied, stack)
        difference = sorted(here ^ there)[:3]
        raise WrongBooksError(
            f"ClickHouse has {len(there)} rows, Postgres {len(here)}; different: {difference}"
        ) from None


def _copied(stack: Stack) -> set[tuple[object, ...]]:
    with clickhouse_connect.get_client(dsn=stack.endpoints["clickhouse_url"]) as client:
        return {tuple(row) for row in client.query(f"SELECT {_COLUMNS} FROM requests FINAL").result_rows}  # noqa: S608 - ours


async def fill_up(stack: Stack, org_id: str, available_usd: str) -> None:
    """Give an organisation what it has less than this."""
    wanted = parse_usd(available_usd)
    async with stack.database() as database:
        available = await database.fetchval(
            "SELECT posted_nano_usd - held_nano_usd FROM billing.accounts WHERE kind = 'balance' AND org_id = $1 AND mode = 'live'",
            org_id,
        )
        if available < wanted:
            await database.execute("SELECT billing.credit($1, $2, 'chaos')", org_id, wanted - available)


@dataclass(frozen=True, slots=True)
class Returned:
    """What went back because nobody had accounted for it, and what the platform has paid."""

    holds: int
    slices_nano_usd: NanoUsd
    absorbed_nano_usd: NanoUsd


async def end_all_waiting(stack: Stack, expired: Sequence[Seen]) -> Returned:
    """Let the time pass, as the sink does when it has passed, after which everything that is held has gone back.

    Raises:
        WrongBooksError: something is held still, or a request that was expired has a hold that is not.
    """
    later = utc_now() + LONG_AFTER
    async with stack.database() as database:
        while await database.fetchval("SELECT billing.expire_holds($1, $2)", later, AT_ONCE):
            pass
        while await database.fetchval("SELECT closed FROM billing.close_slices($1, $2)", later, AT_ONCE):
            pass
        held = await database.fetchval("SELECT sum(held_nano_usd) FROM billing.accounts")
        elsewhere = await database.fetchval(
            "SELECT count(*) FROM billing.holds WHERE request_id = ANY($1) AND state <> 'expired'",
            [each.request_id for each in expired if each.request_id],
        )
        row = await database.fetchrow(
            """
            SELECT (SELECT count(*) FROM billing.holds WHERE state = 'expired') AS holds,
                   (SELECT coalesce(sum(unknown_nano_usd), 0) FROM billing.slices)::bigint AS slices_nano_usd,
                   (SELECT coalesce(sum(absorbed_nano_usd), 0) FROM billing.requests)::bigint AS absorbed_nano_usd
            """
        )
    if held or elsewhere:
        raise WrongBooksError(f"{held} nano-USD are held still, {elsewhere} holds of expired requests are not expired")
    assert row is not None
    return Returned(**row)
