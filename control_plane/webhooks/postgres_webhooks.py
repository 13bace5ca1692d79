"""Webhooks in Postgres, as their organisation manages them. Secrets are sealed before they come here."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from control_plane.database import Database, locked, written
from control_plane.webhooks.model import DisabledBecause, EventType, Fault, Webhook

_COLUMNS: Final = """webhook_id AS id, org_id, url, event_types, is_enabled AS enabled, disabled_because,
    secret_before_until AS previous_secret_until, created_at, revision"""


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """What an organisation decides about a webhook; no event types are all of them."""

    url: str
    event_types: list[EventType]
    enabled: bool


async def add_webhook(
    db: Database, *, webhook_id: str, org_id: str, settings: WebhookSettings, sealed_secret: bytes
) -> Webhook:
    """Write a new webhook."""
    row = await db.fetchrow(
        f"""
        INSERT INTO payments.webhooks (webhook_id, org_id, url, event_types, is_enabled, sealed_secret)
        VALUES ($1, $2, $3, $4, $5, $6) RETURNING {_COLUMNS}
        """,  # noqa: S608 - a list of columns of ours
        webhook_id,
        org_id,
        settings.url,
        settings.event_types,
        settings.enabled,
        sealed_secret,
    )
    return _webhook(written(row))


async def count_webhooks(db: Database, org_id: str) -> int:
    """How many an organisation has; until the end of the transaction it gets no other."""
    await db.execute(
        f"SELECT FROM accounts.organizations WHERE org_id = $1 {locked()}",
        org_id,
    )
    count: int = await db.fetchval("SELECT count(*) FROM payments.webhooks WHERE org_id = $1", org_id)
    return count


async def find_webhook(db: Database, org_id: str, webhook_id: str, *, lock: bool = False) -> Webhook | None:
    """One webhook of an organisation. Locked, it stays as it is until the end of the transaction."""
    row = await db.fetchrow(
        f"""
        SELECT {_COLUMNS} FROM payments.webhooks
        WHERE org_id = $1 AND webhook_id = $2 {locked() if lock else ""}
        """,  # noqa: S608 - a list of columns of ours
        org_id,
        webhook_id,
    )
    return None if row is None else _webhook(row)


async def list_webhooks(db: Database, org_id: str, *, after: int | None, limit: int) -> list[tuple[int, Webhook]]:
    """Webhooks of an organisation, oldest first, each with its position."""
    rows = await db.fetch(
        f"""
        SELECT seq, {_COLUMNS} FROM payments.webhooks
        WHERE org_id = $1 AND seq > coalesce($2, 0) ORDER BY seq LIMIT $3
        """,  # noqa: S608 - a list of columns of ours
        org_id,
        after,
        limit,
    )
    return [(row["seq"], _webhook(row)) for row in rows]


async def change_webhook(
    db: Database,
    webhook_id: str,
    settings: WebhookSettings,
    *,
    now: datetime,
    disabled_because: DisabledBecause | None = None,
) -> Webhook:
    """Write the settings of a webhook, which is locked. Disabled, it has nothing waiting any more."""
    row = await db.fetchrow(
        f"""
        UPDATE payments.webhooks
        SET url = $2, event_types = $3, is_enabled = $4, disabled_because = $5, revision = revision + 1
        WHERE webhook_id = $1 RETURNING {_COLUMNS}
        """,  # noqa: S608 - a list of columns of ours
        webhook_id,
        settings.url,
        settings.event_types,
        settings.enabled,
        disabled_because,
    )
    if not settings.enabled:
        await db.execute(
            """
            UPDATE payments.webhook_deliveries
            SET state = 'failed', next_attempt_at = NULL, ended_at = $2, last_status = NULL, last_fault = $3
            WHERE webhook_id = $1 AND state = 'waiting'
            """,
            webhook_id,
            now,
            Fault.DISABLED,
        )
    return _webhook(written(row))


async def rotate_secret(db: Database, webhook_id: str, sealed_secret: bytes, *, before_until: datetime) -> Webhook:
    """Put a new secret in the place of a webhook's; the old one signs as well until then."""
    row = await db.fetchrow(
        f"""
        UPDATE payments.webhooks
        SET sealed_secret_before = sealed_secret, secret_before_until = $3, sealed_secret = $2, revision = revision + 1
        WHERE webhook_id = $1 RETURNING {_COLUMNS}
        """,  # noqa: S608 - a list of columns of ours
        webhook_id,
        sealed_secret,
        before_until,
    )
    return _webhook(written(row))


async def delete_webhook(db: Database, webhook_id: str) -> None:
    """Remove a webhook and its deliveries."""
    await db.execute("DELETE FROM payments.webhooks WHERE webhook_id = $1", webhook_id)


def _webhook(row: asyncpg.Record) -> Webhook:
    return Webhook.model_validate(dict(row))
