"""What one thing of the catalogue is judged beside, from Postgres: no more than it can name, and it as if it were there."""

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

import asyncpg

from control_plane.catalog.document import nested
from control_plane.catalog.kinds import TEMPLATES
from control_plane.catalog.rules import Around, unpriced_by_provider
from control_plane.catalog.specs import ModelSpec, RouteSpec
from control_plane.database import Database
from gateway_core.endpoints import Endpoint
from gateway_core.providers import ProviderKind, served

_PRICED_DEPLOYMENTS: Final = """
    SELECT d.model, d.provider, m.endpoints, v.kind, (
        SELECT array_agg(DISTINCT p.meter) FROM catalog.prices p
        WHERE p.model = d.model AND p.provider = d.provider
        GROUP BY p.revision ORDER BY p.revision DESC LIMIT 1) AS meters
    FROM catalog.deployments d JOIN catalog.models m ON m.name = d.model JOIN catalog.providers v ON v.name = d.provider
"""
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
    deployments = await db.fetch(_PRICED_DEPLOYMENTS + "WHERE d.model = $1", name)
    return replace(
        _NOTHING,
        models=await _models(db, names),
        models_by_alias=models_by_alias,
        routes_by_match={row["match"]: [row["name"]] for row in matches},
        sold={
            (name, row["provider"]): served(ProviderKind(row["kind"]), spec.endpoints, translated=True)
            for row in deployments
        },
        meters=_meters(deployments),
    )


async def around_deployment(db: Database, model: str, provider: str) -> Around:
    """What a deployment or its price is judged beside."""
    deployments = await db.fetch(_PRICED_DEPLOYMENTS + "WHERE d.model = $1 AND d.provider = $2", model, provider)
    return replace(
        _NOTHING,
        providers=await _providers(db, {provider}),
        models=await _models(db, {model}),
        deployed=_sold(deployments).keys(),
        sold=_sold(deployments),
    )


async def around_route(db: Database, name: str, spec: RouteSpec) -> Around:
    """What a route is judged beside."""
    rivals = await db.fetch("SELECT name FROM catalog.routes WHERE match = $1 AND name <> $2", spec.match, name)
    aliases = await db.fetch("SELECT alias, model FROM catalog.model_aliases WHERE alias = $1", spec.match)
    providers = {member.provider for group in spec.groups for member in group}
    deployments = await db.fetch(
        _PRICED_DEPLOYMENTS + "WHERE d.provider = ANY($1) AND ($3 OR d.model = $2)",
        providers,
        spec.match,
        "*" in spec.match,
    )
    sold, meters = _sold(deployments), _meters(deployments)
    return Around(
        await _providers(db, providers),
        await _models(db, {spec.match}),
        {row["alias"]: {row["model"]} for row in aliases},
        {spec.match: [name, *(row["name"] for row in rivals)]},
        sold.keys(),
        unpriced_by_provider(sold, sold, meters),
        await known_orgs(db, spec.orgs_allowed),
        sold,
        meters,
        await _without_credential(db, providers),
    )


async def known_orgs(db: Database, named: Collection[str]) -> AbstractSet[str]:
    """Those of some organisations which there are."""
    rows = await db.fetch("SELECT org_id FROM accounts.organizations WHERE org_id = ANY($1)", named)
    return {row["org_id"] for row in rows}


def _sold(rows: Sequence[asyncpg.Record]) -> Mapping[tuple[str, str], Sequence[Endpoint]]:
    return {
        (row["model"], row["provider"]): served(ProviderKind(row["kind"]), row["endpoints"], translated=True)
        for row in rows
    }


def _meters(rows: Sequence[asyncpg.Record]) -> Mapping[str, Mapping[str, AbstractSet[str]]]:
    return nested(
        {(row["model"], row["provider"]): frozenset(row["meters"]) for row in rows if row["meters"] is not None}
    )


async def _models(db: Database, named: Collection[str]) -> AbstractSet[str]:
    return {row["name"] for row in await db.fetch("SELECT name FROM catalog.models WHERE name = ANY($1)", named)}


async def _providers(db: Database, named: Collection[str]) -> AbstractSet[str]:
    return {row["name"] for row in await db.fetch("SELECT name FROM catalog.providers WHERE name = ANY($1)", named)}


async def _without_credential(db: Database, named: Collection[str]) -> AbstractSet[str]:
    rows = await db.fetch("SELECT name, kind FROM catalog.providers WHERE name = ANY($1) AND credential IS NULL", named)
    return {row["name"] for row in rows if TEMPLATES[ProviderKind(row["kind"])].requires_credential}
