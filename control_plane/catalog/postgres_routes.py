"""Routes in Postgres, as operators see them."""

import json
from collections.abc import Collection, Mapping
from typing import Final

import asyncpg

from control_plane.catalog.resources import Route
from control_plane.catalog.specs import RouteSpec
from control_plane.database import Database, written

_ROUTE: Final = """name, match, published, orgs_allowed, attempts_max, retry_statuses, first_byte_timeout_ms,
    idle_timeout_ms, strategy, sticky_by, cache_ttl_s, revision,
    (SELECT jsonb_agg(members ORDER BY priority) FROM (
        SELECT priority, jsonb_agg(jsonb_build_object('provider', provider, 'weight', weight) ORDER BY provider) AS members
        FROM catalog.route_members m WHERE m.route = routes.name GROUP BY priority) AS by_priority) AS groups"""


async def find_route(db: Database, name: str) -> Route | None:
    """One route."""
    row = await db.fetchrow(f"SELECT {_ROUTE} FROM catalog.routes WHERE name = $1", name)  # noqa: S608 - columns of ours
    return None if row is None else _route(row)


async def list_routes(db: Database, *, after: int | None, limit: int | None) -> list[tuple[int, Route]]:
    """Routes, oldest first, each with its position; all of them if there is no limit."""
    rows = await db.fetch(
        f"SELECT seq, {_ROUTE} FROM catalog.routes WHERE seq > coalesce($1, 0) ORDER BY seq LIMIT $2",  # noqa: S608 - columns
        after,
        limit,
    )
    return [(row["seq"], _route(row)) for row in rows]


async def put_route(db: Database, name: str, spec: RouteSpec) -> Route:
    """Create or replace a route."""
    await put_routes(db, {name: spec})
    row = await db.fetchrow(f"SELECT {_ROUTE} FROM catalog.routes WHERE name = $1", name)  # noqa: S608 - columns of ours
    return _route(written(row))


async def put_routes(db: Database, specs: Mapping[str, RouteSpec]) -> None:
    """Create or replace routes. What one of them matches must not be the match of another before or after."""
    rows = [{"name": name, **spec.model_dump(exclude={"groups"})} for name, spec in specs.items()]
    await db.execute(
        """
        INSERT INTO catalog.routes (name, match, published, orgs_allowed, attempts_max, retry_statuses,
                                    first_byte_timeout_ms, idle_timeout_ms, strategy, sticky_by,
                                    cache_ttl_s)
        SELECT * FROM jsonb_to_recordset($1) AS r (
            name text, match text, published boolean, orgs_allowed text[], attempts_max smallint,
            retry_statuses smallint[], first_byte_timeout_ms integer, idle_timeout_ms integer, strategy text,
            sticky_by text, cache_ttl_s integer)
        ON CONFLICT (name) DO UPDATE SET match = excluded.match, published = excluded.published,
            orgs_allowed = excluded.orgs_allowed, attempts_max = excluded.attempts_max,
            retry_statuses = excluded.retry_statuses, first_byte_timeout_ms = excluded.first_byte_timeout_ms,
            idle_timeout_ms = excluded.idle_timeout_ms, strategy = excluded.strategy, sticky_by = excluded.sticky_by,
            cache_ttl_s = excluded.cache_ttl_s
        """,
        json.dumps(rows),
    )
    members = [
        {"route": name, "priority": priority, **member.model_dump()}
        for name, spec in specs.items()
        for priority, group in enumerate(spec.groups)
        for member in group
    ]
    await db.execute("DELETE FROM catalog.route_members WHERE route = ANY($1)", list(specs))
    await db.execute(
        """
        INSERT INTO catalog.route_members (route, provider, priority, weight)
        SELECT * FROM jsonb_to_recordset($1) AS r (route text, provider text, priority smallint, weight integer)
        """,
        json.dumps(members),
    )


async def delete_routes(db: Database, names: Collection[str]) -> None:
    """Remove routes; their models are not served any more, unless a pattern has them."""
    # Not by a cascade: what changed is written down in this order, and put back in the reverse.
    await db.execute("DELETE FROM catalog.route_members WHERE route = ANY($1)", names)
    await db.execute("DELETE FROM catalog.routes WHERE name = ANY($1)", names)


def _route(row: asyncpg.Record) -> Route:
    return Route.model_validate({**row, "groups": json.loads(row["groups"])})
