"""Whose it is what providers keep (schema `billing`), which billing_sink writes."""

from collections.abc import Collection
from datetime import datetime

import asyncpg

from ext_authz.kept import Files, Owned, Place
from gateway_core.ids import OrgId, ProviderName
from gateway_core.kept import KeptKind, KeptName, ObjectId
from gateway_core.mode import Mode


class PostgresKept:
    """Asked for every request: what is gone, is gone at once."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def find(self, org_id: OrgId, mode: Mode, names: Collection[KeptName]) -> Owned:
        """Those of the names that are an organisation's."""
        rows = await self._pool.fetch(
            """
            SELECT kind, object_id, provider FROM billing.kept_objects
            WHERE mode = $1 AND object_id = ANY($2) AND org_id = $3 AND forgotten_at IS NULL
            """,
            *(mode, [name.object_id for name in names], org_id),
        )
        return {
            KeptName(KeptKind(row["kind"]), ObjectId(row["object_id"])): Place(
                None if row["provider"] is None else ProviderName(row["provider"])
            )
            for row in rows
        }

    async def files(self, org_id: OrgId, mode: Mode, now: datetime) -> Files:
        """Those that are kept for an organisation."""
        [row] = await self._pool.fetch("SELECT * FROM billing.kept_files($1, $2, $3)", org_id, mode, now)
        return Files(row["files"], row["bytes"])
