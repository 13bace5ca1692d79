"""A public list of models and prices, as a document beside the catalogue there is. Pure.

What the list does not tell stays as it is: aliases, list prices apart from the cost, providers and deployments that are
there. Routes are drafts, and only for models that have none: whether tenants are served is not a list's to say.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from pydantic import ValidationError

from control_plane.catalog.document import CatalogDocument, canonical, flat, nested
from control_plane.catalog.litellm import LITELLM
from control_plane.catalog.openrouter import OPENROUTER
from control_plane.catalog.price_list import Entry, Json, Listing, PriceList, SkipError, Skipped, meter_prices
from control_plane.catalog.price_specs import MeterPrice, PriceSpec, amount_per, nano_usd_per_million
from control_plane.catalog.specs import (
    GROUPS_MAX,
    MODEL_NAME,
    PROVIDER_NAME,
    DeploymentSpec,
    GroupMember,
    ModelSpec,
    ProviderSpec,
    RouteSpec,
)
from control_plane.errors import pointer
from control_plane.fault_words import in_our_words
from gateway_core.endpoints import Endpoint


class ImportFormat(StrEnum):
    """Whose list it is."""

    LITELLM = "litellm"
    OPENROUTER = "openrouter"


_LISTS: Final[Mapping[ImportFormat, PriceList]] = {
    ImportFormat.LITELLM: LITELLM,
    ImportFormat.OPENROUTER: OPENROUTER,
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a list is wanted.

    Attributes:
        models: shell-style patterns of the providers' own model names; none means all.
        providers: as the list calls them; none means all.
        base_urls: where providers are, by the list's name, that the list does not tell.
    """

    models: Sequence[str]
    providers: Collection[str]
    base_urls: Mapping[str, str]

    def wants(self, entry: Entry) -> bool:
        """Whether an entry is asked for."""
        return (not self.providers or entry.provider in self.providers) and (
            not self.models or any(fnmatchcase(entry.model, pattern) for pattern in self.models)
        )


@dataclass(frozen=True, slots=True)
class Imported:
    """A document that can be applied, and what of the list is not in it."""

    document: CatalogDocument
    skipped: list[Skipped]


def convert(kind: ImportFormat, content: Json, choice: Choice, current: CatalogDocument) -> Imported:
    """What a list would make of the catalogue.

    Raises:
        SkipError: it is not of the format at all.
    """
    draft = _Draft(current, choice.base_urls)
    skipped = []
    for entry in _LISTS[kind].entries(content):
        if isinstance(entry, SkipError):
            skipped.append(entry.skipped)
        elif choice.wants(entry):
            try:
                listing = _LISTS[kind].read(entry)
                draft.add(entry, listing)
            except SkipError as error:
                skipped.append(error.skipped)
            else:
                skipped += listing.notes
    return Imported(draft.document(), skipped)


class _Draft:
    """A document that grows by one listing after the other."""

    def __init__(self, current: CatalogDocument, base_urls: Mapping[str, str]) -> None:
        self._current = current
        self._base_urls = base_urls
        self._known_prices = flat(current.prices)
        self._model_by_alias = {alias: name for name, spec in current.models.items() for alias in spec.aliases}
        self._providers: dict[str, ProviderSpec] = {}
        self._models: dict[str, ModelSpec] = {}
        self._upstream: dict[tuple[str, str], DeploymentSpec] = {}
        self._prices: dict[tuple[str, str], PriceSpec] = {}
        self._steps: dict[tuple[str, str], tuple[str | int, ...]] = {}

    def add(self, entry: Entry, listing: Listing) -> None:
        """Take a listing over, whole or not at all.

        Raises:
            SkipError: not at all.
        """
        provider = entry.provider.lower().replace("_", "-").replace(" ", "-")
        names = entry.model, provider
        if not PROVIDER_NAME.fullmatch(provider):
            raise SkipError(entry.steps, "its provider's name cannot be one here")
        if not MODEL_NAME.fullmatch(entry.model):
            raise SkipError(entry.steps, "its name cannot be one here")
        if entry.model in self._model_by_alias:
            raise SkipError(entry.steps, f"is an alias of {self._model_by_alias[entry.model]}")
        if names in self._steps:
            raise SkipError(entry.steps, f"is the same as {pointer(self._steps[names])}")
        try:
            provider_spec = self._provider(entry, provider, listing)
            model_spec = self._model(entry.model, listing)
            price_spec = self._price(names, listing)
        except ValidationError as error:
            [first, *_] = error.errors()
            raise SkipError(entry.steps, f"{'.'.join(map(str, first['loc']))}: {in_our_words(first)}") from error
        if provider_spec is not None:
            self._providers[provider] = provider_spec
        self._models[entry.model] = model_spec
        self._prices[names] = price_spec
        self._upstream[names] = DeploymentSpec(upstream_model=entry.model)
        self._steps[names] = entry.steps

    def document(self) -> CatalogDocument:
        """What has been taken over so far, canonical."""
        known = flat(self._current.deployments)
        return canonical(
            CatalogDocument.model_construct(
                providers=dict(sorted(self._providers.items())),
                models=dict(sorted(self._models.items())),
                deployments=nested({names: spec for names, spec in self._upstream.items() if names not in known}),
                prices=nested(self._prices),
                routes=self._routes(),
            )
        )

    def _provider(self, entry: Entry, name: str, listing: Listing) -> ProviderSpec | None:
        if name in self._current.providers:
            return None
        base_url = self._base_urls.get(entry.provider, listing.base_url)
        if base_url is None:
            raise SkipError(entry.steps, f"where {entry.provider} is, is not known; name it in provider_base_urls")
        return ProviderSpec(kind=listing.kind, base_url=base_url)

    def _model(self, name: str, listing: Listing) -> ModelSpec:
        others = self._models.get(name)
        known = self._current.models.get(name)
        # What several providers offer under one name is only as much as each of them does.
        return ModelSpec(
            owned_by=known.owned_by if known else others.owned_by if others else listing.owned_by,
            context_tokens=min(listing.context_tokens, others.context_tokens if others else listing.context_tokens),
            max_output_tokens=min(
                listing.max_output_tokens, others.max_output_tokens if others else listing.max_output_tokens
            ),
            endpoints=list(known.endpoints if known else _shared(listing.endpoints, others)),
            capabilities=[each for each in listing.capabilities if others is None or each in others.capabilities],
            deprecated_at=listing.deprecated_at or (others and others.deprecated_at) or (known and known.deprecated_at),
            aliases=known.aliases if known else [],
            replacement=known.replacement if known else None,
        )

    def _price(self, names: tuple[str, str], listing: Listing) -> PriceSpec:
        known = self._known_prices.get(names, PriceSpec())
        if known.free:
            return known
        told = {(each.meter, each.condition): each for each in meter_prices(listing.rates, listing.kind)}
        kept = {(each.meter, each.condition): each for each in known.prices}
        return PriceSpec(
            prices=list((kept | {key: _newer(each, kept.get(key)) for key, each in told.items()}).values())
        )

    def _routes(self) -> dict[str, RouteSpec]:
        taken = {*self._current.routes, *(route.match for route in self._current.routes.values())}
        providers: dict[str, list[GroupMember]] = {}
        for model, provider in self._upstream:
            providers.setdefault(model, []).append(GroupMember(provider=provider))
        return {
            model: RouteSpec(match=model, groups=[[member] for member in members[:GROUPS_MAX]], published=False)
            for model, members in sorted(providers.items())
            if model not in taken
        }


def _shared(endpoints: Sequence[Endpoint], others: ModelSpec | None) -> Sequence[Endpoint]:
    """Those that all have who offer a model, or those of the first where they have none in common."""
    if others is None:
        return endpoints
    return [each for each in endpoints if each in others.endpoints] or others.endpoints


def _newer(told: MeterPrice, kept: MeterPrice | None) -> MeterPrice:
    """The cost that the list tells; unit and list price stay, where they are our own."""
    if kept is None:
        return told
    cost = amount_per(nano_usd_per_million(told.cost, told.unit), kept.unit)
    return kept.model_copy(update={"cost": cost})
