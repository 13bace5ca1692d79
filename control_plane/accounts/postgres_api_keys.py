"""API keys in Postgres, as their organisation manages them. Every write is announced to whoever remembers keys."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from control_plane.accounts.budgets import budgets_shown
from control_plane.accounts.model import Key
from control_plane.database import Database, locked, written
from gateway_core.api_keys import KeyHash
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd

_COLUMNS: Final = """key_id AS id, org_id, project_id, name, mode, hint, models_allowed, ip_allowed::text[] AS ip_allowed,
    budget_per_day_nano_usd, budget_per_month_nano_usd, requests_per_minute_max, tokens_per_minute_max, concurrency_max,
    disabled_at IS NOT NULL AS disabled, expires_at, previous_valid_until, last_used_at, created_at, revision"""


@dataclass(frozen=True, slots=True)
class KeySettings:
    """What the owner of a key decides about it."""

    name: str
    models_allowed: list[str]
    ip_allowed: list[str]
    budget_per_day_nano_usd: NanoUsd | None
    budget_per_month_nano_usd: NanoUsd | None
    requests_per_minute_max: int | None
    tokens_per_minute_max: int | None
    concurrency_max: int | None
    disabled: bool
    expires_at: datetime | None


KEYS_PER_ORG_MAX: Final = 10_000
"""Keys that work or can work again: neither revoked nor expired."""


async def has_room(db: Database, org_id: str, now: datetime) -> bool:
    """Whether an organisation may have one more key. Nobody else adds one to it until the transaction ends."""
    await db.execute(f"SELECT FROM accounts.organizations WHERE org_id = $1 {locked()}", org_id)
    keys: int = await db.fetchval(
        """
        SELECT count(*) FROM accounts.api_keys
        WHERE org_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)
        """,
        org_id,
        now,
    )
    return keys < KEYS_PER_ORG_MAX


async def add_key(
    db: Database,
    *,
    key_id: str,
    org_id: str,
    project_id: str,
    mode: Mode,
    key_hash: KeyHash,
    hint: str,
    created_by: str,
    settings: KeySettings,
) -> Key:
    """Write a new key."""
    await db.execute(
        """
        INSERT INTO accounts.api_keys (key_id, org_id, project_id, name, mode, key_hash, hint, created_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        key_id,
        org_id,
        project_id,
        settings.name,
        mode,
        key_hash,
        hint,
        created_by,
    )
    return await change_key(db, key_id, settings, is_new=True)


async def change_key(db: Database, key_id: str, settings: KeySettings, *, is_new: bool = False) -> Key:
    """Write a key's settings."""
    row = await db.fetchrow(
        f"""
        UPDATE accounts.api_keys SET
            name = $2, models_allowed = $3, ip_allowed = $4::text[]::cidr[], budget_per_day_nano_usd = $5,
            budget_per_month_nano_usd = $6, requests_per_minute_max = $7, tokens_per_minute_max = $8,
            concurrency_max = $9, disabled_at = CASE WHEN $10 THEN coalesce(disabled_at, now()) END, expires_at = $11,
            revision = revision + CASE WHEN $12 THEN 0 ELSE 1 END
        WHERE key_id = $1 RETURNING {_COLUMNS}
        """,  # noqa: S608 - a list of columns of ours
        key_id,
        settings.name,
        settings.models_allowed,
        settings.ip_allowed,
        settings.budget_per_day_nano_usd,
        settings.budget_per_month_nano_usd,
        settings.requests_per_minute_max,
        settings.tokens_per_minute_max,
        settings.concurrency_max,
        settings.disabled,
        settings.expires_at,
        is_new,
    )
    return _key(written(row))


async def find_key(db: Database, org_id: str, key_id: str, *, lock: bool = False) -> Key | None:
    """A key that is not revoked. Locked, it stays as it is until the end of the transaction."""
    row = await db.fetchrow(
        f"""
        SELECT {_COLUMNS} FROM accounts.api_keys
        WHERE org_id = $1 AND key_id = $2 AND revoked_at IS NULL {locked("") if lock else ""}
        """,  # noqa: S608 - a list of columns of ours
        org_id,
        key_id,
    )
    return None if row is None else _key(row)


async def list_keys(db: Database, org_id: str, *, after: int | None, limit: int) -> list[tuple[int, Key]]:
    """Keys of an organisation that are not revoked, oldest first, each with its position."""
    rows = await db.fetch(
        f"""
        SELECT seq, {_COLUMNS} FROM accounts.api_keys
        WHERE org_id = $1 AND revoked_at IS NULL AND seq > coalesce($2, 0) ORDER BY seq LIMIT $3
        """,  # noqa: S608 - a list of columns of ours
        org_id,
        after,
        limit,
    )
    return [(row["seq"], _key(row)) for row in rows]


async def rotate_key(db: Database, key_id: str, *, key_hash: KeyHash, hint: str, previous_valid_until: datetime) -> Key:
    """Put a new secret in a key's place; the old one works until then."""
    row = await db.fetchrow(
        f"""
        UPDATE accounts.api_keys SET previous_key_hash = key_hash, previous_valid_until = $4,
            key_hash = $2, hint = $3, revision = revision + 1
        WHERE key_id = $1 RETURNING {_COLUMNS}
        """,  # noqa: S608 - a list of columns of ours
        key_id,
        key_hash,
        hint,
        previous_valid_until,
    )
    return _key(written(row))


async def revoke_key(db: Database, key_id: str) -> None:
    """End a key for good. Its row stays: requests name it."""
    await db.execute(
        "UPDATE accounts.api_keys SET revoked_at = now(), revision = revision + 1 WHERE key_id = $1", key_id
    )


def _key(row: asyncpg.Record) -> Key:
    return Key.model_validate({**row, **budgets_shown(dict(row))})
