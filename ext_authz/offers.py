"""The part of the catalogue that admission needs: which models can be bought, on which endpoints, at which prices.

Envoy and this process come to a new revision at different moments, so a reading remembers for a while what was offered before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from ext_authz.own_keys import OwnKeyBook, OwnKeys
from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, OrgId, PriceVersion, ProviderName
from gateway_core.limits import Limits, ScopedLimits
from gateway_core.offering import Offering
from gateway_core.pricing import LIST_TERMS, OrgTerms, PriceRow, Terms, own_key_terms
from gateway_core.providers import ProviderKind

OVERLAP: Final = timedelta(seconds=60)
"""How long what was offered can still be bought by a route that stands for it. Envoy takes up a change in less than a second."""

FORMER_MAX: Final = 256
"""How many earlier readings are remembered; each holds only the names that the next one moved."""


@dataclass(frozen=True, slots=True)
class PricedDeployment:
    """A provider that may serve a model, its own name for it, and what that costs."""

    provider: ProviderName
    upstream_model: str
    price: PriceRow


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as it can be bought.

    Attributes:
        model: its own name, whichever of its names was asked for.
        orgs_allowed: organisations that may know of it; none means all.
        prices: per endpoint, those of every deployment that may serve it; at least one.
        limits: of all requests for it together, if there are any.
    """

    model: ModelName
    context_tokens: int
    max_output_tokens: int
    orgs_allowed: frozenset[OrgId]
    prices: Mapping[Endpoint, tuple[PricedDeployment, ...]]
    limits: tuple[ScopedLimits, ...] = ()

    def is_visible_to(self, org_id: OrgId) -> bool:
        """Whether an organisation may know of it."""
        return not self.orgs_allowed or org_id in self.orgs_allowed

    def covers(self, endpoint: Endpoint, offering: Offering) -> bool:
        """Whether everything a route stands for has its price here.

        There may be more here: a provider that Envoy cannot be told of, because its credential does not open, is in no route.
        """
        return offering.model == self.model and offering.deployments.items() <= self.deployments(endpoint)

    def is_moved(self, before: "Offer") -> bool:
        """Whether a route that stood for what was offered before may not be covered here."""
        return self.model != before.model or any(
            not before.deployments(endpoint) <= self.deployments(endpoint) for endpoint in before.prices
        )

    def deployments(self, endpoint: Endpoint) -> frozenset[tuple[ProviderName, str]]:
        """Providers and their own names for the model."""
        return frozenset((each.provider, each.upstream_model) for each in self.prices.get(endpoint, ()))


@dataclass(frozen=True, slots=True)
class Offers:
    """All models that can be bought, by each of their names, and who pays other than list prices, as of one revision.

    Attributes:
        kinds: of every provider there is.
        provider_limits: of those that may be full; requests at once are of each Envoy.
        own_key_fees_ppm: of requests with their organisation's own key; nothing where a provider is not named.
        own_keys: asked of the newest reading, which remembers on its own.
        former: what was offered before, the latest first: those names only that have been moved since.
        until: of a former one: how long it can still be bought.
    """

    version: PriceVersion
    by_model: Mapping[ModelName, Offer]
    org_terms: Mapping[OrgId, OrgTerms]
    kinds: Mapping[ProviderName, ProviderKind] = field(default_factory=dict)
    provider_limits: Mapping[ProviderName, Limits] = field(default_factory=dict)
    own_key_fees_ppm: Mapping[ProviderName, int] = field(default_factory=dict)
    own_keys: OwnKeyBook = field(default_factory=OwnKeyBook)
    former: tuple["Offers", ...] = field(default=())
    until: datetime | None = None

    def tokens_per_minute(self, provider: ProviderName) -> int | None:
        """The limit of tokens that a provider has; None if it has none."""
        limits = self.provider_limits.get(provider)
        return None if limits is None else limits.tokens_per_minute

    def terms(self, org_id: OrgId, model: ModelName, provider: ProviderName) -> Terms:
        """What an organisation pays for a deployment."""
        found = self.org_terms.get(org_id)
        return LIST_TERMS if found is None else found.at(model, provider)

    def possible_terms(
        self, org_id: OrgId, model: ModelName, provider: ProviderName, own_keys: OwnKeys
    ) -> tuple[Terms, ...]:
        """Everything that an organisation may come to pay for a deployment, with its own keys and without."""
        usual = self.terms(org_id, model, provider)
        if provider not in own_keys:
            return (usual,)
        fee = own_key_terms(self.own_key_fees_ppm.get(provider, 0))
        return (fee, usual) if own_keys[provider] else (fee,)

    def after(self, before: "Offers", now: datetime) -> "Offers":
        """This reading, which remembers the one before and what that one remembers."""
        moved = {
            name: offer
            for name, offer in before.by_model.items()
            if (newer := self.by_model.get(name)) is None or newer.is_moved(offer)
        }
        former = tuple(each for each in before.former if each.is_valid(now))
        if moved:
            former = (replace(before, by_model=moved, former=(), own_keys=OwnKeyBook(), until=now + OVERLAP), *former)
        # Terms that have not changed are kept once, however many readings remember them.
        terms = before.org_terms if before.org_terms == self.org_terms else self.org_terms
        own_keys = self.own_keys.after(before.own_keys, now)
        return replace(self, org_terms=terms, own_keys=own_keys, former=former[:FORMER_MAX])

    def is_valid(self, now: datetime) -> bool:
        """Whether it can be bought from."""
        return self.until is None or now < self.until

    def standing_for(self, name: ModelName, endpoint: Endpoint, offering: Offering, now: datetime) -> "Offers | None":
        """The newest reading in which a name is what a route says it is; None if there is none."""
        for each in (self, *self.former):
            offer = each.by_model.get(name)
            if offer is not None and each.is_valid(now) and offer.covers(endpoint, offering):
                return each
        return None
