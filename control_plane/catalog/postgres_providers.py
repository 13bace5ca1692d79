"""Providers in Postgres, as operators see them."""

import json
from typing import Final

import asyncpg

from control_plane.catalog.resources import Provider
from control_plane.catalog.specs import ProviderSpec
from control_plane.database import Database, written

_COLUMNS: Final = """name, kind, base_url, credential IS NOT NULL AS has_credential, headers, connect_timeout_ms,
    connections_max, requests_max, revision"""


async def find_provider(db: Database, name: str) -> Provider | None:
    """One provider."""
    row = await db.fetchrow(f"SELECT {_COLUMNS} FROM catalog.providers WHERE name = $1", name)  # noqa: S608 - columns
    return None if row is None else _provider(row)


async def list_providers(db: Database, *, after: int | None, limit: int) -> list[tuple[int, Provider]]:
    """Providers, oldest first, each with its position."""
    rows = await db.fetch(
        f"SELECT seq, {_COLUMNS} FROM catalog.providers WHERE seq > coalesce($1, 0) ORDER BY seq LIMIT $2",  # noqa: S608 - columns
        after,
        limit,
    )
    return [(row["seq"], _provider(row)) for row in rows]


async def put_provider(
    db: Database, name: str, spec: ProviderSpec, *, sealed_credential: bytes | None, keep_credential: bool
) -> Provider:
    """Create or replace a provider."""
    row = await db.fetchrow(
        f"""
        INSERT INTO catalog.providers
            (name, kind, base_url, credential, headers, connect_timeout_ms, connections_max, requests_max)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, base_url = excluded.base_url,
            credential = CASE WHEN $9 THEN providers.credential ELSE excluded.credential END, headers = excluded.headers,
            connect_timeout_ms = excluded.connect_timeout_ms, connections_max = excluded.connections_max,
            requests_max = excluded.requests_max, managed_by = 'operator'
        RETURNING {_COLUMNS}
        """,  # noqa: S608 - a list of columns of ours
        name,
        spec.kind,
        spec.base_url,
        sealed_credential,
        json.dumps(spec.headers),
        spec.connect_timeout_ms,
        spec.connections_max,
        spec.requests_max,
        keep_credential,
    )
    return _provider(written(row))


async def delete_provider(db: Database, name: str) -> None:
    """Remove a provider that nothing names any more."""
    await db.execute("DELETE FROM catalog.providers WHERE name = $1", name)


async def uses_of_provider(db: Database, name: str) -> list[str]:
    """What names a provider: deployments and routes, each in words."""
    rows = await db.fetch(
        """
        SELECT 'deployment ' || model || ' at ' || provider AS used FROM catalog.deployments WHERE provider = $1
        UNION ALL SELECT 'route ' || route FROM catalog.route_members WHERE provider = $1
        ORDER BY used LIMIT 20
        """,
        name,
    )
    return [row["used"] for row in rows]


def _provider(row: asyncpg.Record) -> Provider:
    return Provider.model_validate({**row, "headers": json.loads(row["headers"])})
