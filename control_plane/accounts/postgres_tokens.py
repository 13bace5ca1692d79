"""Machine tokens in Postgres (schema `accounts`), by their hash and by their id."""

from datetime import datetime

import asyncpg

from control_plane.accounts.actor import Actor, ActorKind
from control_plane.accounts.model import MachineToken
from control_plane.accounts.permissions import Permission
from control_plane.database import Database, Hold, written
from gateway_core.api_keys import KeyHash
from gateway_core.ids import OrgId

_PERMISSIONS = {permission.value: permission for permission in Permission}


async def find_actor(db: Database, token_hash: KeyHash, now: datetime, *, hold: Hold = Hold.NONE) -> Actor | None:
    """Who a token stands for, or None if it opens nothing. Held, it does not end before the transaction."""
    row = await db.fetchrow(
        f"""
        SELECT token_id, role, t.org_id, scopes, expires_at FROM accounts.machine_tokens t
        LEFT JOIN accounts.organizations o USING (org_id)
        WHERE token_hash = $1 AND t.disabled_at IS NULL AND o.disabled_at IS NULL
          AND (expires_at IS NULL OR expires_at > $2)
        {hold.of("t")}
        """,  # noqa: S608 - words of ours
        token_hash,
        now,
    )
    if row is None:
        return None
    scopes = row["scopes"]
    return Actor(
        ActorKind.TOKEN,
        row["token_id"],
        is_operator=row["role"] == "platform_operator",
        # A scope this version does not know opens nothing here.
        scopes=None if scopes is None else frozenset(_PERMISSIONS[name] for name in scopes if name in _PERMISSIONS),
        org_id=None if row["org_id"] is None else OrgId(row["org_id"]),
        expires_at=row["expires_at"],
    )


async def take_token(db: Database, token_id: str) -> MachineToken | None:
    """A token that has not ended, to end it. It does nothing more, nor makes another, until the end of the transaction."""
    row = await db.fetchrow(
        f"SELECT * FROM accounts.machine_tokens WHERE token_id = $1 AND disabled_at IS NULL {Hold.TAKEN}",  # noqa: S608 - words of ours
        token_id,
    )
    return None if row is None else token_of(row)


async def add_token(
    db: Database,
    *,
    token_id: str,
    token_hash: KeyHash,
    org_id: str | None,
    name: str,
    scopes: list[Permission] | None,
    expires_at: datetime | None,
    created_by: str,
) -> MachineToken:
    """Write a new one."""
    row = await db.fetchrow(
        """
        INSERT INTO accounts.machine_tokens (token_id, name, token_hash, role, org_id, scopes, expires_at, created_by)
        VALUES ($1, $2, $3, CASE WHEN $4::text IS NULL THEN 'platform_operator' ELSE 'organization' END, $4, $5, $6, $7)
        RETURNING *
        """,
        token_id,
        name,
        token_hash,
        org_id,
        scopes,
        expires_at,
        created_by,
    )
    return token_of(written(row))


async def list_tokens(
    db: Database, org_id: str | None, *, after: int | None, limit: int
) -> list[tuple[int, MachineToken]]:
    """Tokens of an organisation, or those of the platform, oldest first, each with its position."""
    rows = await db.fetch(
        """
        SELECT * FROM accounts.machine_tokens
        WHERE org_id IS NOT DISTINCT FROM $1 AND disabled_at IS NULL AND seq > coalesce($2, 0) ORDER BY seq LIMIT $3
        """,
        org_id,
        after,
        limit,
    )
    return [(row["seq"], token_of(row)) for row in rows]


def token_of(row: asyncpg.Record) -> MachineToken:
    """The token of a row of the table."""
    return MachineToken.model_validate(
        {
            **row,
            "id": row["token_id"],
            "scopes": None if row["scopes"] is None else [name for name in row["scopes"] if name in _PERMISSIONS],
        }
    )
