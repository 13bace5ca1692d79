"""Prices, what organisations pay in their place, and what a request costs under both. Pure; exact until the one rounding.

Rating and admission both price through `Terms.price`, so what is held is always enough for what is charged.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from gateway_core.ids import ModelName, PriceVersion, ProviderName
from gateway_core.money import NanoUsd, round_half_even
from gateway_core.usage import INPUT_METERS, OUTPUT_METERS, TOKEN_METERS, Meter, Usage

_METERS: Final = frozenset(Meter)

UNITS_PER_PRICE: Final = 1_000_000
"""Rates are per million of what the meter counts: for tokens, the unit every provider publishes."""

PPM: Final = 1_000_000
"""A markup is in millionths of the list price: 1 % is 10,000."""

FREE: Final = "free"
"""In the place of a meter in `catalog.prices`: from this version on, nothing costs anything."""

INPUT_TOKENS_ABOVE: Final = "input_tokens_above"
"""The condition there is: rows that have it hold for all of a request that reads more tokens than this."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What one meter costs us and its list price, each in nano-USD per million units, >= 0."""

    cost_nano_usd_per_mtok: int
    price_nano_usd_per_mtok: int


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates for requests that read more tokens than the bound; for the whole request, not for what is above it."""

    input_tokens_above: int
    rates: Mapping[Meter, Rate]


class UnpricedError(LookupError):
    """Units of a kind this row has no rate for. The caller quarantines the request; a zero would hide it."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(f"no price for meter {meter}")
        self.meter = meter


class UnusablePriceError(LookupError):
    """The row has a condition from a newer version of this code. Not to know when a rate holds is not to know the price."""


@dataclass(frozen=True, slots=True)
class PriceRow:
    """All rates of one deployment from one catalogue revision on.

    Attributes:
        rates: those that hold without a condition.
        tiers: by ascending bound. Each holds all rates: its own, and for other meters those of the tier below.
        is_usable: False if a part of it could not be understood.
    """

    version: PriceVersion
    rates: Mapping[Meter, Rate]
    tiers: tuple[Tier, ...] = ()
    is_usable: bool = True

    @classmethod
    def of(
        cls, version: int, meters: Sequence[str], conditions: Sequence[str], costs: Sequence[int], prices: Sequence[int]
    ) -> "PriceRow":
        """A row from the columns of `catalog.prices`; conditions as JSON text.

        A meter this version of the code does not know is left out: nothing here can count on it, so nothing needs its price.
        """
        if FREE in meters:
            return cls(PriceVersion(version), dict.fromkeys(TOKEN_METERS, Rate(0, 0)))
        always: dict[Meter, Rate] = {}
        by_bound: dict[int, dict[Meter, Rate]] = {}
        for meter, condition, cost, price in zip(meters, conditions, costs, prices, strict=True):
            try:
                bound = _bound(condition)
            except UnusablePriceError:
                return cls(PriceVersion(version), {}, is_usable=False)
            rates = always if bound is None else by_bound.setdefault(bound, {})
            if meter in _METERS:
                rates[Meter(meter)] = Rate(cost_nano_usd_per_mtok=cost, price_nano_usd_per_mtok=price)
        tiers, below = [], always
        for bound, rates in sorted(by_bound.items()):
            below = below | rates
            tiers.append(Tier(bound, below))
        return cls(PriceVersion(version), always, tuple(tiers))

    def rates_for(self, input_tokens: int) -> Mapping[Meter, Rate]:
        """The rates for a request that reads so many tokens.

        Raises:
            UnusablePriceError: nobody knows.
        """
        self._check()
        return next((tier.rates for tier in reversed(self.tiers) if input_tokens > tier.input_tokens_above), self.rates)

    def rates_up_to(self, input_tokens_max: int) -> Sequence[Mapping[Meter, Rate]]:
        """All the rates that a request may get that reads no more tokens than this.

        Raises:
            UnusablePriceError: nobody knows.
        """
        self._check()
        return [self.rates, *(tier.rates for tier in self.tiers if input_tokens_max > tier.input_tokens_above)]

    def _check(self) -> None:
        if not self.is_usable:
            raise UnusablePriceError(f"price version {self.version} has a condition that is not known here")


def _bound(condition: str) -> int | None:
    """The bound of a condition; None for the one that always holds.

    Raises:
        UnusablePriceError: it says something else, or more.
    """
    if condition == "{}":
        return None
    found = json.loads(condition)
    bound = found.pop(INPUT_TOKENS_ABOVE, None)
    if found or type(bound) is not int:
        raise UnusablePriceError
    return bound


@dataclass(frozen=True, slots=True)
class Terms:
    """What an organisation pays for a deployment. What the deployment costs us is not theirs to change.

    Attributes:
        markup_ppm: what is added to each list price, in millionths of it; >= -1,000,000.
        prices: in the place of list price and markup, in nano-USD per million units; in every tier. Only for meters that the
            deployment has a price for.
    """

    markup_ppm: int = 0
    prices: Mapping[Meter, int] = field(default_factory=dict)

    def price(self, meter: Meter, rate: Rate) -> int:
        """What a unit of a meter costs the organisation, exactly: in nano-USD per `UNITS_PER_PRICE * PPM` units."""
        own = self.prices.get(meter)
        return rate.price_nano_usd_per_mtok * (PPM + self.markup_ppm) if own is None else own * PPM


LIST_TERMS: Final = Terms()
"""Those of an organisation without any: list prices."""


@dataclass(frozen=True, slots=True)
class OrgTerms:
    """The terms of an organisation from one catalogue revision on.

    Attributes:
        overrides: prices by model and provider; None stands for every provider, and yields to one that is named.
    """

    version: PriceVersion
    markup_ppm: int = 0
    overrides: Mapping[tuple[ModelName, ProviderName | None], Mapping[Meter, int]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        version: int,
        markup_ppm: int,
        overrides: Sequence[tuple[str | None, str | None, str | None, int | None]],
    ) -> "OrgTerms":
        """Terms from the columns of `catalog.terms` and of its rows in `catalog.term_prices`: model, provider, meter, price.

        A meter this version of the code does not know is left out, as is the row of nulls of an outer join.
        """
        found: dict[tuple[ModelName, ProviderName | None], dict[Meter, int]] = {}
        for model, provider, meter, price in overrides:
            if model is not None and meter in _METERS and price is not None:
                key = ModelName(model), None if provider is None else ProviderName(provider)
                found.setdefault(key, {})[Meter(meter)] = price
        return cls(PriceVersion(version), markup_ppm, found)

    def at(self, model: ModelName, provider: ProviderName) -> Terms:
        """The terms for one deployment."""
        return Terms(
            self.markup_ppm, {**self.overrides.get((model, None), {}), **self.overrides.get((model, provider), {})}
        )


@dataclass(frozen=True, slots=True)
class Charge:
    """What one request costs us and what the tenant pays for it."""

    cost_nano_usd: NanoUsd
    price_nano_usd: NanoUsd


def billable(usage: Usage, row: PriceRow) -> Usage:
    """What is charged for: the tokens, and the request itself where it has a price.

    Raises:
        UnusablePriceError: nobody knows.
    """
    if Meter.REQUEST not in row.rates_for(usage.input_tokens):
        return usage
    return Usage({**usage.counts, Meter.REQUEST: 1})


def charge(usage: Usage, row: PriceRow, terms: Terms) -> Charge:
    """Price one finished request.

    Args:
        usage: disjoint counts of tokens; the request itself is counted here.
        row: the version pinned when the request was admitted, not today's.
        terms: of the same version.

    Returns:
        Both sums in nano-USD, >= 0; each is summed exactly, markup and all, and rounded once, half to even.

    Raises:
        UnpricedError: a meter with tokens and without a rate.
        UnusablePriceError: nobody knows.
    """
    rates = row.rates_for(usage.input_tokens)
    cost = price = 0
    for meter, count in billable(usage, row).counts.items():
        rate = rates.get(meter)
        if rate is None:
            raise UnpricedError(meter)
        cost += count * rate.cost_nano_usd_per_mtok
        price += count * terms.price(meter, rate)
    return Charge(
        cost_nano_usd=round_half_even(Fraction(cost, UNITS_PER_PRICE)),
        price_nano_usd=round_half_even(Fraction(price, UNITS_PER_PRICE * PPM)),
    )


def worst_case_nano_usd(row: PriceRow, terms: Terms, *, input_tokens_max: int, output_tokens_max: int) -> NanoUsd:
    """The most a request can cost the tenant: every token at the dearest rate of its side, rounded up.

    In the dearest of the tiers that its input can reach; the dearest need not be the highest.

    Raises:
        UnusablePriceError: nobody knows.
    """

    def dearest(meters: Sequence[Meter], rates: Mapping[Meter, Rate]) -> int:
        return max((terms.price(meter, rates[meter]) for meter in meters if meter in rates), default=0)

    exact = max(
        input_tokens_max * dearest(INPUT_METERS, rates)
        + output_tokens_max * dearest(OUTPUT_METERS, rates)
        + dearest((Meter.REQUEST,), rates)
        for rates in row.rates_up_to(input_tokens_max)
    )
    return NanoUsd(-(-exact // (UNITS_PER_PRICE * PPM)))
