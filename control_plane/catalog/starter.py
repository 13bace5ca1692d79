"""The starter catalogue: current models with their list prices, each with where and when that was read. Pure.

It is data beside this module, facts only, and nobody's catalogue until an operator applies it. What it gives is what is not there
yet, so it never changes what an operator has made.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from control_plane.catalog.document import CatalogDocument, canonical, flat, nested
from control_plane.catalog.specs import GroupMember, RouteSpec
from control_plane.fields import Body

_FILE: Final = Path(__file__).with_name("starter.json")


class Source(Body):
    """Where a price was read."""

    url: Annotated[str, StringConstraints(pattern=r"^https://[^/ ]+/")] = Field(description="A page of the vendor's.")
    as_of: date = Field(description="When what stands here was last seen to be so.")


Sources = Mapping[str, Mapping[str, Source]]
"""By model, then by provider."""


class StarterFile(Body):
    """All there is: a document without routes, and a source for each of its prices."""

    document: CatalogDocument
    sources: dict[str, dict[str, Source]]


@dataclass(frozen=True, slots=True)
class Starter:
    """A part of it that can be applied, and the sources of its prices."""

    document: CatalogDocument
    sources: Sources


@cache
def starter_file() -> StarterFile:
    """What the file says."""
    return StarterFile.model_validate_json(_FILE.read_bytes())


def starter(current: CatalogDocument, providers: Collection[str], with_credential: Collection[str]) -> Starter:
    """What the catalogue could begin with.

    Args:
        current: the catalogue as it is; nothing of it is in the answer.
        providers: those that are wanted, of those in the file.
        with_credential: providers that have a credential. A route to others is not published.
    """
    found = starter_file()
    aliases = {alias for spec in current.models.values() for alias in spec.aliases}
    known = flat(current.deployments)
    deployments = {
        (model, provider): spec
        for (model, provider), spec in flat(found.document.deployments).items()
        if provider in providers and (model, provider) not in known and model not in aliases
    }
    models = {model for model, _ in deployments}
    priced = flat(current.prices)
    prices = {
        names: spec
        for names, spec in flat(found.document.prices).items()
        if names in deployments and names not in priced
    }
    named = {provider for _, provider in deployments}
    document = CatalogDocument.model_construct(
        providers={
            name: spec
            for name, spec in found.document.providers.items()
            if name in named and name not in current.providers
        },
        models={
            name: spec for name, spec in found.document.models.items() if name in models and name not in current.models
        },
        deployments=nested(deployments),
        prices=nested(prices),
        routes=_routes(current, deployments, with_credential),
    )
    sources = {names: source for names, source in flat(found.sources).items() if names in prices}
    return Starter(canonical(document), nested(sources))


def _routes(
    current: CatalogDocument, deployed: Collection[tuple[str, str]], with_credential: Collection[str]
) -> dict[str, RouteSpec]:
    """A route for each model that has none: to whom can be asked, or else a draft to all."""
    taken = {*current.routes, *(route.match for route in current.routes.values())}
    by_model: dict[str, list[str]] = {}
    for model, provider in sorted(deployed):
        by_model.setdefault(model, []).append(provider)
    routes = {}
    for model, providers in by_model.items():
        if model not in taken:
            usable = [provider for provider in providers if provider in with_credential]
            routes[model] = RouteSpec(
                match=model,
                groups=[[GroupMember(provider=provider)] for provider in usable or providers],
                published=bool(usable),
            )
    return routes
