"""The part of the catalogue that admission needs: which models exist, where they are served, and their prices."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, PriceVersion
from gateway_core.pricing import PriceRow


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as it can be bought: per endpoint, the prices of every deployment that may serve it.

    An endpoint with a deployment nobody priced is not in it: what cannot be charged is not sold.
    """

    max_output_tokens: int
    prices: Mapping[Endpoint, tuple[PriceRow, ...]]


@dataclass(frozen=True, slots=True)
class Catalog:
    """All offers as of one revision."""

    version: PriceVersion
    offers: Mapping[ModelName, Offer]
