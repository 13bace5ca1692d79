"""Prices, what organisations pay in their place, and what a request costs under both. Pure; exact until the one rounding.

Rating and admission both price through `Terms.price`, so what is held is always enough for what is charged.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

from gateway_core.ids import ModelName, PriceVersion, ProviderName
from gateway_core.money import NanoUsd, round_half_even
from gateway_core.usage import (
    ASKED_METERS,
    INPUT_METERS,
    OUTPUT_METERS,
    PROVIDER_METERS,
    STANDARD,
    Meter,
    ServiceTier,
    Usage,
)

_METERS: Final = frozenset(Meter)

UNITS_PER_PRICE: Final = 1_000_000
"""Rates are per million of what the meter counts: for tokens, the unit every provider publishes."""

PPM: Final = 1_000_000
"""A markup is in millionths of the list price: 1 % is 10,000."""

FREE: Final = "free"
"""In the place of a meter in `catalog.prices`: from this version on, nothing costs anything."""

INPUT_TOKENS_ABOVE: Final = "input_tokens_above"
"""A condition there: rows that have it hold for all of a request that reads more tokens than this."""

SERVICE_TIER: Final = "service_tier"
"""A condition there: rows that have it hold for requests that are served at this tier. A batch is the tier `batch`."""


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


@dataclass(frozen=True, slots=True)
class Rates:
    """What holds at one service tier.

    Attributes:
        always: the rates of a request that reads no more tokens than the lowest bound.
        tiers: by ascending bound. Each holds all rates: its own, and for other meters those of the tier below.
    """

    always: Mapping[Meter, Rate]
    tiers: tuple[Tier, ...] = ()

    def at(self, input_tokens: int) -> Mapping[Meter, Rate]:
        """The rates for a request that reads so many tokens."""
        return next(
            (tier.rates for tier in reversed(self.tiers) if input_tokens > tier.input_tokens_above), self.always
        )

    def up_to(self, input_tokens_max: int) -> Sequence[Mapping[Meter, Rate]]:
        """All the rates that a request may get that reads no more tokens than this."""
        return [self.always, *(tier.rates for tier in self.tiers if input_tokens_max > tier.input_tokens_above)]


class UnpricedError(LookupError):
    """Units of a kind this row has no rate for. The caller quarantines the request; a zero would hide it."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(f"no price for meter {meter}")
        self.meter = meter


class UnpricedTierError(LookupError):
    """A service tier this row names no rate for. It may be dearer than the standard one, so that is not taken instead."""

    def __init__(self, tier: ServiceTier) -> None:
        super().__init__(f"no price for service tier {tier}")
        self.tier = tier


class UnusablePriceError(LookupError):
    """The row has a condition from a newer version of this code. Not to know when a rate holds is not to know the price."""


@dataclass(frozen=True, slots=True)
class PriceRow:
    """All rates of one deployment from one catalogue revision on.

    Attributes:
        rates: those that hold without a condition.
        tiers: by ascending bound. Each holds all rates: its own, and for other meters those of the tier below.
        service_tiers: those of other tiers. A meter that a tier names is priced by what names the tier alone, any other one as
            at the standard tier.
        is_free: nothing costs anything, at whatever tier.
        is_usable: False if a part of it could not be understood.
    """

    version: PriceVersion
    rates: Mapping[Meter, Rate]
    tiers: tuple[Tier, ...] = ()
    service_tiers: Mapping[ServiceTier, Rates] = field(default_factory=dict)
    is_free: bool = False
    is_usable: bool = True

    @classmethod
    def of(
        cls, version: int, meters: Sequence[str], conditions: Sequence[str], costs: Sequence[int], prices: Sequence[int]
    ) -> "PriceRow":
        """A row from the columns of `catalog.prices`; conditions as JSON text.

        A meter this version of the code does not know is left out: nothing here can count on it, so nothing needs its price.
        """
        if FREE in meters:
            return cls(
                PriceVersion(version), dict.fromkeys((*PROVIDER_METERS, *ASKED_METERS), Rate(0, 0)), is_free=True
            )
        found: dict[ServiceTier, dict[int | None, dict[Meter, Rate]]] = {STANDARD: {}}
        for meter, condition, cost, price in zip(meters, conditions, costs, prices, strict=True):
            try:
                tier, bound = _condition(condition)
            except UnusablePriceError:
                return cls(PriceVersion(version), {}, is_usable=False)
            rates = found.setdefault(tier, {}).setdefault(bound, {})
            if meter in _METERS:
                rates[Meter(meter)] = Rate(cost_nano_usd_per_mtok=cost, price_nano_usd_per_mtok=price)
        standard = found.pop(STANDARD)
        always = _rates(standard)
        others = {tier: _rates(standard, own) for tier, own in found.items()}
        return cls(PriceVersion(version), always.always, always.tiers, others)

    def rates_for(self, input_tokens: int, tier: ServiceTier = STANDARD) -> Mapping[Meter, Rate]:
        """The rates for a request that reads so many tokens and is served at this tier.

        Raises:
            UnpricedTierError: the tier has none.
            UnusablePriceError: nobody knows.
        """
        return self._at(tier).at(input_tokens)

    def rates_up_to(
        self, input_tokens_max: int, asked: ServiceTier | None = STANDARD
    ) -> Sequence[Mapping[Meter, Rate]]:
        """All the rates that a request may get that reads no more tokens than this.

        Args:
            input_tokens_max: the most tokens it can read.
            asked: the tier it asks for; the provider may serve it at the standard one all the same. None leaves the choice to
                the provider: any that has a price.

        Raises:
            UnpricedTierError: the tier it asks for has none.
            UnusablePriceError: nobody knows.
        """
        standard = self._at(STANDARD)
        possible = [*self.service_tiers.values()] if asked is None else [self._at(asked)]
        return [rates for each in (standard, *possible) for rates in each.up_to(input_tokens_max)]

    def covers(self, meter: Meter, asked: ServiceTier | None = STANDARD) -> bool:
        """Whether a meter has a rate at each tier that a request may be served at; see `rates_up_to`.

        Raises:
            UnpricedTierError: the tier it asks for has none.
            UnusablePriceError: nobody knows.
        """
        return all(meter in rates for rates in self.rates_up_to(0, asked))

    def counts(self, asked: Meter | None) -> bool:
        """Whether a request is charged by what it asks for; if so, then by nothing that the provider counts."""
        return asked is not None and asked in self.rates

    def served_at(self, tier: ServiceTier) -> "PriceRow":
        """The row of a request that is served at a tier for certain, which then is its standard one.

        Raises:
            UnpricedTierError: the tier has no price.
            UnusablePriceError: nobody knows.
        """
        rates = self._at(tier)
        return replace(self, rates=rates.always, tiers=rates.tiers, service_tiers={})

    def _at(self, tier: ServiceTier) -> Rates:
        if not self.is_usable:
            raise UnusablePriceError(f"price version {self.version} has a condition that is not known here")
        if tier == STANDARD or self.is_free:
            return Rates(self.rates, self.tiers)
        if tier not in self.service_tiers:
            raise UnpricedTierError(tier)
        return self.service_tiers[tier]


_NO_BOUND: Final = -1
_ByBound = Mapping[int | None, Mapping[Meter, Rate]]
"""Rates by the bound of their condition; None is that of those that always hold."""


def _rates(standard: _ByBound, own: _ByBound | None = None) -> Rates:
    """The ladder of a tier: its own rates where it has any for a meter, the standard ones elsewhere."""
    own = own or {}
    named = {meter for rates in own.values() for meter in rates}
    steps: list[tuple[int, Mapping[Meter, Rate]]] = []
    always: Mapping[Meter, Rate] = {}
    for bound in sorted({*standard, *own, None}, key=lambda each: _NO_BOUND if each is None else each):
        others = {meter: rate for meter, rate in standard.get(bound, {}).items() if meter not in named}
        rates = {**(steps[-1][1] if steps else always), **others, **own.get(bound, {})}
        if bound is None:
            always = rates
        else:
            steps.append((bound, rates))
    return Rates(always, tuple(Tier(bound, rates) for bound, rates in steps))


def _condition(text: str) -> tuple[ServiceTier, int | None]:
    """The service tier and the bound of a condition; the standard one and None if it says nothing.

    Raises:
        UnusablePriceError: it says something else, or more.
    """
    if text == "{}":
        return STANDARD, None
    found = json.loads(text)
    if not found.keys() <= {SERVICE_TIER, INPUT_TOKENS_ABOVE}:
        raise UnusablePriceError
    tier, bound = found.get(SERVICE_TIER, STANDARD), found.get(INPUT_TOKENS_ABOVE, _NO_BOUND)
    if type(tier) is not str or type(bound) is not int:
        raise UnusablePriceError
    return ServiceTier(tier), None if bound == _NO_BOUND else bound


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


def own_key_terms(fee_ppm: int) -> Terms:
    """What an organisation pays for a request that its own key was good for: a share of the list price, whatever else it has agreed."""
    return Terms(markup_ppm=fee_ppm - PPM)


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
class OwnKeyFee:
    """What is charged at a provider of requests with their organisation's own key, from one catalogue revision on.

    Attributes:
        fee_ppm: in millionths of the list price.
    """

    version: PriceVersion
    fee_ppm: int


@dataclass(frozen=True, slots=True)
class Charge:
    """What one request costs us and what the tenant pays for it."""

    cost_nano_usd: NanoUsd
    price_nano_usd: NanoUsd


def billable(usage: Usage, row: PriceRow) -> Usage:
    """What is charged for: what the provider counts, and the request itself where it has a price.

    Raises:
        UnpricedTierError: the tier it was served at has no price.
        UnusablePriceError: nobody knows.
    """
    if Meter.REQUEST not in row.rates_for(usage.input_tokens, usage.service_tier):
        return usage
    return Usage({**usage.counts, Meter.REQUEST: 1}, usage.service_tier)


def charge(usage: Usage, row: PriceRow, terms: Terms) -> Charge:
    """Price one finished request.

    Args:
        usage: disjoint counts, and the tier it was served at; the request itself is counted here.
        row: the version pinned when the request was admitted, not today's.
        terms: of the same version.

    Returns:
        Both sums in nano-USD, >= 0; each is summed exactly, markup and all, and rounded once, half to even.

    Raises:
        UnpricedError: a meter with a count and without a rate.
        UnpricedTierError: the tier it was served at has no price.
        UnusablePriceError: nobody knows.
    """
    rates = row.rates_for(usage.input_tokens, usage.service_tier)
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


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The most a request can cost the tenant, by how many tokens it makes: every token at the dearest rate of its side.

    Attributes:
        ways: how it may be priced; the dearest counts. Of each, what it costs without any output and what a token of output does,
            exactly: in nano-USD per `UNITS_PER_PRICE * PPM`.
    """

    ways: tuple[tuple[int, int], ...]

    @classmethod
    def of_any(cls, cases: Iterable["WorstCase"]) -> "WorstCase":
        """Of a request that any of several may become."""
        return cls(tuple(way for each in cases for way in each.ways))

    def nano_usd(self, output_tokens_max: int) -> NanoUsd:
        """With as much output, rounded up."""
        exact = max(fixed + output_tokens_max * per_token for fixed, per_token in self.ways)
        return NanoUsd(-(-exact // (UNITS_PER_PRICE * PPM)))

    def output_tokens(self, nano_usd: NanoUsd, *, at_most: int) -> int:
        """The most output for which an amount is enough that is enough for a request without any."""
        exact = nano_usd * UNITS_PER_PRICE * PPM
        return min([at_most, *((exact - fixed) // per_token for fixed, per_token in self.ways if per_token)])


def worst_case(
    row: PriceRow,
    terms: Terms,
    *,
    input_tokens_max: int,
    besides: Mapping[Meter, int] | None = None,
    has_output: bool = True,
    asked_tier: ServiceTier | None = STANDARD,
) -> WorstCase:
    """What a request can cost in each of the service tiers it can be served at, and of the tiers that its input can reach.

    The dearest need not be the highest.

    Args:
        row: the version that it would be charged by.
        terms: of the same version.
        input_tokens_max: the most tokens it can read.
        besides: the most of what is no token; what has no price there costs nothing.
        has_output: whether output is charged for.
        asked_tier: see `PriceRow.rates_up_to`.

    Raises:
        UnpricedTierError: the tier it asks for has no price.
        UnusablePriceError: nobody knows.
    """

    def dearest(meters: Sequence[Meter], rates: Mapping[Meter, Rate]) -> int:
        return max((terms.price(meter, rates[meter]) for meter in meters if meter in rates), default=0)

    return WorstCase(
        tuple(
            (
                input_tokens_max * dearest(INPUT_METERS, rates)
                + sum(count * dearest((meter,), rates) for meter, count in (besides or {}).items())
                + dearest((Meter.REQUEST,), rates),
                dearest(OUTPUT_METERS, rates) if has_output else 0,
            )
            for rates in row.rates_up_to(input_tokens_max, asked_tier)
        )
    )
