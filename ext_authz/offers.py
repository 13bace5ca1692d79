"""The part of the catalogue that admission needs: which models can be bought, on which endpoints, at which prices."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, PriceVersion, ProviderName
from gateway_core.pricing import PriceRow


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as it can be bought: per endpoint, the prices of every deployment that may serve it; at least one.

    Attributes:
        first_provider: per endpoint, who is asked first: whose prices a test request is charged by.
    """

    context_tokens: int
    max_output_tokens: int
    prices: Mapping[Endpoint, tuple[PriceRow, ...]]
    first_provider: Mapping[Endpoint, ProviderName]


@dataclass(frozen=True, slots=True)
class Offers:
    """All models that can be bought, as of one catalogue revision."""

    version: PriceVersion
    by_model: Mapping[ModelName, Offer]
