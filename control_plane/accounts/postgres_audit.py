"""The audit log in Postgres: written with the change, never changed after it."""

import json

import asyncpg

from control_plane.accounts.actor import Actor
from control_plane.accounts.model import AuditEntry, Resource
from control_plane.database import Database


async def write_entry(
    db: Database,
    *,
    actor: Actor,
    org_id: str | None,
    action: str,
    target_id: str,
    before: Resource | None,
    after: Resource | None,
    request_id: str,
) -> None:
    """Add one entry. Resources hold no secrets, so none gets in here."""
    await db.execute(
        """
        INSERT INTO accounts.audit_log (org_id, actor_kind, actor_id, action, target_id, before, after, request_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        org_id,
        actor.kind,
        actor.actor_id,
        action,
        target_id,
        before and before.model_dump_json(),
        after and after.model_dump_json(),
        request_id,
    )


async def list_entries(db: Database, *, org_id: str | None, before_seq: int | None, limit: int) -> list[AuditEntry]:
    """Entries of an organisation (None: of all and of the platform), newest first."""
    rows = await db.fetch(
        """
        SELECT * FROM accounts.audit_log
        WHERE ($1::text IS NULL OR org_id = $1) AND ($2::bigint IS NULL OR seq < $2)
        ORDER BY seq DESC LIMIT $3
        """,
        org_id,
        before_seq,
        limit,
    )
    return [_entry(row) for row in rows]


def _entry(row: asyncpg.Record) -> AuditEntry:
    documents = {name: row[name] and json.loads(row[name]) for name in ("before", "after")}
    return AuditEntry.model_validate({**row, **documents})
