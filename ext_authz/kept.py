"""Which provider a request goes to that is about something kept, and whether it may. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ext_authz.asked import Asked
from ext_authz.offers import Offers, PricedDeployment
from gateway_core.api_keys import ApiKey
from gateway_core.endpoints import IN_BATCHES, Endpoint
from gateway_core.errors import (
    KEPT_APART,
    NO_KEEPER,
    NOT_AT_ITS_PROVIDER,
    ApiError,
    no_such,
    provider_not_offered,
)
from gateway_core.ids import ProviderName
from gateway_core.kept import KeptName
from gateway_core.mode import Mode
from gateway_core.providers import PATHS_BY_KIND
from gateway_core.usage import BATCH


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is kept, or is to be; the simulator where no provider is said."""

    provider: ProviderName | None


Owned = Mapping[KeptName, Place]
"""Of what a request names, that which is the organisation's, in the ledger of the key."""


@dataclass(frozen=True, slots=True)
class Files:
    """How many files are kept for an organisation, or may be, and how long they are together."""

    count: int
    total_bytes: int

    def refuses(self, kept: "Files", more_bytes: int) -> bool:
        """Whether these are the most there may be, and one more file beside what is kept is too much."""
        return kept.count >= self.count or kept.total_bytes + more_bytes > self.total_bytes


def place_of(asked: Asked, key: ApiKey, offers: Offers, owned: Owned) -> Place | ApiError:
    """Where a request goes that names no model."""
    if asked.named:
        place = place_of_all(asked.named, owned)
        if isinstance(place, Place) and place.provider and not _has(offers, place.provider, asked.endpoint):
            return NOT_AT_ITS_PROVIDER
        return place
    if key.mode is Mode.TEST:
        return Place(None)
    reached = list(_reached(key, offers))
    able = sorted({each.provider for _, each in reached if _has(offers, each.provider, asked.endpoint)})
    if asked.provider in able:
        return Place(asked.provider)
    # Where nothing that is kept can be used, the client need not have meant.
    using = {each.provider for endpoint, each in reached if _uses_what_is_kept(endpoint, each)}
    likely = [each for each in able if each in using] or able
    if asked.provider is None and len(likely) == 1:
        return Place(likely[0])
    return provider_not_offered(able) if able else NO_KEEPER


def place_of_all(names: Iterable[KeptName], owned: Owned) -> Place | ApiError:
    """Where everything is that a request names, at least one thing."""
    places = set()
    for name in names:
        place = owned.get(name)
        if place is None:
            return no_such(name)
        places.add(place)
    return places.pop() if len(places) == 1 else KEPT_APART


def _reached(key: ApiKey, offers: Offers) -> Iterator[tuple[Endpoint, PricedDeployment]]:
    """Every deployment of a model that the key may use, with each endpoint that it serves."""
    for name, offer in offers.by_model.items():
        if offer.is_visible_to(key.org_id) and key.may_use(name):
            for endpoint, deployments in offer.prices.items():
                for deployment in deployments:
                    yield endpoint, deployment


def _uses_what_is_kept(endpoint: Endpoint, deployment: PricedDeployment) -> bool:
    """Whether files are read there: by responses that name them, or as the input of batches."""
    price = deployment.price
    # Equal and not the same: of an offer that was read from Postgres it is a text.
    return endpoint == Endpoint.STORED_RESPONSES or (
        endpoint in IN_BATCHES and (price.is_free or BATCH in price.service_tiers)
    )


def _has(offers: Offers, provider: ProviderName, endpoint: Endpoint) -> bool:
    kind = offers.kinds.get(provider)
    return kind is not None and endpoint in PATHS_BY_KIND[kind]
