"""The audit log in Postgres: written with the change, never changed after it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import asyncpg
from pydantic import JsonValue

from control_plane.accounts.actor import Actor
from control_plane.accounts.model import AuditEntry
from control_plane.database import Database
from control_plane.resource import Resource


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


@dataclass(frozen=True, slots=True)
class Entry:
    """A change among several of one call; `before` and `after` hold no secrets."""

    action: str
    target_id: str
    before: Mapping[str, JsonValue] | None
    after: Mapping[str, JsonValue] | None


async def write_entries(db: Database, entries: Sequence[Entry], *, actor: Actor, request_id: str) -> None:
    """Add many entries at once, of no organisation."""
    rows = [asdict(entry) | {"seq": number} for number, entry in enumerate(entries)]
    await db.execute(
        """
        INSERT INTO accounts.audit_log (actor_kind, actor_id, action, target_id, before, after, request_id)
        SELECT $2, $3, r.action, r.target_id, r.before, r.after, $4
        FROM jsonb_to_recordset($1) AS r (seq integer, action text, target_id text, before jsonb, after jsonb)
        ORDER BY r.seq
        """,
        json.dumps(rows),
        actor.kind,
        actor.actor_id,
        request_id,
    )


async def list_entries(
    db: Database, *, org_id: str | None, before_seq: int | None, limit: int
) -> list[tuple[int, AuditEntry]]:
    """Entries of an organisation (None: of all and of the platform), newest first, each with its position."""
    rows = await db.fetch(
        """
        SELECT l.*, coalesce(u.email, t.name) AS actor FROM accounts.audit_log l
        LEFT JOIN accounts.users u
            ON l.actor_kind = 'user' AND u.user_id = l.actor_id AND ($1::text IS NULL OR NOT u.is_operator)
        LEFT JOIN accounts.machine_tokens t
            ON l.actor_kind = 'token' AND t.token_id = l.actor_id AND ($1::text IS NULL OR t.org_id = $1)
        WHERE ($1::text IS NULL OR l.org_id = $1) AND ($2::bigint IS NULL OR l.seq < $2)
        ORDER BY l.seq DESC LIMIT $3
        """,
        org_id,
        before_seq,
        limit,
    )
    return [(row["seq"], _entry(row)) for row in rows]


def _entry(row: asyncpg.Record) -> AuditEntry:
    documents = {name: row[name] and json.loads(row[name]) for name in ("before", "after")}
    return AuditEntry.model_validate({**row, **documents})
