"""Providers in Postgres, as operators see them."""

import json
from collections.abc import Collection, Mapping
from typing import Final

import asyncpg

from control_plane.catalog.percentages import percent_of, ppm_of
from control_plane.catalog.provider_state import Condition
from control_plane.catalog.resources import ListedProvider, Provider
from control_plane.catalog.specs import ProviderSpec
from control_plane.database import Database, written

_COLUMNS: Final = """name, kind, base_url, region, credential IS NOT NULL AS has_credential, headers, connect_timeout_ms,
    connections_max, requests_max, requests_per_minute_max, tokens_per_minute_max, probed, own_keys, own_key_fee_ppm, revision"""


async def find_provider(db: Database, name: str) -> Provider | None:
    """One provider."""
    row = await db.fetchrow(f"SELECT {_COLUMNS} FROM catalog.providers WHERE name = $1", name)  # noqa: S608 - columns
    return None if row is None else _provider(row)


async def list_providers(db: Database, *, after: int | None, limit: int | None) -> list[tuple[int, Provider]]:
    """Providers, oldest first, each with its position; all of them if there is no limit."""
    rows = await db.fetch(
        f"SELECT seq, {_COLUMNS} FROM catalog.providers WHERE seq > coalesce($1, 0) ORDER BY seq LIMIT $2",  # noqa: S608 - columns
        after,
        limit,
    )
    return [(row["seq"], _provider(row)) for row in rows]


async def list_with_states(db: Database, *, after: int | None, limit: int | None) -> list[tuple[int, ListedProvider]]:
    """The same, each with what it is now."""
    providers = await list_providers(db, after=after, limit=limit)
    rows = await db.fetch("SELECT provider, condition FROM catalog.current_states WHERE upstream_model IS NULL")
    states = {row["provider"]: Condition(row["condition"]) for row in rows}
    return [
        (seq, ListedProvider(**dict(each), state=states.get(each.name, Condition.HEALTHY))) for seq, each in providers
    ]


async def put_provider(db: Database, name: str, spec: ProviderSpec, *, sealed_credential: bytes | None) -> Provider:
    """Create or replace a provider."""
    await put_providers(db, {name: spec}, sealed={} if sealed_credential is None else {name: sealed_credential})
    row = await db.fetchrow(f"SELECT {_COLUMNS} FROM catalog.providers WHERE name = $1", name)  # noqa: S608 - columns
    return _provider(written(row))


async def put_providers(db: Database, specs: Mapping[str, ProviderSpec], *, sealed: Mapping[str, bytes]) -> None:
    """Create or replace providers. Who has no sealed credential here loses it, unless its spec says nothing of it."""
    rows = [
        {
            "name": name,
            "kind": spec.kind,
            "base_url": spec.base_url,
            "region": spec.region,
            "credential": "\\x" + sealed[name].hex() if name in sealed else None,
            "headers": spec.headers,
            "connect_timeout_ms": spec.connect_timeout_ms,
            "connections_max": spec.connections_max,
            "requests_max": spec.requests_max,
            "requests_per_minute_max": spec.requests_per_minute_max,
            "tokens_per_minute_max": spec.tokens_per_minute_max,
            "own_keys": spec.own_keys,
            "own_key_fee_ppm": ppm_of(spec.own_key_fee_percent),
            "probed": spec.probed,
        }
        for name, spec in specs.items()
    ]
    await db.execute(
        """
        INSERT INTO catalog.providers
            (name, kind, base_url, region, credential, headers, connect_timeout_ms, connections_max, requests_max,
             requests_per_minute_max, tokens_per_minute_max, probed, own_keys, own_key_fee_ppm)
        SELECT * FROM jsonb_to_recordset($1) AS r (
            name text, kind text, base_url text, region text, credential bytea, headers jsonb, connect_timeout_ms integer,
            connections_max integer, requests_max integer, requests_per_minute_max integer, tokens_per_minute_max integer, probed boolean, own_keys text, own_key_fee_ppm integer)
        ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, base_url = excluded.base_url, region = excluded.region,
            headers = excluded.headers,
            credential = CASE WHEN excluded.name = ANY($2) THEN providers.credential ELSE excluded.credential END,
            connect_timeout_ms = excluded.connect_timeout_ms, connections_max = excluded.connections_max,
            requests_max = excluded.requests_max, requests_per_minute_max = excluded.requests_per_minute_max,
            tokens_per_minute_max = excluded.tokens_per_minute_max, probed = excluded.probed, own_keys = excluded.own_keys,
            own_key_fee_ppm = excluded.own_key_fee_ppm, managed_by = 'operator'
        """,
        json.dumps(rows),
        [name for name, spec in specs.items() if "credential" not in spec.model_fields_set],
    )


async def delete_providers(db: Database, names: Collection[str]) -> None:
    """Remove providers that nothing names any more."""
    await db.execute("DELETE FROM catalog.providers WHERE name = ANY($1)", names)


async def read_base_urls(db: Database) -> dict[str, str]:
    """Where each provider is."""
    return {row["name"]: row["base_url"] for row in await db.fetch("SELECT name, base_url FROM catalog.providers")}


async def read_credentials(db: Database, names: Collection[str]) -> dict[str, bytes]:
    """The sealed credentials of those that have one."""
    rows = await db.fetch(
        "SELECT name, credential FROM catalog.providers WHERE name = ANY($1) AND credential IS NOT NULL", names
    )
    return {row["name"]: row["credential"] for row in rows}


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
    fields = {name: value for name, value in row.items() if name != "own_key_fee_ppm"}
    fee_percent = percent_of(row["own_key_fee_ppm"])
    return Provider.model_validate(
        {**fields, "headers": json.loads(row["headers"]), "own_key_fee_percent": fee_percent}
    )
