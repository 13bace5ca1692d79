"""Deliveries in Postgres: which attempt is due and whose it is, and what became of it.

A webhook has one attempt at a time, whoever makes it. Who makes it has the webhook until the claim ends; whoever dies
meanwhile leaves an attempt that somebody else repeats. Locks are taken in one order: the webhook, then its deliveries.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import asyncpg

from control_plane.database import Database, locked
from control_plane.webhooks.model import Delivery, DeliveryState, Fault

_COLUMNS: Final = """d.delivery_id AS id, d.event_id, v.type AS event_type, d.state, d.attempts, d.last_status, d.last_fault,
    d.next_attempt_at, d.created_at, d.ended_at"""


@dataclass(frozen=True, slots=True)
class Due:
    """An attempt to be made now.

    Attributes:
        attempt: which it is, counted from 1; no other has this number.
        first_attempt_at: when the first one of this round was made.
        sealed_secrets: what signs it; the newest first.
        data: JSON, as it was told.
    """

    delivery_id: str
    webhook_id: str
    org_id: str
    url: str
    attempt: int
    first_attempt_at: datetime
    sealed_secrets: tuple[bytes, ...] = field(repr=False)
    event_id: str
    event_type: str
    event_at: datetime
    data: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Result:
    """What an attempt has come to, and what follows.

    Attributes:
        next_attempt_at: None if there is none.
    """

    state: DeliveryState
    status: int | None
    fault: Fault | None
    next_attempt_at: datetime | None


async def take_due(pool: asyncpg.Pool, now: datetime, *, claimed_until: datetime, limit: int) -> list[Due]:
    """The attempts that are due, one for each webhook, those first whose webhooks have been idle longest."""
    async with pool.acquire() as db, db.transaction():
        idle = await db.fetch(
            """
            SELECT webhook_id FROM payments.webhooks w
            WHERE claimed_until <= $1 AND EXISTS (
                SELECT FROM payments.webhook_deliveries d
                WHERE d.webhook_id = w.webhook_id AND d.state = 'waiting' AND d.next_attempt_at <= $1)
            ORDER BY claimed_until LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
            """,
            now,
            limit,
        )
        if not idle:
            return []
        # Looked at once more under the locks: what was due may have been delivered since.
        taken = await db.fetch(
            """
            UPDATE payments.webhook_deliveries d
            SET attempts = attempts + 1, first_attempt_at = coalesce(first_attempt_at, $1)
            FROM payments.webhooks w, payments.webhook_events v
            WHERE w.webhook_id = d.webhook_id AND v.event_id = d.event_id AND d.delivery_id IN (
                SELECT oldest.delivery_id FROM unnest($2::text[]) AS idle (webhook_id) CROSS JOIN LATERAL (
                    SELECT delivery_id FROM payments.webhook_deliveries
                    WHERE webhook_id = idle.webhook_id AND state = 'waiting' AND next_attempt_at <= $1
                    ORDER BY next_attempt_at, seq LIMIT 1) oldest)
            RETURNING d.delivery_id, d.webhook_id, w.org_id, w.url, d.attempts AS attempt, d.first_attempt_at,
                      w.sealed_secret, CASE WHEN w.secret_before_until > $1 THEN w.sealed_secret_before END AS sealed_before,
                      d.event_id, v.type AS event_type, v.created_at AS event_at, v.data
            """,
            now,
            [row["webhook_id"] for row in idle],
        )
        await db.execute(
            "UPDATE payments.webhooks SET claimed_until = $2 WHERE webhook_id = ANY ($1)",
            [row["webhook_id"] for row in taken],
            claimed_until,
        )
    return [_due(row) for row in taken]


async def record(db: Database, due: Due, result: Result, *, now: datetime) -> bool:
    """Write down what an attempt has come to; its webhook is locked, and free for the next one.

    False if it is nobody's any more: the claim has ended and another attempt begun, or nothing was waited for.
    """
    is_ours = await db.fetchval(
        """
        UPDATE payments.webhook_deliveries
        SET state = $3, last_status = $4, last_fault = $5, next_attempt_at = $6,
            ended_at = CASE WHEN $3 <> 'waiting' THEN $7::timestamptz END
        WHERE delivery_id = $1 AND attempts = $2 AND state = 'waiting' RETURNING true
        """,
        due.delivery_id,
        due.attempt,
        result.state,
        result.status,
        result.fault,
        result.next_attempt_at,
        now,
    )
    if not is_ours:
        return False
    await db.execute(
        """
        UPDATE payments.webhooks SET claimed_until = $2, delivered_at = CASE WHEN $3 THEN $2 ELSE delivered_at END
        WHERE webhook_id = $1
        """,
        due.webhook_id,
        now,
        result.state is DeliveryState.DELIVERED,
    )
    return True


async def has_delivered_since(db: Database, webhook_id: str, since: datetime) -> bool:
    """Whether a webhook has taken anything since then."""
    found: bool | None = await db.fetchval(
        "SELECT delivered_at >= $2 FROM payments.webhooks WHERE webhook_id = $1", webhook_id, since
    )
    return found or False


async def find_delivery(
    db: Database, org_id: str, webhook_id: str, delivery_id: str, *, lock: bool = False
) -> Delivery | None:
    """One delivery to a webhook of an organisation."""
    row = await db.fetchrow(
        f"""
        SELECT {_COLUMNS} FROM payments.webhook_deliveries d JOIN payments.webhook_events v USING (event_id)
        WHERE d.delivery_id = $3 AND d.webhook_id = $2 AND v.org_id = $1 {locked("d") if lock else ""}
        """,  # noqa: S608 - a list of columns of ours
        org_id,
        webhook_id,
        delivery_id,
    )
    return None if row is None else Delivery.model_validate(dict(row))


async def list_deliveries(
    db: Database, webhook_id: str, *, before: int | None, limit: int
) -> list[tuple[int, Delivery]]:
    """Deliveries to a webhook, the latest first, each with its position."""
    rows = await db.fetch(
        f"""
        SELECT d.seq, {_COLUMNS} FROM payments.webhook_deliveries d JOIN payments.webhook_events v USING (event_id)
        WHERE d.webhook_id = $1 AND ($2::bigint IS NULL OR d.seq < $2) ORDER BY d.seq DESC LIMIT $3
        """,  # noqa: S608 - a list of columns of ours
        webhook_id,
        before,
        limit,
    )
    return [(row["seq"], Delivery.model_validate(dict(row))) for row in rows]


async def is_test_waiting(db: Database, webhook_id: str) -> bool:
    """Whether a test of a webhook is still to be delivered."""
    found: bool = await db.fetchval(
        """
        SELECT EXISTS (
            SELECT FROM payments.webhook_deliveries d JOIN payments.webhook_events v USING (event_id)
            WHERE d.webhook_id = $1 AND d.state = 'waiting' AND v.type = 'webhook.test')
        """,
        webhook_id,
    )
    return found


async def begin_again(db: Database, delivery_id: str, now: datetime) -> None:
    """Let a delivery that has ended wait once more, for as long as a new one would."""
    await db.execute(
        """
        UPDATE payments.webhook_deliveries
        SET state = 'waiting', first_attempt_at = NULL, next_attempt_at = $2, ended_at = NULL
        WHERE delivery_id = $1
        """,
        delivery_id,
        now,
    )


async def count_waiting(db: Database) -> int:
    """How many deliveries are still to be made, of all organisations."""
    count: int = await db.fetchval("SELECT count(*) FROM payments.webhook_deliveries WHERE state = 'waiting'")
    return count


def _due(row: asyncpg.Record) -> Due:
    values = dict(row)
    sealed = (values.pop("sealed_secret"), values.pop("sealed_before"))
    return Due(**values, sealed_secrets=tuple(each for each in sealed if each is not None))
