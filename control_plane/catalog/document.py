"""The whole catalogue as one document: what operators keep in version control, compare and apply. Pure.

Things stand under their natural keys, so two documents differ where the catalogue differs. No document that we write has a
credential in it; one that is applied may bring some.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, Field

from control_plane.catalog.price_specs import MeterPrice, PriceSpec, amount_per, nano_usd_per_million
from control_plane.catalog.specs import (
    DeploymentSpec,
    ModelNameText,
    ModelSpec,
    ProviderNameText,
    ProviderSpec,
    RouteNameText,
    RouteSpec,
)
from control_plane.errors import pointer
from control_plane.fields import Body
from gateway_core.usage import Meter

SpecT = TypeVar("SpecT")

PROVIDERS_MAX: Final = 1000
MODELS_MAX: Final = 10_000
DEPLOYMENTS_MAX: Final = 20_000
ROUTES_MAX: Final = 10_000
PATTERNS_MAX: Final = 1000
"""What a document is judged by takes as long as its patterns times its deployments without a price, at worst."""

_METERS: Final = tuple(Meter)


def _few_in_all(section: dict[str, dict[str, SpecT]]) -> dict[str, dict[str, SpecT]]:
    if sum(map(len, section.values())) > DEPLOYMENTS_MAX:
        raise ValueError(f"more than {DEPLOYMENTS_MAX} in all")
    return section


def _few_patterns(routes: dict[str, RouteSpec]) -> dict[str, RouteSpec]:
    if sum("*" in route.match for route in routes.values()) > PATTERNS_MAX:
        raise ValueError(f"more than {PATTERNS_MAX} with a pattern")
    return routes


class CatalogDocument(Body):
    """The catalogue, or a part of it."""

    providers: dict[ProviderNameText, ProviderSpec] = Field(
        default={}, max_length=PROVIDERS_MAX, description="By name."
    )
    models: dict[ModelNameText, ModelSpec] = Field(default={}, max_length=MODELS_MAX, description="By name.")
    deployments: Annotated[dict[ModelNameText, dict[ProviderNameText, DeploymentSpec]], AfterValidator(_few_in_all)] = (
        Field(
            default={},
            max_length=MODELS_MAX,
            description=f"By model, then by provider; at most {DEPLOYMENTS_MAX} in all.",
        )
    )
    prices: Annotated[dict[ModelNameText, dict[ProviderNameText, PriceSpec]], AfterValidator(_few_in_all)] = Field(
        default={},
        max_length=MODELS_MAX,
        description=f"By model, then by provider; at most {DEPLOYMENTS_MAX} in all. A new one is a new version; none is ever "
        "removed.",
    )
    routes: Annotated[dict[RouteNameText, RouteSpec], AfterValidator(_few_patterns)] = Field(
        default={},
        max_length=ROUTES_MAX,
        description=f"By name; at most {PATTERNS_MAX} of them match a pattern.",
    )


class Kind(StrEnum):
    """What things a document has, in the order in which they build on each other."""

    PROVIDER = "provider"
    MODEL = "model"
    DEPLOYMENT = "deployment"
    PRICE = "price"
    ROUTE = "route"


_SECTIONS: Final[Mapping[Kind, str]] = {
    Kind.PROVIDER: "providers",
    Kind.MODEL: "models",
    Kind.DEPLOYMENT: "deployments",
    Kind.PRICE: "prices",
    Kind.ROUTE: "routes",
}


@dataclass(frozen=True, slots=True)
class Thing:
    """Names one thing of a document.

    Attributes:
        names: the keys it stands under.
    """

    kind: Kind
    names: tuple[str, ...]

    @property
    def label(self) -> str:
        """As people and operations name it."""
        return " at ".join(self.names)

    @property
    def pointer(self) -> str:
        """Where it stands, as a JSON pointer into the document."""
        return pointer((_SECTIONS[self.kind], *self.names))


def things(document: CatalogDocument) -> dict[Thing, Body]:
    """Everything in a document, in the order of its kinds and then of its names."""
    found: dict[Thing, Body] = {}
    for kind, section in (
        (Kind.PROVIDER, document.providers),
        (Kind.MODEL, document.models),
        (Kind.DEPLOYMENT, flat(document.deployments)),
        (Kind.PRICE, flat(document.prices)),
        (Kind.ROUTE, document.routes),
    ):
        named = {name if isinstance(name, tuple) else (name,): spec for name, spec in section.items()}
        found |= {Thing(kind, names): named[names] for names in sorted(named)}
    return found


def flat(section: Mapping[str, Mapping[str, SpecT]]) -> dict[tuple[str, str], SpecT]:
    """What stands under two keys, under both together."""
    return {(first, second): spec for first, nested in section.items() for second, spec in nested.items()}


def nested(section: Mapping[tuple[str, str], SpecT]) -> dict[str, dict[str, SpecT]]:
    """The reverse of `flat`, sorted."""
    found: dict[str, dict[str, SpecT]] = {}
    for first, second in sorted(section):
        found.setdefault(first, {})[second] = section[first, second]
    return found


def overlaid(current: CatalogDocument, wanted: CatalogDocument, *, prune: bool) -> CatalogDocument:
    """The catalogue once a document has been applied; `prune` removes what the document does not name, but no price."""
    prices = nested(flat(current.prices) | flat(wanted.prices))
    if prune:
        return wanted.model_copy(update={"prices": prices})
    return CatalogDocument.model_construct(
        providers=current.providers | wanted.providers,
        models=current.models | wanted.models,
        deployments=nested(flat(current.deployments) | flat(wanted.deployments)),
        prices=prices,
        routes=current.routes | wanted.routes,
    )


def canonical(document: CatalogDocument) -> CatalogDocument:
    """The same document as it would be read back once it is applied: what has no order of its own is sorted."""
    return document.model_copy(
        update={
            "models": {name: _canonical_model(spec) for name, spec in document.models.items()},
            "prices": nested({names: _canonical_price(spec) for names, spec in flat(document.prices).items()}),
            "routes": {name: _canonical_route(spec) for name, spec in document.routes.items()},
        }
    )


def _canonical_model(spec: ModelSpec) -> ModelSpec:
    deprecated_at = spec.deprecated_at and spec.deprecated_at.astimezone(UTC)
    return spec.model_copy(update={"aliases": sorted(spec.aliases), "deprecated_at": deprecated_at})


def _canonical_price(spec: PriceSpec) -> PriceSpec:
    def order(price: MeterPrice) -> tuple[int, int]:
        return _METERS.index(price.meter), price.condition.input_tokens_above or 0

    return spec.model_copy(update={"prices": sorted(map(_canonical_meter, spec.prices), key=order)})


def _canonical_meter(spec: MeterPrice) -> MeterPrice:
    cost, price = (
        amount_per(nano_usd_per_million(amount, spec.unit), spec.unit)
        for amount in (spec.cost, spec.price or spec.cost)
    )
    return spec.model_copy(update={"cost": cost, "price": None if price == cost else price})


def _canonical_route(spec: RouteSpec) -> RouteSpec:
    groups: Sequence[object] = [sorted(group, key=lambda member: member.provider) for group in spec.groups]
    return spec.model_copy(update={"groups": groups})
