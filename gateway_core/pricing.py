"""Prices and what a request costs under them. Pure; exact until the one rounding at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from gateway_core.ids import PriceVersion
from gateway_core.money import NanoUsd, round_half_even
from gateway_core.usage import Meter, Usage

_METERS: Final = frozenset(Meter)

TOKENS_PER_UNIT: Final = 1_000_000
"""Prices are per million tokens, the unit every provider publishes."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What one meter costs us and what the tenant pays, each in nano-USD per million tokens, >= 0."""

    cost_nano_usd_per_mtok: int
    price_nano_usd_per_mtok: int


@dataclass(frozen=True, slots=True)
class PriceRow:
    """All rates of one deployment from one catalogue revision on."""

    version: PriceVersion
    rates: Mapping[Meter, Rate]

    @classmethod
    def of(cls, version: int, meters: Sequence[str], costs: Sequence[int], prices: Sequence[int]) -> "PriceRow":
        """A row from the columns of `catalog.prices`, in nano-USD per million tokens.

        A meter this version does not know is left out: nothing here can count on it, so nothing needs its price.
        """
        rates = {
            Meter(meter): Rate(cost_nano_usd_per_mtok=cost, price_nano_usd_per_mtok=price)
            for meter, cost, price in zip(meters, costs, prices, strict=True)
            if meter in _METERS
        }
        return cls(PriceVersion(version), rates)


@dataclass(frozen=True, slots=True)
class Charge:
    """What one request costs us and what the tenant pays for it."""

    cost_nano_usd: NanoUsd
    price_nano_usd: NanoUsd


class UnpricedError(LookupError):
    """Tokens of a kind this row has no rate for. The caller quarantines the request; a zero would hide it."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(f"no price for meter {meter}")
        self.meter = meter


def charge(usage: Usage, row: PriceRow) -> Charge:
    """Price one finished request.

    Args:
        usage: disjoint counts.
        row: the version pinned when the request was admitted, not today's.

    Returns:
        Both sums in nano-USD, >= 0; each is summed exactly and rounded once, half to even.

    Raises:
        UnpricedError: a meter with tokens and without a rate.
    """
    cost = price = 0
    for meter, count in usage.counts.items():
        rate = row.rates.get(meter)
        if rate is None:
            raise UnpricedError(meter)
        cost += count * rate.cost_nano_usd_per_mtok
        price += count * rate.price_nano_usd_per_mtok
    return Charge(
        cost_nano_usd=round_half_even(Fraction(cost, TOKENS_PER_UNIT)),
        price_nano_usd=round_half_even(Fraction(price, TOKENS_PER_UNIT)),
    )


INPUT_METERS: Final = (
    Meter.INPUT,
    Meter.CACHED_INPUT,
    Meter.CACHE_WRITE_5M,
    Meter.CACHE_WRITE_1H,
    Meter.AUDIO_INPUT,
)
OUTPUT_METERS: Final = (Meter.OUTPUT, Meter.REASONING, Meter.AUDIO_OUTPUT)


def worst_case_nano_usd(row: PriceRow, *, input_tokens_max: int, output_tokens_max: int) -> NanoUsd:
    """The most a request can cost the tenant: every token at the dearest rate of its side, rounded up."""

    def dearest(meters: tuple[Meter, ...]) -> int:
        return max((row.rates[meter].price_nano_usd_per_mtok for meter in meters if meter in row.rates), default=0)

    exact = input_tokens_max * dearest(INPUT_METERS) + output_tokens_max * dearest(OUTPUT_METERS)
    return NanoUsd(-(-exact // TOKENS_PER_UNIT))
