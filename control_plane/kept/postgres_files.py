"""The files of an organisation (schema `billing`, which billing_sink writes)."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import asyncpg

from gateway_core.ids import OrgId
from gateway_core.kept import KeptKind, ObjectId
from gateway_core.mode import Mode


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One that a provider keeps, as the provider has described it when it was made, in JSON."""

    object_id: ObjectId
    about: str


class Place(NamedTuple):
    """Where in a list an item is."""

    created_at: datetime
    object_id: ObjectId


async def find_place(pool: asyncpg.Pool, org_id: OrgId, mode: Mode, object_id: ObjectId) -> Place | None:
    """Where an organisation's file is, also one that is kept no longer."""
    row = await pool.fetchrow(
        """
        SELECT created_at, object_id FROM billing.kept_objects
        WHERE mode = $1 AND object_id = $2 AND org_id = $3 AND kind = $4
        """,
        *(mode, object_id, org_id, KeptKind.FILE),
    )
    return None if row is None else Place(row["created_at"], ObjectId(row["object_id"]))


async def list_files(
    pool: asyncpg.Pool,
    org_id: OrgId,
    mode: Mode,
    *,
    purpose: str | None,
    after: Place | None,
    newest_first: bool,
    limit: int,
    now: datetime,
) -> list[KeptFile]:
    """Those behind a place, in the order of their making."""
    query = _NEWEST_FIRST if newest_first else _OLDEST_FIRST
    rows = await pool.fetch(
        query,
        *(org_id, mode, KeptKind.FILE, now, purpose),
        *(after or (None, None)),
        limit,
    )
    return [KeptFile(ObjectId(row["object_id"]), row["about"]) for row in rows]


_FILES = """
    SELECT object_id, about FROM billing.kept_objects
    WHERE org_id = $1 AND mode = $2 AND kind = $3 AND forgotten_at IS NULL AND (expires_at IS NULL OR expires_at > $4)
        AND ($5::text IS NULL OR about::json ->> 'purpose' = $5)
"""
_NEWEST_FIRST = (
    _FILES
    + """
    AND ($6::timestamptz IS NULL OR (created_at, object_id) < ($6, $7::text))
    ORDER BY created_at DESC, object_id DESC LIMIT $8
"""
)
_OLDEST_FIRST = (
    _FILES
    + """
    AND ($6::timestamptz IS NULL OR (created_at, object_id) > ($6, $7::text))
    ORDER BY created_at, object_id LIMIT $8
"""
)
