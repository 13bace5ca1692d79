"""What an organisation wants to be done when its balance runs low, and whose balance has."""

from dataclasses import dataclass
from datetime import datetime

from control_plane.database import Database, locked, written
from control_plane.payments.model import (
    AutomaticTopUp,
    LowBalanceNotice,
    PaymentSettings,
    PaymentSettingsSpec,
    from_cents,
    to_cents,
)
from control_plane.payments.stripe_events import PaymentMethod
from gateway_core.money import format_usd, parse_usd

_AVAILABLE = """
    (SELECT posted_nano_usd - held_nano_usd FROM billing.accounts
     WHERE kind = 'balance' AND org_id = s.org_id AND mode = 'live')
"""

_NEEDS_TOPUP = f"""
    {_AVAILABLE} < s.topup_below_nano_usd
    AND (s.topup_paused_until IS NULL OR s.topup_paused_until <= $1)
    AND EXISTS (SELECT FROM payments.payment_methods m WHERE m.org_id = s.org_id)
    AND EXISTS (SELECT FROM accounts.organizations o WHERE o.org_id = s.org_id AND o.disabled_at IS NULL)
    AND NOT EXISTS (SELECT FROM payments.topups t WHERE t.org_id = s.org_id
                    AND t.session_id IS NULL AND t.paid_at IS NULL AND t.failed_at IS NULL)
    AND s.topup_cents + (
        SELECT coalesce(sum(t.amount_cents), 0) FROM payments.topups t
        WHERE t.org_id = s.org_id AND t.session_id IS NULL AND t.failed_at IS NULL
          AND t.created_at >= date_trunc('month', $1::timestamptz, 'UTC')) <= s.topup_month_cents_max
"""  # noqa: S608 - an expression of ours


@dataclass(frozen=True, slots=True)
class Due:
    """An automatic top-up that is to be asked for, for the first time or again."""

    topup_id: str
    org_id: str
    cents: int
    created_at: datetime
    method: PaymentMethod


async def find_settings(db: Database, org_id: str, *, lock: bool = False) -> PaymentSettings:
    """The settings of an organisation; without any, nothing is done and the revision is 0."""
    row = await db.fetchrow(
        f"SELECT * FROM payments.settings WHERE org_id = $1 {locked() if lock else ''}",  # noqa: S608 - words of ours
        org_id,
    )
    has_method = await db.fetchval("SELECT true FROM payments.payment_methods WHERE org_id = $1", org_id) or False
    if row is None:
        return PaymentSettings(
            revision=0, low_balance=None, automatic_topup=None, has_payment_method=has_method, paused_until=None
        )
    low, below = row["low_balance_nano_usd"], row["topup_below_nano_usd"]
    return PaymentSettings(
        revision=row["revision"],
        low_balance=None if low is None else format_usd(low),
        automatic_topup=None
        if below is None
        else AutomaticTopUp(
            below=format_usd(below),
            amount=format_usd(from_cents(row["topup_cents"])),
            month_max=format_usd(from_cents(row["topup_month_cents_max"])),
        ),
        has_payment_method=has_method,
        paused_until=row["topup_paused_until"],
    )


async def write_settings(db: Database, org_id: str, spec: PaymentSettingsSpec) -> PaymentSettings:
    """Replace the settings of an organisation. A pause after a failure ends."""
    topup = spec.automatic_topup
    await db.execute(
        """
        INSERT INTO payments.settings AS s (
            org_id, low_balance_nano_usd, topup_below_nano_usd, topup_cents, topup_month_cents_max)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (org_id) DO UPDATE SET
            low_balance_nano_usd = EXCLUDED.low_balance_nano_usd, is_low_balance_told = false,
            topup_below_nano_usd = EXCLUDED.topup_below_nano_usd, topup_cents = EXCLUDED.topup_cents,
            topup_month_cents_max = EXCLUDED.topup_month_cents_max, topup_paused_until = NULL, revision = s.revision + 1
        """,
        org_id,
        None if spec.low_balance is None else parse_usd(spec.low_balance),
        None if topup is None else parse_usd(topup.below),
        None if topup is None else to_cents(topup.amount),
        None if topup is None else to_cents(topup.month_max),
    )
    return await find_settings(db, org_id)


async def take_low_balances(db: Database) -> list[tuple[str, LowBalanceNotice]]:
    """Organisations whose balance has run low and that have not been told; from now on they have. In a transaction."""
    await db.execute(
        f"""
        UPDATE payments.settings s SET is_low_balance_told = false
        WHERE is_low_balance_told AND {_AVAILABLE} >= low_balance_nano_usd
        """  # noqa: S608 - an expression of ours
    )
    rows = await db.fetch(
        f"""
        UPDATE payments.settings s SET is_low_balance_told = true
        WHERE NOT is_low_balance_told AND {_AVAILABLE} < low_balance_nano_usd
        RETURNING org_id, {_AVAILABLE} AS available, low_balance_nano_usd
        """  # noqa: S608 - an expression of ours
    )
    return [
        (
            row["org_id"],
            LowBalanceNotice(
                available=format_usd(row["available"]), low_balance=format_usd(row["low_balance_nano_usd"])
            ),
        )
        for row in rows
    ]


async def begin_topup(db: Database, topup_id: str, now: datetime) -> str | None:
    """Write down an automatic top-up for an organisation that needs one, and say for which. None if nobody does.

    In a transaction. One at a time for each organisation, and never more in a calendar month than it allows; what is under
    way counts as paid.
    """
    org_id: str | None = await db.fetchval(
        f"SELECT org_id FROM payments.settings s WHERE {_NEEDS_TOPUP} LIMIT 1 {locked('s')} SKIP LOCKED",  # noqa: S608 - words of ours
        now,
    )
    if org_id is None:
        return None
    # Looked at once more under the lock: whoever had it before may have begun one.
    begun = await db.fetchval(
        f"""
        INSERT INTO payments.topups (topup_id, org_id, amount_cents, actor_kind, actor_id, asked_at, created_at)
        SELECT $2, s.org_id, s.topup_cents, 'system', 'automatic_topup', '-infinity', $1
        FROM payments.settings s WHERE s.org_id = $3 AND {_NEEDS_TOPUP} ON CONFLICT DO NOTHING RETURNING true
        """,  # noqa: S608 - an expression of ours
        now,
        topup_id,
        org_id,
    )
    return org_id if begun else None


async def take_due(db: Database, now: datetime, ask_again_before: datetime) -> Due | None:
    """An automatic top-up that nobody is asking for: a new one, or one whose asker has died or got no answer."""
    row = await db.fetchrow(
        """
        UPDATE payments.topups t SET asked_at = $1
        FROM payments.payment_methods m
        WHERE m.org_id = t.org_id AND t.topup_id = (
            SELECT topup_id FROM payments.topups
            WHERE session_id IS NULL AND paid_at IS NULL AND failed_at IS NULL AND asked_at <= $2
            ORDER BY seq LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING t.topup_id, t.org_id, t.amount_cents, t.created_at, m.customer, m.payment_method
        """,
        now,
        ask_again_before,
    )
    if row is None:
        return None
    return Due(
        row["topup_id"],
        row["org_id"],
        row["amount_cents"],
        row["created_at"],
        PaymentMethod(row["customer"], row["payment_method"]),
    )


async def await_word(db: Database, topup_id: str) -> None:
    """Write down that Stripe has taken a top-up: it is not asked for again, and its payment is told like every other."""
    await db.execute("UPDATE payments.topups SET asked_at = 'infinity' WHERE topup_id = $1", topup_id)


async def fail_topup(db: Database, topup_id: str, failure: str, *, now: datetime, paused_until: datetime) -> bool:
    """Write down that an automatic top-up will not be paid, and leave its organisation alone for a while.

    In a transaction. False if it has been paid meanwhile, or has failed.
    """
    org_id = await db.fetchval(
        """
        UPDATE payments.topups SET failed_at = $3, failure = $2
        WHERE topup_id = $1 AND paid_at IS NULL AND failed_at IS NULL RETURNING org_id
        """,
        topup_id,
        failure,
        now,
    )
    if org_id is None:
        return False
    written(
        await db.fetchrow(
            "UPDATE payments.settings SET topup_paused_until = $2 WHERE org_id = $1 RETURNING true",
            org_id,
            paused_until,
        )
    )
    return True
