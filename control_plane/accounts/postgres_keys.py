"""API keys and machine tokens in Postgres (schema `accounts`), looked up by their hash."""

from dataclasses import dataclass

import asyncpg

from gateway_core.api_keys import KeyHash
from gateway_core.ids import KeyId, OrgId


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Who a valid API key belongs to. `models_allowed` are shell-style patterns; none means every model."""

    key_id: KeyId
    org_id: OrgId
    models_allowed: tuple[str, ...]


async def find_key_owner(pool: asyncpg.Pool, key_hash: KeyHash) -> KeyOwner | None:
    """The owner of a key that is neither disabled nor expired, or None."""
    row = await pool.fetchrow(
        """
        SELECT key.key_id, key.org_id, key.models_allowed
        FROM accounts.api_keys key JOIN accounts.organizations org USING (org_id)
        WHERE key.key_hash = $1 AND key.disabled_at IS NULL AND org.disabled_at IS NULL
          AND (key.expires_at IS NULL OR key.expires_at > now())
        """,
        key_hash,
    )
    if row is None:
        return None
    return KeyOwner(KeyId(row["key_id"]), OrgId(row["org_id"]), tuple(row["models_allowed"]))


async def is_operator(pool: asyncpg.Pool, token_hash: KeyHash) -> bool:
    """Whether a machine token carries the role of platform operator."""
    found = await pool.fetchval(
        """
        SELECT 1 FROM accounts.machine_tokens
        WHERE token_hash = $1 AND role = 'platform_operator' AND disabled_at IS NULL
        """,
        token_hash,
    )
    return found is not None
