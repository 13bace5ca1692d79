"""What one thing of the catalogue is judged beside, from Postgres: no more than it can name, and it as if it were there."""

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from control_plane.catalog.kinds import TEMPLATES
from control_plane.catalog.rules import Around
from control_plane.catalog.specs import ModelSpec, RouteSpec
from control_plane.database import Database
from gateway_core.providers import ProviderKind

_NOTHING: Final = Around(frozenset(), frozenset(), {}, {}, frozenset(), {}, frozenset())


async def around_model(db: Database, name: str, spec: ModelSpec) -> Around:
    """What a model is judged beside."""
    names = {name, *spec.aliases}
    models_by_alias = {alias: {name} for alias in spec.aliases}
    for row in await db.fetch(
        "SELECT alias, model FROM catalog.model_aliases WHERE alias = ANY($1) AND model <> $2", names, name
    ):
        models_by_alias.setdefault(row["alias"], set()).add(row["model"])
    matches = await db.fetch("SELECT match, name FROM catalog.routes WHERE match = ANY($1)", names)
    return replace(
        _NOTHING,
        models=await _models(db, names),
        models_by_alias=models_by_alias,
        routes_by_match={row["match"]: [row["name"]] for row in matches},
    )


async def around_deployment(db: Database, model: str, provider: str) -> Around:
    """What a deployment or its price is judged beside."""
    is_deployed = await db.fetchval(
        "SELECT true FROM catalog.deployments WHERE model = $1 AND provider = $2", model, provider
    )
    return replace(
        _NOTHING,
        providers=await _providers(db, {provider}),
        models=await _models(db, {model}),
        deployed={(model, provider)} if is_deployed else frozenset(),
    )


async def around_route(db: Database, name: str, spec: RouteSpec) -> Around:
    """What a route is judged beside."""
    rivals = await db.fetch("SELECT name FROM catalog.routes WHERE match = $1 AND name <> $2", spec.match, name)
    aliases = await db.fetch("SELECT alias, model FROM catalog.model_aliases WHERE alias = $1", spec.match)
    providers = {member.provider for group in spec.groups for member in group}
    deployments = await db.fetch(
        """
        SELECT d.model, d.provider, EXISTS (
            SELECT FROM catalog.prices p WHERE p.model = d.model AND p.provider = d.provider) AS is_priced
        FROM catalog.deployments d WHERE d.provider = ANY($1) AND ($3 OR d.model = $2)
        """,
        providers,
        spec.match,
        "*" in spec.match,
    )
    unpriced_by_provider: dict[str, list[str]] = {}
    for model, provider in sorted((row["model"], row["provider"]) for row in deployments if not row["is_priced"]):
        unpriced_by_provider.setdefault(provider, []).append(model)
    return Around(
        await _providers(db, providers),
        await _models(db, {spec.match}),
        {row["alias"]: {row["model"]} for row in aliases},
        {spec.match: [name, *(row["name"] for row in rivals)]},
        {(row["model"], row["provider"]) for row in deployments},
        unpriced_by_provider,
        await known_orgs(db, spec.orgs_allowed),
        await _without_credential(db, providers),
    )


async def known_orgs(db: Database, named: Collection[str]) -> AbstractSet[str]:
    """Those of some organisations which there are."""
    rows = await db.fetch("SELECT org_id FROM accounts.organizations WHERE org_id = ANY($1)", named)
    return {row["org_id"] for row in rows}


async def _models(db: Database, named: Collection[str]) -> AbstractSet[str]:
    return {row["name"] for row in await db.fetch("SELECT name FROM catalog.models WHERE name = ANY($1)", named)}


async def _providers(db: Database, named: Collection[str]) -> AbstractSet[str]:
    return {row["name"] for row in await db.fetch("SELECT name FROM catalog.providers WHERE name = ANY($1)", named)}


async def _without_credential(db: Database, named: Collection[str]) -> AbstractSet[str]:
    rows = await db.fetch("SELECT name, kind FROM catalog.providers WHERE name = ANY($1) AND credential IS NULL", named)
    return {row["name"] for row in rows if TEMPLATES[ProviderKind(row["kind"])].requires_credential}
