"""In which order the providers of a group are tried, and by what. Pure.

What is the same for every request is decided here, and Envoy is told the order. What each request decides for itself,
`envoy/lua/choice.lua` does; `stickiness.py` says the same of one value.
"""

from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction
from typing import Final

from gateway_core.contract import Choice
from gateway_core.money import NanoUsd, round_half_even
from gateway_core.pricing import UNITS_PER_PRICE, PriceRow
from gateway_core.usage import Meter

ATTEMPTS_MAX: Final = 16
"""Of one request, however many providers its route has."""
TRIAL_EVERY: Final = 20
"""On a route that goes by latency, one request of so many tries another provider than the fastest; `choice.lua` has it too."""


class Strategy(StrEnum):
    """What decides which provider of a group is tried first."""

    WEIGHTED = Choice.WEIGHTED.value
    ROUND_ROBIN = Choice.ROUND_ROBIN.value
    LOWEST_COST = Choice.LOWEST_COST.value
    LOWEST_LATENCY = Choice.LOWEST_LATENCY.value


ORDERED: Final = frozenset({Strategy.LOWEST_COST, Strategy.LOWEST_LATENCY})
"""Those with one order for every request."""


class StickyBy(StrEnum):
    """Which value of a request keeps it to one provider."""

    USER = "user"
    PROMPT_CACHE_KEY = "prompt_cache_key"


NOMINAL_REQUEST: Final[Mapping[Meter, int]] = {
    Meter.INPUT: 3000,
    Meter.OUTPUT: 1000,
    Meter.IMAGE_OUTPUT: 1000,
    Meter.AUDIO_OUTPUT: 1000,
    Meter.IMAGE: 1,
    Meter.CHARACTER: 1000,
    Meter.AUDIO_SECOND: 60,
    Meter.SEARCH_UNIT: 1,
    Meter.REQUEST: 1,
}
"""What providers are compared by; of a model, what it has prices for. Only the ratios matter."""


def nominal_cost(price: PriceRow) -> NanoUsd | None:
    """What a nominal request costs us at the standard tier; None if this version cannot read the price."""
    if not price.is_usable:
        return None
    units = sum(
        rate.cost_nano_usd_per_mtok * NOMINAL_REQUEST[meter]
        for meter, rate in price.rates.items()
        if meter in NOMINAL_REQUEST
    )
    return round_half_even(Fraction(units, UNITS_PER_PRICE))
