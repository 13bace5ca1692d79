"""What is wrong with a document beside the catalogue it is applied to: all of it, each fault where it stands. Pure.

The rules are those of `rules.py`. What the catalogue is guilty of already is not held against a document that leaves it as it is.
"""

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from control_plane.catalog.document import CatalogDocument, Kind, Thing, flat, nested, overlaid, things
from control_plane.catalog.kinds import TEMPLATES
from control_plane.catalog.rules import (
    MODEL,
    PROVIDER,
    Around,
    deployment_faults,
    model_faults,
    price_faults,
    provider_faults,
    route_faults,
    unpriced_by_provider,
)
from control_plane.catalog.specs import ProviderSpec
from control_plane.errors import InvalidField
from gateway_core.pricing import FREE
from gateway_core.providers import served


def faults(
    current: CatalogDocument,
    wanted: CatalogDocument,
    *,
    priced: Mapping[tuple[str, str], AbstractSet[str]],
    orgs: AbstractSet[str],
    with_credential: Collection[str],
    prune: bool,
    may_lack_credentials: bool = False,
) -> list[InvalidField]:
    """The faults of a document, with pointers into it.

    Args:
        current: the catalogue as it is.
        wanted: the document, as it was sent.
        priced: deployments that have a price already, as model and provider, and its meters; they need not exist.
        orgs: the organisations there are, at least of those that are named.
        with_credential: providers that have one.
        prune: as for `overlaid`.
        may_lack_credentials: whether a provider that moves may be silent about its credential.
    """
    merged = overlaid(current, wanted, prune=prune)
    named = things(wanted)
    known = set(_faults(current, around(current, priced, orgs, with_credential), {}))
    destinations = {name: current.providers[name] for name in with_credential if name in current.providers}
    if may_lack_credentials:
        destinations = {}
    return [
        replace(fault, pointer=thing.pointer + ("" if fault.pointer in {MODEL, PROVIDER} else fault.pointer))
        for thing, fault in _faults(
            merged, around(merged, {**priced, **_meters(wanted)}, orgs, with_credential), destinations
        )
        if thing in named and (thing, fault) not in known
    ]


def _meters(document: CatalogDocument) -> Mapping[tuple[str, str], AbstractSet[str]]:
    prices = flat(document.prices).items()
    return {names: {FREE} if spec.free else {each.meter for each in spec.prices} for names, spec in prices}


def around(
    document: CatalogDocument,
    priced: Mapping[tuple[str, str], AbstractSet[str]],
    orgs: AbstractSet[str],
    with_credential: Collection[str],
) -> Around:
    """What the things of a whole catalogue are judged beside."""
    models_by_alias: dict[str, set[str]] = {}
    for name, model in document.models.items():
        for alias in model.aliases:
            models_by_alias.setdefault(alias, set()).add(name)
    routes_by_match: dict[str, list[str]] = {}
    for name, route in document.routes.items():
        routes_by_match.setdefault(route.match, []).append(name)
    deployed = flat(document.deployments).keys()
    sold = {
        (name, provider): served(document.providers[provider].kind, document.models[name].endpoints, translated=True)
        if name in document.models and provider in document.providers
        else ()
        for name, provider in deployed
    }
    meters = nested({names: found for names, found in priced.items() if names in deployed})
    return Around(
        document.providers.keys(),
        document.models.keys(),
        models_by_alias,
        routes_by_match,
        deployed,
        unpriced_by_provider(deployed, sold, meters),
        orgs,
        sold,
        meters,
        {
            name
            for name, spec in document.providers.items()
            if TEMPLATES[spec.kind].requires_credential and not _has_credential(name, spec, with_credential)
        },
    )


def _has_credential(name: str, spec: ProviderSpec, with_credential: Collection[str]) -> bool:
    return spec.credential is not None or (name in with_credential and "credential" not in spec.model_fields_set)


def _faults(
    document: CatalogDocument, around: Around, destinations: Mapping[str, ProviderSpec]
) -> Iterator[tuple[Thing, InvalidField]]:
    for name, provider in document.providers.items():
        for fault in provider_faults(provider, now=destinations.get(name)):
            yield Thing(Kind.PROVIDER, (name,)), fault
    for name, model in document.models.items():
        for fault in model_faults(name, model, around):
            yield Thing(Kind.MODEL, (name,)), fault
    for names in flat(document.deployments):
        for fault in deployment_faults(*names, around):
            yield Thing(Kind.DEPLOYMENT, names), fault
    for names, price in flat(document.prices).items():
        for fault in price_faults(*names, price, around):
            yield Thing(Kind.PRICE, names), fault
    for name, route in document.routes.items():
        for fault in route_faults(name, route, around):
            yield Thing(Kind.ROUTE, (name,)), fault
