"""Organisations' own keys for providers, in Postgres."""

from dataclasses import dataclass
from typing import Final

import asyncpg

from control_plane.catalog.resources import OwnKey
from control_plane.database import Database, written
from gateway_core.ids import OrgId

_COLUMNS: Final = """provider, hint, fallback, revision, changed_at, seq,
    coalesce((SELECT state FROM catalog.operations o WHERE o.revision = k.revision), 'applied') AS state"""


async def find_own_key(db: Database, org_id: OrgId, provider: str) -> OwnKey | None:
    """One of them."""
    row = await db.fetchrow(
        f"SELECT {_COLUMNS} FROM catalog.own_keys k WHERE org_id = $1 AND provider = $2",  # noqa: S608 - columns
        org_id,
        provider,
    )
    return None if row is None else _own_key(row)


async def list_own_keys(db: Database, org_id: OrgId, *, after: int | None, limit: int) -> list[tuple[int, OwnKey]]:
    """Those of an organisation, oldest first, each with its position."""
    rows = await db.fetch(
        f"""
        SELECT {_COLUMNS} FROM catalog.own_keys k WHERE org_id = $1 AND seq > coalesce($2, 0) ORDER BY seq LIMIT $3
        """,  # noqa: S608 - columns
        org_id,
        after,
        limit,
    )
    return [(row["seq"], _own_key(row)) for row in rows]


@dataclass(frozen=True, slots=True)
class OwnKeyCounts:
    """How many there are.

    Attributes:
        in_org: of an organisation.
        of_owner: of all organisations that one of its owners has; of the owner with the most.
        together: of all.
    """

    in_org: int
    of_owner: int
    together: int


async def count_own_keys(db: Database, org_id: OrgId) -> OwnKeyCounts:
    """How many an organisation has, its owners have, and all have together."""
    row = written(
        await db.fetchrow(
            """
            SELECT count(*) FILTER (WHERE org_id = $1) AS in_org, count(*) AS together,
                coalesce((
                    SELECT max(owned.count) FROM (
                        SELECT count(*) FROM accounts.memberships owner
                        JOIN accounts.memberships theirs ON theirs.user_id = owner.user_id AND theirs.role = 'owner'
                        JOIN catalog.own_keys k ON k.org_id = theirs.org_id
                        WHERE owner.org_id = $1 AND owner.role = 'owner' GROUP BY owner.user_id
                    ) owned
                ), 0) AS of_owner
            FROM catalog.own_keys
            """,
            org_id,
        )
    )
    return OwnKeyCounts(**row)


async def put_own_key(
    db: Database, org_id: OrgId, provider: str, *, sealed_credential: bytes | None, hint: str | None, fallback: bool
) -> OwnKey:
    """Give an organisation a key, or change it; without a credential it keeps the one it has."""
    row = await db.fetchrow(
        f"""
        INSERT INTO catalog.own_keys AS k (org_id, provider, credential, hint, fallback)
        SELECT $1, $2, coalesce($3, before.credential), coalesce($4, before.hint), $5
        FROM (VALUES (1)) one LEFT JOIN catalog.own_keys before ON before.org_id = $1 AND before.provider = $2
        ON CONFLICT (org_id, provider) DO UPDATE SET credential = excluded.credential, hint = excluded.hint,
            fallback = excluded.fallback, changed_at = now()
        RETURNING {_COLUMNS}
        """,  # noqa: S608 - columns
        org_id,
        provider,
        sealed_credential,
        hint,
        fallback,
    )
    return _own_key(written(row))


async def delete_own_key(db: Database, org_id: OrgId, provider: str) -> None:
    """Take it away."""
    await db.execute("DELETE FROM catalog.own_keys WHERE org_id = $1 AND provider = $2", org_id, provider)


def _own_key(row: asyncpg.Record) -> OwnKey:
    return OwnKey.model_validate(dict(row))
