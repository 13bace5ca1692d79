"""Models and their deployments in Postgres, as operators see them."""

import json
from collections.abc import Collection, Mapping
from typing import Final

import asyncpg

from control_plane.catalog.resources import Deployment, Model
from control_plane.catalog.specs import DeploymentSpec, ModelSpec
from control_plane.database import Database, written

_MODEL: Final = """name, owned_by, context_tokens, max_output_tokens, endpoints, capabilities, requests_per_minute_max, tokens_per_minute_max,
    concurrency_max, deprecated_at, replacement, created_at,
    revision, ARRAY(SELECT alias FROM catalog.model_aliases a WHERE a.model = name ORDER BY alias) AS aliases"""
_DEPLOYMENT: Final = "model, provider, upstream_model, revision"


async def find_model(db: Database, name: str) -> Model | None:
    """One model."""
    row = await db.fetchrow(f"SELECT {_MODEL} FROM catalog.models WHERE name = $1", name)  # noqa: S608 - columns of ours
    return None if row is None else _model(row)


async def list_models(db: Database, *, after: int | None, limit: int | None) -> list[tuple[int, Model]]:
    """Models, oldest first, each with its position; all of them if there is no limit."""
    rows = await db.fetch(
        f"SELECT seq, {_MODEL} FROM catalog.models WHERE seq > coalesce($1, 0) ORDER BY seq LIMIT $2",  # noqa: S608 - columns
        after,
        limit,
    )
    return [(row["seq"], _model(row)) for row in rows]


async def put_model(db: Database, name: str, spec: ModelSpec) -> Model:
    """Create or replace a model."""
    await put_models(db, {name: spec})
    row = await db.fetchrow(f"SELECT {_MODEL} FROM catalog.models WHERE name = $1", name)  # noqa: S608 - columns of ours
    return _model(written(row))


async def put_models(db: Database, specs: Mapping[str, ModelSpec]) -> None:
    """Create or replace models and their aliases; a name may go from one of them to another."""
    aliases = [(alias, name) for name, spec in specs.items() for alias in spec.aliases]
    await db.execute(
        """
        DELETE FROM catalog.model_aliases
        WHERE model = ANY($1) AND (alias, model) NOT IN (SELECT * FROM unnest($2::text[], $3::text[]))
        """,
        list(specs),
        [alias for alias, _ in aliases],
        [name for _, name in aliases],
    )
    rows = [{"name": name, **spec.model_dump(mode="json", exclude={"aliases"})} for name, spec in specs.items()]
    await db.execute(
        """
        INSERT INTO catalog.models
            (name, owned_by, context_tokens, max_output_tokens, endpoints, capabilities, requests_per_minute_max,
             tokens_per_minute_max, concurrency_max, deprecated_at, replacement)
        SELECT * FROM jsonb_to_recordset($1) AS r (
            name text, owned_by text, context_tokens integer, max_output_tokens integer, endpoints text[],
            capabilities text[], requests_per_minute_max integer, tokens_per_minute_max integer, concurrency_max integer,
            deprecated_at timestamptz, replacement text)
        ON CONFLICT (name) DO UPDATE SET owned_by = excluded.owned_by, context_tokens = excluded.context_tokens,
            max_output_tokens = excluded.max_output_tokens, endpoints = excluded.endpoints, capabilities = excluded.capabilities,
            requests_per_minute_max = excluded.requests_per_minute_max, tokens_per_minute_max = excluded.tokens_per_minute_max,
            concurrency_max = excluded.concurrency_max, deprecated_at = excluded.deprecated_at, replacement = excluded.replacement
        """,
        json.dumps(rows),
    )
    await db.execute(
        """
        INSERT INTO catalog.model_aliases (alias, model)
        SELECT * FROM unnest($1::text[], $2::text[]) AS wanted (alias, model)
        WHERE NOT EXISTS (SELECT FROM catalog.model_aliases known WHERE known.alias = wanted.alias)
        """,
        [alias for alias, _ in aliases],
        [name for _, name in aliases],
    )


async def delete_models(db: Database, names: Collection[str]) -> None:
    """Remove models that nothing names any more, and their aliases."""
    await db.execute("DELETE FROM catalog.model_aliases WHERE model = ANY($1)", names)
    await db.execute("DELETE FROM catalog.models WHERE name = ANY($1)", names)


async def uses_of_model(db: Database, name: str) -> list[str]:
    """What names a model: deployments and routes of its own, each in words."""
    rows = await db.fetch(
        """
        SELECT 'deployment ' || model || ' at ' || provider AS used FROM catalog.deployments WHERE model = $1
        UNION ALL SELECT 'route ' || name FROM catalog.routes WHERE match = $1
        ORDER BY used LIMIT 20
        """,
        name,
    )
    return [row["used"] for row in rows]


async def find_deployment(db: Database, model: str, provider: str) -> Deployment | None:
    """One deployment."""
    row = await db.fetchrow(
        f"SELECT {_DEPLOYMENT} FROM catalog.deployments WHERE model = $1 AND provider = $2",  # noqa: S608 - columns
        model,
        provider,
    )
    return None if row is None else Deployment.model_validate(dict(row))


async def list_deployments(db: Database, *, after: int | None, limit: int | None) -> list[tuple[int, Deployment]]:
    """Deployments, oldest first, each with its position; all of them if there is no limit."""
    rows = await db.fetch(
        f"SELECT seq, {_DEPLOYMENT} FROM catalog.deployments WHERE seq > coalesce($1, 0) ORDER BY seq LIMIT $2",  # noqa: S608 - columns
        after,
        limit,
    )
    return [(row["seq"], Deployment.model_validate(dict(row))) for row in rows]


async def put_deployment(db: Database, model: str, provider: str, spec: DeploymentSpec) -> Deployment:
    """Create or replace a deployment."""
    await put_deployments(db, {(model, provider): spec})
    row = await db.fetchrow(
        f"SELECT {_DEPLOYMENT} FROM catalog.deployments WHERE model = $1 AND provider = $2",  # noqa: S608 - columns
        model,
        provider,
    )
    return Deployment.model_validate(dict(written(row)))


async def put_deployments(db: Database, specs: Mapping[tuple[str, str], DeploymentSpec]) -> None:
    """Create or replace deployments; each is named by its model and its provider."""
    await db.execute(
        """
        INSERT INTO catalog.deployments (model, provider, upstream_model)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
        ON CONFLICT (model, provider) DO UPDATE SET upstream_model = excluded.upstream_model
        """,
        [model for model, _ in specs],
        [provider for _, provider in specs],
        [spec.upstream_model for spec in specs.values()],
    )


async def delete_deployments(db: Database, names: Collection[tuple[str, str]]) -> None:
    """Remove deployments, named as in `put_deployments`. Their prices stay: requests were rated by them."""
    await db.execute(
        """
        DELETE FROM catalog.deployments
        WHERE (model, provider) IN (SELECT * FROM unnest($1::text[], $2::text[]))
        """,
        [model for model, _ in names],
        [provider for _, provider in names],
    )


async def uses_of_deployment(db: Database, model: str, provider: str) -> list[str]:
    """Published routes of this very model that send to it, each in words."""
    rows = await db.fetch(
        """
        SELECT 'route ' || r.name AS used FROM catalog.routes r JOIN catalog.route_members m ON m.route = r.name
        WHERE r.match = $1 AND m.provider = $2 AND r.published
        """,
        model,
        provider,
    )
    return [row["used"] for row in rows]


def _model(row: asyncpg.Record) -> Model:
    return Model.model_validate(dict(row))
