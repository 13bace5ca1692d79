"""What is wrong with a document beside the catalogue it is applied to: all of it, each fault where it stands. Pure.

What the catalogue is guilty of already is not held against a document that leaves it as it is. Where a provider may be is
judged elsewhere, because that may take long.
"""

from collections.abc import Collection, Iterator
from typing import Final

from control_plane.catalog.document import CatalogDocument, Kind, Thing, flat, overlaid, things
from control_plane.catalog.specs import ModelSpec, RouteSpec
from control_plane.errors import InvalidField

_MISSING_PRICES_MAX: Final = 5


def faults(
    current: CatalogDocument,
    wanted: CatalogDocument,
    *,
    priced: Collection[tuple[str, str]],
    orgs: Collection[str],
    prune: bool,
) -> list[InvalidField]:
    """The faults of a document, with pointers into it.

    Args:
        current: the catalogue as it is.
        wanted: the document, as it was sent.
        priced: deployments that have a price already, as model and provider; they need not exist.
        orgs: the organisations there are, at least of those that are named.
        prune: as for `overlaid`.
    """
    merged = overlaid(current, wanted, prune=prune)
    named = things(wanted)
    known = set(_faults(_Beside(current, priced, orgs)))
    return [
        InvalidField(thing.pointer + place, detail)
        for thing, place, detail in _faults(_Beside(merged, {*priced, *flat(wanted.prices)}, orgs))
        if thing in named and (thing, place, detail) not in known
    ]


_Fault = tuple[Thing, str, str]
"""Whose, where in it, and what."""


class _Beside:
    """A catalogue with what its parts are checked against, looked up once."""

    def __init__(self, document: CatalogDocument, priced: Collection[tuple[str, str]], orgs: Collection[str]) -> None:
        self.document = document
        self.priced = priced
        self.orgs = orgs
        self.models_by_alias: dict[str, set[str]] = {}
        for name, model in document.models.items():
            for alias in model.aliases:
                self.models_by_alias.setdefault(alias, set()).add(name)
        self.routes_by_match: dict[str, list[str]] = {}
        for name, route in document.routes.items():
            self.routes_by_match.setdefault(route.match, []).append(name)
        self.models_by_provider: dict[str, set[str]] = {}
        for model_name, provider in flat(document.deployments):
            self.models_by_provider.setdefault(provider, set()).add(model_name)


def _faults(beside: _Beside) -> Iterator[_Fault]:
    document = beside.document
    for name, model in document.models.items():
        for place, detail in _model_faults(name, model, beside):
            yield Thing(Kind.MODEL, (name,)), place, detail
    for model_name, provider_name in flat(document.deployments):
        thing = Thing(Kind.DEPLOYMENT, (model_name, provider_name))
        if model_name not in document.models:
            yield thing, "", "no such model"
        if provider_name not in document.providers:
            yield thing, "", "no such provider"
    deployments = flat(document.deployments)
    for names, price in flat(document.prices).items():
        thing = Thing(Kind.PRICE, names)
        if names not in deployments:
            yield thing, "", "has no deployment"
        for fault in price.faults():
            yield thing, fault.pointer, fault.detail
    for name, route in document.routes.items():
        for place, detail in _route_faults(name, route, beside):
            yield Thing(Kind.ROUTE, (name,)), place, detail


def _model_faults(name: str, model: ModelSpec, beside: _Beside) -> Iterator[tuple[str, str]]:
    if name in beside.models_by_alias:
        yield "", "is an alias of another model"
    seen = {name}
    for number, alias in enumerate(model.aliases):
        if alias in beside.document.models or alias in seen or beside.models_by_alias[alias] != {name}:
            yield f"/aliases/{number}", "has a meaning already"
        elif alias in beside.routes_by_match:
            yield f"/aliases/{number}", f"is the match of route {beside.routes_by_match[alias][0]}"
        seen.add(alias)


def _route_faults(name: str, route: RouteSpec, beside: _Beside) -> Iterator[tuple[str, str]]:
    for rival in beside.routes_by_match[route.match]:
        if rival != name:
            yield "/match", f"is the match of route {rival}"
    if route.match in beside.models_by_alias:
        yield "/match", "is an alias; name the model"
    elif route.published and "*" not in route.match and route.match not in beside.document.models:
        yield "/match", "no such model"
    for number, org_id in enumerate(route.orgs_allowed):
        if org_id not in beside.orgs:
            yield f"/orgs_allowed/{number}", "no such organisation"
    seen: set[str] = set()
    for priority, group in enumerate(route.groups):
        for place, member in enumerate(group):
            for detail in _member_faults(route, member.provider, seen, beside):
                yield f"/groups/{priority}/{place}/provider", detail
            seen.add(member.provider)


def _member_faults(route: RouteSpec, provider: str, seen: Collection[str], beside: _Beside) -> Iterator[str]:
    if provider in seen:
        yield "stands in the route twice"
    elif provider not in beside.document.providers:
        yield "no such provider"
    elif route.published:
        deployed = beside.models_by_provider.get(provider, set())
        if "*" in route.match:
            served = {model for model in deployed if _matches(route.match, model)}
        else:
            served = {route.match} & deployed
            if not served:
                yield "the model has no deployment there"
        unpriced = sorted(model for model in served if (model, provider) not in beside.priced)
        for model in unpriced[:_MISSING_PRICES_MAX]:
            yield f"{model} has no price there"


def _matches(pattern: str, name: str) -> bool:
    """Whether a pattern with stars is that of a name. Linear, whatever the pattern."""
    first, *middle, last = pattern.split("*")
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
