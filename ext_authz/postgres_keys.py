"""Keys from Postgres (schema `accounts`), which control_plane writes."""

import asyncpg

from ext_authz.keys import ApiKey
from gateway_core.api_keys import KeyHash
from gateway_core.ids import KeyId, OrgId, ProjectId


class PostgresKeys:
    """Looks up one key at a time, by the hash."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def find(self, key_hash: KeyHash) -> ApiKey | None:
        """The key with this hash, or None."""
        row = await self._pool.fetchrow(
            """
            SELECT key.key_id, key.org_id, key.project_id, key.models_allowed, key.expires_at,
                   key.disabled_at IS NOT NULL OR org.disabled_at IS NOT NULL AS disabled
            FROM accounts.api_keys key JOIN accounts.organizations org USING (org_id)
            WHERE key.key_hash = $1
            """,
            key_hash,
        )
        if row is None:
            return None
        return ApiKey(
            key_id=KeyId(row["key_id"]),
            org_id=OrgId(row["org_id"]),
            project_id=ProjectId(row["project_id"]),
            models_allowed=tuple(row["models_allowed"]),
            disabled=row["disabled"],
            expires_at=row["expires_at"],
        )
