"""The part of the catalogue that admission needs: which models can be bought, on which endpoints, at which prices."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, OrgId, PriceVersion, ProviderName
from gateway_core.pricing import LIST_TERMS, OrgTerms, PriceRow, Terms


@dataclass(frozen=True, slots=True)
class PricedDeployment:
    """A provider that may serve a model, and what that costs."""

    provider: ProviderName
    price: PriceRow


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as it can be bought.

    Attributes:
        model: its own name, whichever of its names was asked for.
        orgs_allowed: organisations that may know of it; none means all.
        prices: per endpoint, those of every deployment that may serve it; at least one.
    """

    model: ModelName
    context_tokens: int
    max_output_tokens: int
    orgs_allowed: frozenset[OrgId]
    prices: Mapping[Endpoint, tuple[PricedDeployment, ...]]

    def is_visible_to(self, org_id: OrgId) -> bool:
        """Whether an organisation may know of it."""
        return not self.orgs_allowed or org_id in self.orgs_allowed


@dataclass(frozen=True, slots=True)
class Offers:
    """All models that can be bought, by each of their names, and who pays other than list prices, as of one revision."""

    version: PriceVersion
    by_model: Mapping[ModelName, Offer]
    org_terms: Mapping[OrgId, OrgTerms]

    def terms(self, org_id: OrgId, model: ModelName, provider: ProviderName) -> Terms:
        """What an organisation pays for a deployment."""
        found = self.org_terms.get(org_id)
        return LIST_TERMS if found is None else found.at(model, provider)
