"""API keys from Postgres, by their hash, through the function that the owner of schema `accounts` offers."""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Final

import asyncpg

from gateway_core.api_keys import ApiKey, KeyHash
from gateway_core.budgets import Budgets
from gateway_core.gathering import Gathering
from gateway_core.ids import KeyId, OrgId, ProjectId
from gateway_core.limits import Limits, Scope, ScopedLimits, scoped
from gateway_core.mode import Mode

AT_ONCE_MAX: Final = 2
"""Questions under way: while one of them is stuck, others are answered."""


class PostgresKeys:
    """Looks keys up. Those that are asked for while Postgres is being asked are asked for together, with the next question."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._gathering = Gathering("find_keys", self._find_all, at_once=AT_ONCE_MAX)

    async def find(self, key_hash: KeyHash) -> ApiKey | None:
        """The key with this hash, valid or not, or None.

        Raises:
            asyncpg.PostgresError, OSError: unknown right now.
        """
        return await self._gathering.ask(key_hash)

    async def _find_all(self, hashes: Sequence[KeyHash]) -> Sequence[ApiKey | None]:
        rows = await self._pool.fetch(
            """
            SELECT asked.key_hash, found.*
            FROM unnest($1::bytea[]) asked (key_hash) CROSS JOIN LATERAL accounts.find_key(asked.key_hash) found
            """,
            set(hashes),
        )
        found = {row["key_hash"]: api_key(row) for row in rows}
        return [found.get(key_hash) for key_hash in hashes]


def api_key(row: asyncpg.Record) -> ApiKey:
    """A key from the columns of `accounts.find_key`."""
    return ApiKey(
        key_id=KeyId(row["key_id"]),
        org_id=OrgId(row["org_id"]),
        project_id=ProjectId(row["project_id"]),
        models_allowed=tuple(row["models_allowed"]),
        is_disabled=row["is_disabled"],
        expires_at=row["expires_at"],
        ip_allowed=tuple(ip_network(text) for text in row["ip_allowed"]),
        mode=Mode(row["mode"]),
        budgets=_budgets(row),
        limits=_limits(row),
    )


def _budgets(row: asyncpg.Record) -> Budgets | None:
    names = (f"{whose}_per_{period}_nano_usd" for whose in ("key", "project") for period in ("day", "month"))
    limits = {name: row[name] for name in names}
    if all(limit is None for limit in limits.values()):
        return None
    return Budgets(row["time_zone"], **limits)


def _limits(row: asyncpg.Record) -> tuple[ScopedLimits, ...]:
    def of(scope: Scope, whose: str, name: str) -> tuple[ScopedLimits, ...]:
        kinds = ("requests_per_minute_max", "tokens_per_minute_max", "concurrency_max")
        return scoped(scope, name, Limits(*(row[f"{whose}{kind}"] for kind in kinds)))

    return (
        *of(Scope.KEY, "", row["key_id"]),
        *of(Scope.PROJECT, "project_", row["project_id"]),
        *of(Scope.ORGANIZATION, "org_", row["org_id"]),
    )
