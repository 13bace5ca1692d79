"""Machine tokens in Postgres (schema `accounts`), looked up by their hash."""

import asyncpg

from gateway_core.api_keys import KeyHash


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
