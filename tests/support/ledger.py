"""Shorthand for the ledger: an organisation with a balance, holds, postings, and the state of the books."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zlib import crc32

import asyncpg

from billing_sink.access_log import Asked, Grant, SpoolLine
from billing_sink.postgres_ledger import encode
from billing_sink.postings import Posting, Quarantined, SpoolBatch
from billing_sink.rating import Outcome, Rated, UsageSource
from billing_sink.spool import RawLine, SpoolId
from gateway_core.endpoints import Endpoint
from gateway_core.ids import KeyId, ModelName, OrgId, PriceVersion, ProjectId, ProviderName, RequestId
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd
from gateway_core.pricing import Charge
from gateway_core.usage import Meter

ORG = "org_test"
FAR = datetime(2100, 1, 1, tzinfo=UTC)
QUARANTINE_WAIT = timedelta(days=7)


@dataclass(frozen=True)
class Books:
    """The sums that matter, in nano-USD, for one organisation."""

    balance: int
    held: int
    revenue: int
    absorbed: int
    funding: int
    owed: int = 0


def batch(name: str, *postings: Posting) -> SpoolBatch:
    """A spool of its own, so that batches do not wait for each other."""
    return SpoolBatch(SpoolId(name), 0, 1, postings, ())


async def open_org(pool: asyncpg.Pool, *, balance: int, org_id: str = ORG) -> None:
    """An organisation's balance with a credit on it."""
    await pool.execute("SELECT billing.open_balance($1)", org_id)
    if balance:
        await pool.execute("SELECT billing.credit($1, $2, 'test')", org_id, balance)


async def hold(
    pool: asyncpg.Pool,
    request_id: str,
    amount: int,
    *,
    least: int | None = None,
    expires_at: datetime = FAR,
    mode: Mode = Mode.LIVE,
) -> int | None:
    """Place a hold; returns how much it holds."""
    held: int | None = await pool.fetchval(
        "SELECT billing.place_hold($1, $2, 'key_test', $3, $4, $5, $6)",
        *(request_id, ORG, amount, expires_at, mode, least),
    )
    return held


@dataclass(frozen=True)
class Limits:
    """Budgets of the key `key_test` and its project `prj`, in nano-USD."""

    time_zone: str = "UTC"
    key_per_day: int | None = None
    key_per_month: int | None = None
    project_per_day: int | None = None
    project_per_month: int | None = None


@dataclass(frozen=True)
class Answer:
    """What a hold within budgets comes to."""

    held: int | None
    budget: str | None = None
    renews_at: datetime | None = None


async def hold_within(
    database: asyncpg.Pool | asyncpg.pool.PoolConnectionProxy,
    request_id: str,
    amount: int,
    limits: Limits,
    *,
    now: datetime | None = None,
    least: int | None = None,
    expires_at: datetime = FAR,
    mode: Mode = Mode.LIVE,
    key_id: str = "key_test",
) -> Answer:
    """Place a hold within budgets, at a moment."""
    [row] = await database.fetch(
        "SELECT * FROM billing.place_hold_within_budgets($1, $2, 'prj', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        *(request_id, ORG, key_id, amount, amount if least is None else least, expires_at, mode, limits.time_zone),
        *(limits.key_per_day, limits.key_per_month, limits.project_per_day, limits.project_per_month, now),
    )
    return Answer(row["held_nano_usd"], row["budget"], row["renews_at"])


async def settle_at(pool: asyncpg.Pool, now: datetime, *postings: Posting) -> None:
    """Settle finished requests at a moment."""
    await pool.execute("SELECT billing.settle($1::jsonb, $2)", encode(postings), now)


async def open_slice(
    pool: asyncpg.Pool, slice_id: str, share_ppm: int, *, amount_min: int = 1, expires_at: datetime = FAR
) -> int | None:
    """Open a slice of what is free; returns its size."""
    size: int | None = await pool.fetchval(
        "SELECT billing.open_slice($1, $2, 'live', 'authz_test', $3, $4, $5)",
        slice_id,
        ORG,
        share_ppm,
        amount_min,
        expires_at,
    )
    return size


def posting(
    request_id: str,
    *,
    price: int,
    outcome: Outcome = Outcome.SETTLED,
    mode: Mode = Mode.LIVE,
    slice_id: str | None = None,
    share: int | None = None,
    key_id: str = "key_test",
) -> Posting:
    """A finished chat request that costs `price`; covered by a share of a slice, if that is given."""
    line = SpoolLine(
        v=1,
        type="DownstreamEnd",
        start_time=datetime(2026, 1, 1, tzinfo=UTC),
        status=200,
        request_id=RequestId(request_id),
        request=Asked(Endpoint.CHAT, ModelName("m")),
        grant=Grant(
            OrgId(ORG),
            ProjectId("prj"),
            KeyId(key_id),
            price_version=PriceVersion(1),
            hold_nano_usd=share,
            slice_id=slice_id,
            mode=mode,
        ),
        usage_first="{}",
    )
    rated = Rated(
        line,
        outcome,
        ProviderName("p"),
        mode,
        UsageSource.PROVIDER,
        {Meter.INPUT: 1},
        Charge(NanoUsd(price), NanoUsd(price)),
    )
    content = f"{request_id} {price} {mode}".encode()
    return Posting(RequestId(request_id), hashlib.sha256(content).digest(), RawLine(0, content), rated)


def odd_line(
    request_id: str | None, *, slice_id: str | None = None, share: int | None = None, is_read: bool = True
) -> Quarantined:
    """A line about such a request that nobody could price, or, unless it `is_read`, that nobody could read."""
    line = posting(request_id or "", price=0, slice_id=slice_id, share=share).rated.line if is_read else None
    content = f"quarantined {request_id} {slice_id}".encode()
    return Quarantined(
        RawLine(crc32(content), content),
        "UnpricedError: odd",
        None if request_id is None else RequestId(request_id),
        line,
    )


async def decide(
    pool: asyncpg.Pool,
    request_id: str | None,
    decision: str,
    amount: int | None = None,
    *,
    now: datetime | None = None,
) -> asyncpg.Record | None:
    """Decide about the quarantined line of a request; None where there is nothing to charge."""
    made = await pool.fetchrow(
        """
        SELECT d.* FROM billing.quarantine q CROSS JOIN LATERAL
            billing.decide_quarantine(q.quarantine_id, $2, $3, 'looked into', 'user', 'usr_operator', coalesce($4, now())) d
        WHERE q.request_id IS NOT DISTINCT FROM $1
        """,
        request_id,
        decision,
        amount,
        now,
    )
    return None if made is None or made["quarantine_id"] is None else made


async def read_books(pool: asyncpg.Pool, mode: Mode = Mode.LIVE) -> Books:
    """The books of a mode now; also checks that every posted sum equals its entries and that all of them sum to zero."""
    wrong = await pool.fetch(
        """
        SELECT a.account_id FROM billing.accounts a LEFT JOIN billing.entries e USING (account_id)
        GROUP BY a.account_id HAVING a.posted_nano_usd <> coalesce(sum(e.amount_nano_usd), 0)
        """
    )
    assert not wrong, "posted sums differ from their entries"
    rows = await pool.fetch("SELECT kind, posted_nano_usd, held_nano_usd FROM billing.accounts WHERE mode = $1", mode)
    posted = {row["kind"]: row["posted_nano_usd"] for row in rows}
    held = sum(row["held_nano_usd"] for row in rows)
    assert sum(posted.values()) == 0, "the ledger does not sum to zero"
    open_holds = await pool.fetchval(
        """
        SELECT coalesce(sum(amount_nano_usd), 0) FROM billing.holds JOIN billing.accounts USING (account_id)
        WHERE state = 'held' AND mode = $1
        """,
        mode,
    )
    open_slices = await pool.fetchval(
        """
        SELECT coalesce(sum(open_nano_usd), 0) FROM billing.slices JOIN billing.accounts USING (account_id)
        WHERE mode = $1
        """,
        mode,
    )
    assert open_holds + open_slices == held, "held sums differ from the open holds and slices"
    return Books(
        posted["balance"],
        held,
        posted["revenue"],
        posted["platform_absorbed"],
        posted["funding"],
        posted.get("receivable", 0),
    )
