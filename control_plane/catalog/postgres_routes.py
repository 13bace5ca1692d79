"""Routes in Postgres, as operators see them."""

import json
from collections.abc import Collection, Mapping
from typing import Final

import asyncpg

from control_plane.catalog.resources import Route
from control_plane.catalog.specs import RouteSpec
from control_plane.database import Database, written
from control_plane.errors import InvalidField

_ROUTE: Final = """name, match, published, orgs_allowed, attempts_max, retry_statuses, first_byte_timeout_ms,
    idle_timeout_ms, revision,
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


async def faults_of_route(db: Database, name: str, spec: RouteSpec) -> list[InvalidField]:
    """What is wrong with a route beside what is there: what it names and is not there, or is there twice, or has no price."""
    faults = []
    rival = await db.fetchval("SELECT name FROM catalog.routes WHERE match = $1 AND name <> $2", spec.match, name)
    if rival is not None:
        faults.append(InvalidField("/match", f"is the match of route {rival}"))
    if await db.fetchval("SELECT model FROM catalog.model_aliases WHERE alias = $1", spec.match) is not None:
        faults.append(InvalidField("/match", "is an alias; name the model"))
    known_orgs = {
        row["org_id"]
        for row in await db.fetch("SELECT org_id FROM accounts.organizations WHERE org_id = ANY($1)", spec.orgs_allowed)
    }
    faults += [
        InvalidField(f"/orgs_allowed/{number}", "no such organisation")
        for number, org_id in enumerate(spec.orgs_allowed)
        if org_id not in known_orgs
    ]
    return faults + await _faults_of_members(db, spec)


async def _faults_of_members(db: Database, spec: RouteSpec) -> list[InvalidField]:
    pointers = {
        (group, place): f"/groups/{group}/{place}/provider"
        for group, members in enumerate(spec.groups)
        for place in range(len(members))
    }
    providers = {at: spec.groups[at[0]][at[1]].provider for at in pointers}
    known = {
        row["name"]
        for row in await db.fetch("SELECT name FROM catalog.providers WHERE name = ANY($1)", list(providers.values()))
    }
    faults = []
    seen: set[str] = set()
    for at, provider in providers.items():
        if provider in seen:
            faults.append(InvalidField(pointers[at], "stands in the route twice"))
        elif provider not in known:
            faults.append(InvalidField(pointers[at], "no such provider"))
        elif spec.published:
            faults += [InvalidField(pointers[at], text) for text in await _missing(db, spec.match, provider)]
        seen.add(provider)
    if spec.published and "*" not in spec.match and not await _is_model(db, spec.match):
        faults.append(InvalidField("/match", "no such model"))
    return faults


async def _is_model(db: Database, name: str) -> bool:
    return await db.fetchval("SELECT name FROM catalog.models WHERE name = $1", name) is not None


async def _missing(db: Database, match: str, provider: str) -> list[str]:
    """What keeps a provider from serving what a route matches: deployments, or their prices."""
    if "*" not in match and not await db.fetchval(
        "SELECT EXISTS (SELECT FROM catalog.deployments WHERE model = $1 AND provider = $2)", match, provider
    ):
        return ["the model has no deployment there"]
    unpriced = await db.fetch(
        """
        SELECT model FROM catalog.deployments d
        WHERE provider = $2 AND d.model LIKE replace(replace($1, '_', '\\_'), '*', '%')
          AND NOT EXISTS (SELECT FROM catalog.prices p WHERE p.model = d.model AND p.provider = d.provider)
        ORDER BY model LIMIT 5
        """,
        match,
        provider,
    )
    return [f"{row['model']} has no price there" for row in unpriced]


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
                                    first_byte_timeout_ms, idle_timeout_ms)
        SELECT * FROM jsonb_to_recordset($1) AS r (
            name text, match text, published boolean, orgs_allowed text[], attempts_max smallint,
            retry_statuses smallint[], first_byte_timeout_ms integer, idle_timeout_ms integer)
        ON CONFLICT (name) DO UPDATE SET match = excluded.match, published = excluded.published,
            orgs_allowed = excluded.orgs_allowed, attempts_max = excluded.attempts_max,
            retry_statuses = excluded.retry_statuses, first_byte_timeout_ms = excluded.first_byte_timeout_ms,
            idle_timeout_ms = excluded.idle_timeout_ms
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
