"""The catalogue as a document, from Postgres and into it: everything at once, whatever the number of things."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel

from control_plane.catalog.document import CatalogDocument, Kind, Thing, canonical, flat, nested
from control_plane.catalog.document_changes import Changes, Verb
from control_plane.catalog.postgres_models import (
    delete_deployments,
    delete_models,
    list_deployments,
    list_models,
    put_deployments,
    put_models,
)
from control_plane.catalog.postgres_prices import list_prices, write_prices
from control_plane.catalog.postgres_providers import delete_providers, list_providers, put_providers
from control_plane.catalog.postgres_routes import delete_routes, list_routes, put_routes
from control_plane.catalog.price_specs import PriceSpec
from control_plane.catalog.resources import Deployment, Model, Price, Provider, Route
from control_plane.catalog.specs import DeploymentSpec, ModelSpec, ProviderSpec, RouteSpec
from control_plane.database import Database
from control_plane.resource import Resource
from control_plane.workbench import Workbench

SpecT = TypeVar("SpecT", bound=BaseModel)


async def newest_revision(db: Database, *, before: int | None = None) -> int:
    """The revision of the catalogue as a whole, or the one it had before another; 0 if there was none."""
    revision: int = await db.fetchval(
        "SELECT coalesce(max(revision), 0) FROM catalog.revisions WHERE $1::bigint IS NULL OR revision < $1", before
    )
    return revision


async def read_document(db: Database, workbench: Workbench) -> CatalogDocument:
    """The whole catalogue, canonical. It is not judged anew: what is there is there."""
    providers = [each for _, each in await list_providers(db, after=None, limit=None)]
    models = [each for _, each in await list_models(db, after=None, limit=None)]
    deployments = [each for _, each in await list_deployments(db, after=None, limit=None)]
    prices = await list_prices(db, model=None, provider=None, history=False, before_seq=None, limit=None)
    routes = [each for _, each in await list_routes(db, after=None, limit=None)]
    return await workbench.do(_document, providers, models, deployments, [each for _, each in prices], routes)


def _document(
    providers: Sequence[Provider],
    models: Sequence[Model],
    deployments: Sequence[Deployment],
    prices: Sequence[Price],
    routes: Sequence[Route],
) -> CatalogDocument:
    deployed = {(each.model, each.provider) for each in deployments}
    return canonical(
        CatalogDocument.model_construct(
            providers=_sorted({each.name: _spec(ProviderSpec, each) for each in providers}),
            models=_sorted({each.name: _spec(ModelSpec, each) for each in models}),
            deployments=nested({(each.model, each.provider): _spec(DeploymentSpec, each) for each in deployments}),
            prices=nested(
                {
                    (each.model, each.provider): _spec(PriceSpec, each)
                    for each in prices
                    if (each.model, each.provider) in deployed
                }
            ),
            routes=_sorted({each.name: _spec(RouteSpec, each) for each in routes}),
        )
    )


async def read_priced(db: Database) -> dict[tuple[str, str], frozenset[str]]:
    """The deployments that have a price, or would have one if they were there, and the meters of the newest one."""
    rows = await db.fetch(
        """
        SELECT DISTINCT ON (model, provider) model, provider, array_agg(DISTINCT meter) AS meters
        FROM catalog.prices GROUP BY model, provider, revision ORDER BY model, provider, revision DESC
        """
    )
    return {(row["model"], row["provider"]): frozenset(row["meters"]) for row in rows}


async def write_changes(
    db: Database,
    current: CatalogDocument,
    wanted: CatalogDocument,
    changes: Changes,
    *,
    sealed: Mapping[str, bytes],
    now: datetime,
) -> None:
    """Make a catalogue what it is to become.

    Names may go from one thing to another in it, so everything lets go of what it has before anything takes hold: undone
    in the reverse order, it is as it was. `changes` are those of the other two; `sealed` has the new credentials.
    """
    gone = {thing for thing, change in changes.items() if change.change is Verb.DELETE}
    put = {thing for thing, change in changes.items() if change.change is not Verb.DELETE}
    routes = _chosen(wanted.routes, Kind.ROUTE, put)
    moved = {
        name for name, spec in routes.items() if name in current.routes and current.routes[name].match != spec.match
    }

    await delete_routes(db, [*_names(Kind.ROUTE, gone), *moved])
    await delete_deployments(db, _pairs(Kind.DEPLOYMENT, gone))
    await delete_models(db, _names(Kind.MODEL, gone))
    await put_providers(db, _chosen(wanted.providers, Kind.PROVIDER, put), sealed=sealed)
    await put_models(db, _chosen(wanted.models, Kind.MODEL, put))
    deployments = flat(wanted.deployments)
    await put_deployments(db, {names: deployments[names] for names in _pairs(Kind.DEPLOYMENT, put)})
    prices = flat(wanted.prices)
    await write_prices(db, {names: prices[names] for names in _pairs(Kind.PRICE, put)}, now=now)
    await put_routes(db, routes)
    await delete_providers(db, _names(Kind.PROVIDER, gone))


def _spec(kind: type[SpecT], resource: Resource) -> SpecT:
    fields = {name: getattr(resource, name) for name in kind.model_fields if hasattr(resource, name)}
    return kind.model_construct(**fields)


def _sorted(section: Mapping[str, SpecT]) -> dict[str, SpecT]:
    return dict(sorted(section.items()))


def _names(kind: Kind, things: Collection[Thing]) -> list[str]:
    return sorted(name for thing in things if thing.kind is kind for name in thing.names)


def _pairs(kind: Kind, things: Collection[Thing]) -> list[tuple[str, str]]:
    return sorted((model, provider) for model, provider in (thing.names for thing in things if thing.kind is kind))


def _chosen(section: Mapping[str, SpecT], kind: Kind, things: Collection[Thing]) -> dict[str, SpecT]:
    return {name: section[name] for name in _names(kind, things)}
