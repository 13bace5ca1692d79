"""The outbox: events, each with a delivery for every webhook that wants it, in the transaction of what they tell."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from control_plane.database import Database
from control_plane.resource import Resource
from control_plane.webhooks.model import EventType, Webhook

KEPT: Final = timedelta(days=30)


async def emit(db: Database, org_id: str, event_type: EventType, data: Resource) -> None:
    """Tell an organisation's webhooks that something has happened, if and when the transaction commits.

    Args:
        db: the transaction in which it happens.
        org_id: to whom.
        event_type: what.
        data: the thing as the API shows it; no secret is in it.
    """
    # Kept as they are until the end: one that is disabled or removed meanwhile has nothing waiting.
    wanting = await db.fetch(
        """
        SELECT webhook_id FROM payments.webhooks
        WHERE org_id = $1 AND is_enabled AND (event_types = '{}' OR $2 = ANY (event_types)) ORDER BY webhook_id FOR SHARE
        """,
        org_id,
        event_type,
    )
    if wanting:
        await _write(db, org_id, event_type, data, [row["webhook_id"] for row in wanting])


async def emit_test(db: Database, webhook: Webhook) -> str:
    """Tell one webhook, whatever it wants, that it is being tried out. The delivery; the webhook is locked."""
    [delivery_id] = await _write(db, webhook.org_id, EventType.WEBHOOK_TEST, webhook, [webhook.id])
    return delivery_id


async def forget_old_events(db: Database, now: datetime) -> None:
    """Remove events that are older than is promised, and their deliveries."""
    await db.execute("DELETE FROM payments.webhook_events WHERE created_at < $1", now - KEPT)


async def _write(
    db: Database, org_id: str, event_type: EventType, data: Resource, webhook_ids: Sequence[str]
) -> list[str]:
    rows = await db.fetch(
        """
        WITH event AS (
            INSERT INTO payments.webhook_events (org_id, type, data) VALUES ($1, $2, $3) RETURNING event_id)
        INSERT INTO payments.webhook_deliveries (event_id, webhook_id)
        SELECT event_id, webhook_id FROM event, unnest($4::text[]) AS webhook_id RETURNING delivery_id
        """,
        org_id,
        event_type,
        data.model_dump_json(),
        webhook_ids,
    )
    return [row["delivery_id"] for row in rows]
