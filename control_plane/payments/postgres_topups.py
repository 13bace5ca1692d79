"""Top-ups in Postgres: what was asked for. That they are paid is written by `postgres_stripe_events`."""

import asyncpg

from control_plane.accounts.actor import Actor
from control_plane.database import Database, written
from control_plane.payments.model import TopUp, TopUpState, from_cents
from gateway_core.money import format_usd


async def add_topup(db: Database, *, topup_id: str, org_id: str, cents: int, session_id: str, actor: Actor) -> TopUp:
    """Write down a top-up that is to be paid in a session at Stripe."""
    row = await db.fetchrow(
        """
        INSERT INTO payments.topups (topup_id, org_id, amount_cents, session_id, actor_kind, actor_id)
        VALUES ($1, $2, $3, $4, $5, $6) RETURNING *
        """,
        topup_id,
        org_id,
        cents,
        session_id,
        actor.kind,
        actor.actor_id,
    )
    return _topup(written(row))


async def find_topup(db: Database, org_id: str, topup_id: str) -> TopUp | None:
    """One top-up of an organisation."""
    row = await db.fetchrow("SELECT * FROM payments.topups WHERE org_id = $1 AND topup_id = $2", org_id, topup_id)
    return None if row is None else _topup(row)


async def list_topups(db: Database, org_id: str, *, before: int | None, limit: int) -> list[tuple[int, TopUp]]:
    """Top-ups of an organisation, the latest first, each with its position."""
    rows = await db.fetch(
        """
        SELECT * FROM payments.topups WHERE org_id = $1 AND ($2::bigint IS NULL OR seq < $2)
        ORDER BY seq DESC LIMIT $3
        """,
        org_id,
        before,
        limit,
    )
    return [(row["seq"], _topup(row)) for row in rows]


def _topup(row: asyncpg.Record) -> TopUp:
    return TopUp(
        id=row["topup_id"],
        amount=format_usd(from_cents(row["amount_cents"])),
        state=_state(row),
        automatic=row["session_id"] is None,
        failure=row["failure"],
        created_at=row["created_at"],
        paid_at=row["paid_at"],
    )


def _state(row: asyncpg.Record) -> TopUpState:
    if row["paid_at"] is not None:
        return TopUpState.PAID
    return TopUpState.OPEN if row["failed_at"] is None else TopUpState.FAILED
