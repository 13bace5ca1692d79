"""What operators say of prices, and of what single organisations pay: bodies of the API and parts of the catalogue's file.

Amounts are decimal strings per unit. Inside they are integers of nano-USD per million of what the meter counts, so an amount
is exact or it is refused. Pure: what needs a look at the rest of the catalogue is checked when it is written.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, ClassVar, Final

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from control_plane.catalog.percentages import Markup
from control_plane.catalog.specs import ModelNameText, ProviderNameText
from control_plane.errors import InvalidField, pointer
from control_plane.fields import Body, Moment, PartFault, refuse_parts
from gateway_core.money import MAX_NANO_USD, NANO_PER_USD
from gateway_core.pricing import FREE, UNITS_PER_PRICE
from gateway_core.usage import MAX_TOKENS, STANDARD, TOKEN_METERS, Meter, service_tier

PRICES_MAX: Final = 100
OVERRIDES_MAX: Final = 1000
_DECIMALS: Final = 15
"""Of an amount per unit: a nano-USD per million of it."""


class Unit(StrEnum):
    """What an amount is per. A meter that counts something else brings units of its own."""

    TOKEN = "token"  # noqa: S105 - not that kind
    THOUSAND_TOKENS = "1K tokens"
    MILLION_TOKENS = "1M tokens"
    REQUEST = "request"
    THOUSAND_REQUESTS = "1K requests"
    MILLION_REQUESTS = "1M requests"
    IMAGE = "image"
    THOUSAND_IMAGES = "1K images"
    CHARACTER = "character"
    THOUSAND_CHARACTERS = "1K characters"
    MILLION_CHARACTERS = "1M characters"
    SEARCH_UNIT = "search unit"
    THOUSAND_SEARCH_UNITS = "1K search units"
    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    SEARCH = "search"
    THOUSAND_SEARCHES = "1K searches"


_TOKEN_UNITS: Final = {Unit.TOKEN: 1, Unit.THOUSAND_TOKENS: 1000, Unit.MILLION_TOKENS: 1_000_000}
_REQUEST_UNITS: Final = {Unit.REQUEST: 1, Unit.THOUSAND_REQUESTS: 1000, Unit.MILLION_REQUESTS: 1_000_000}
_SEARCH_UNITS: Final = {Unit.SEARCH: 1, Unit.THOUSAND_SEARCHES: 1000}
_IMAGE_UNITS: Final = {Unit.IMAGE: 1, Unit.THOUSAND_IMAGES: 1000}
_CHARACTER_UNITS: Final = {Unit.CHARACTER: 1, Unit.THOUSAND_CHARACTERS: 1000, Unit.MILLION_CHARACTERS: 1_000_000}
_SEARCH_UNIT_UNITS: Final = {Unit.SEARCH_UNIT: 1, Unit.THOUSAND_SEARCH_UNITS: 1000}
_TIME_UNITS: Final = {Unit.SECOND: 1, Unit.MINUTE: 60, Unit.HOUR: 3600}
_SIZES: Final[Mapping[Unit, int]] = {
    **_TOKEN_UNITS,
    **_REQUEST_UNITS,
    **_SEARCH_UNITS,
    **_IMAGE_UNITS,
    **_CHARACTER_UNITS,
    **_SEARCH_UNIT_UNITS,
    **_TIME_UNITS,
}
UNITS_BY_METER: Final[Mapping[Meter, Mapping[Unit, int]]] = {
    **dict.fromkeys(TOKEN_METERS, _TOKEN_UNITS),
    Meter.REQUEST: _REQUEST_UNITS,
    Meter.WEB_SEARCH: _SEARCH_UNITS,
    Meter.IMAGE: _IMAGE_UNITS,
    Meter.CHARACTER: _CHARACTER_UNITS,
    Meter.SEARCH_UNIT: _SEARCH_UNIT_UNITS,
    Meter.AUDIO_SECOND: _TIME_UNITS,
}


class InexactAmountError(ValueError):
    """An amount that is no whole number of nano-USD per million, or more of them than can be kept."""


def nano_usd_per_million(amount: str, unit: Unit) -> int:
    """An amount in US dollars per unit, as it is kept.

    Raises:
        InexactAmountError: it cannot be kept exactly.
    """
    exact = Fraction(amount) * NANO_PER_USD * UNITS_PER_PRICE / _SIZES[unit]
    if exact.denominator != 1:
        raise InexactAmountError("must be a whole number of nano-USD per million")
    if exact > MAX_NANO_USD:
        raise InexactAmountError("is too large")
    return int(exact)


def amount_per(nano_usd_per_million: int, unit: Unit) -> str:
    """The decimal string of what is kept, per unit: at least two decimals, no trailing zeros beyond them."""
    whole, rest = divmod(nano_usd_per_million * _SIZES[unit], 10**_DECIMALS)
    return f"{whole}.{f'{rest:0{_DECIMALS}d}'.rstrip('0').ljust(2, '0')}"


def _is_a_tier_with_prices_of_its_own(text: str) -> str:
    if service_tier(text) != text or text == STANDARD:
        raise ValueError(f"'{text}' is the standard tier, whose prices have no condition on it")
    return text


class Condition(Body):
    """When a price holds: always, unless it says more."""

    input_tokens_above: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = Field(
        default=None,
        description="Only for requests that read more tokens than this, cached ones included. It then holds for the whole "
        "request; of several, the one with the highest bound.",
    )
    service_tier: (
        Annotated[
            str,
            StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$"),
            AfterValidator(_is_a_tier_with_prices_of_its_own),
        ]
        | None
    ) = Field(
        default=None,
        description="Only for requests that the provider says it served at this tier, in its own word: flex, priority, batch, fast, "
        "... A meter with prices at a tier is priced by these alone there; any other one as without a tier. Requests at a tier "
        "that no price names are not charged but set aside, and refused if they ask for it.",
    )

    @property
    def is_without_bound(self) -> bool:
        """Whether it holds however much a request reads."""
        return self.input_tokens_above is None


def _canonical(condition: Condition) -> dict[str, int | str]:
    return condition.model_dump(exclude_none=True)


def _is_of_the_meter(unit: Unit, info: ValidationInfo[object]) -> Unit:
    meter = info.data.get("meter")
    if meter is not None and unit not in UNITS_BY_METER[meter]:
        raise ValueError(f"{meter} is counted in: {', '.join(UNITS_BY_METER[meter])}")
    return unit


def _is_exact(amount: str, info: ValidationInfo[object]) -> str:
    unit = info.data.get("unit")
    if unit is not None:
        nano_usd_per_million(amount, unit)
    return amount


UnitOfMeter = Annotated[Unit, AfterValidator(_is_of_the_meter)]
Amount = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,10}(\.[0-9]{1,15})?$"),
    AfterValidator(_is_exact),
    Field(description="US dollars, per unit.", examples=["0.15"]),
]


class MeterPrice(Body):
    """What one meter costs, always or under a condition."""

    meter: Meter
    unit: UnitOfMeter
    condition: Annotated[Condition, PlainSerializer(_canonical)] = Condition()
    cost: Amount = Field(description="What the provider charges us.")
    price: Amount | None = Field(
        default=None, description="The list price: what tenants pay. Left out, it is the cost."
    )

    def row(self) -> dict[str, object]:
        """The columns of `catalog.prices` that it fills."""
        return {
            "meter": self.meter,
            "unit": self.unit,
            "condition": _canonical(self.condition),
            "cost_nano_usd_per_mtok": nano_usd_per_million(self.cost, self.unit),
            "price_nano_usd_per_mtok": nano_usd_per_million(self.price or self.cost, self.unit),
        }


class PriceSpec(Body):
    """A price version: all prices of a deployment, in the place of all it had before."""

    free: bool = Field(default=False, description="Nothing costs anything, and `prices` is empty.")
    prices: list[MeterPrice] = Field(
        default=[],
        max_length=PRICES_MAX,
        description="One for every meter that the provider may count: what has no price is not charged but set aside.",
        examples=[
            [
                {"meter": "input", "unit": "1M tokens", "cost": "0.15", "price": "0.18"},
                {"meter": "cached_input", "unit": "1M tokens", "cost": "0.075", "price": "0.09"},
                {"meter": "output", "unit": "1M tokens", "cost": "0.60", "price": "0.72"},
                {"meter": "reasoning", "unit": "1M tokens", "cost": "0.60", "price": "0.72"},
            ]
        ],
    )

    def rows(self) -> list[dict[str, object]]:
        """The rows of `catalog.prices` that it becomes."""
        if self.free:
            unit = Unit.MILLION_TOKENS
            return [
                {
                    "meter": FREE,
                    "unit": unit,
                    "condition": {},
                    "cost_nano_usd_per_mtok": 0,
                    "price_nano_usd_per_mtok": 0,
                }
            ]
        return [each.row() for each in self.prices]

    def faults(self) -> list[InvalidField]:
        """Where its parts contradict each other."""
        return [
            InvalidField("/prices" + pointer(each.steps), each.detail)
            for each in _contradictions(self.prices, free=self.free)
        ]


def _contradictions(prices: Sequence[MeterPrice], *, free: bool) -> list[PartFault]:
    if free:
        return [PartFault((), "a free version has none")] if prices else []
    if not prices:
        return [PartFault((), "at least one, or free: true")]
    always = {(each.meter, each.condition.service_tier) for each in prices if each.condition.is_without_bound}
    seen: set[tuple[Meter, Condition]] = set()
    faults = []
    for number, each in enumerate(prices):
        if (each.meter, each.condition) in seen:
            faults.append(PartFault((number,), "the same meter under the same condition twice"))
        if not always >= {(each.meter, None), (each.meter, each.condition.service_tier)}:
            detail = "the meter needs a price without a condition, and one at the service tier without a bound"
            faults.append(PartFault((number, "condition"), detail))
        seen.add((each.meter, each.condition))
    return faults


class PriceChange(PriceSpec):
    """A price version of a deployment."""

    model_config: ClassVar[ConfigDict] = ConfigDict(validate_default=True)

    model: ModelNameText
    provider: ProviderNameText
    effective_from: Moment | None = Field(
        default=None, description="Left out or past: now. Until a later moment it can be withdrawn."
    )

    @field_validator("prices")
    @classmethod
    def _fit_together(cls, prices: list[MeterPrice], info: ValidationInfo[object]) -> list[MeterPrice]:
        free: bool | None = info.data.get("free")
        if free is not None:
            refuse_parts(_contradictions(prices, free=free))
        return prices


class PriceOverride(Body):
    """A price of an organisation's own. It changes the price of a meter that has one, in all its tiers."""

    meter: Meter
    unit: UnitOfMeter
    model: ModelNameText
    provider: ProviderNameText | None = Field(
        default=None, description="Null: at every provider that no other override of the model names."
    )
    price: Amount

    def row(self) -> dict[str, object]:
        """The columns of `catalog.term_prices` that it fills."""
        return {
            "model": self.model,
            "provider": self.provider,
            "meter": self.meter,
            "unit": self.unit,
            "price_nano_usd_per_mtok": nano_usd_per_million(self.price, self.unit),
        }


def _each_once(overrides: list[PriceOverride]) -> list[PriceOverride]:
    seen: set[tuple[str, str | None, Meter]] = set()
    faults = []
    for number, each in enumerate(overrides):
        key = (each.model, each.provider, each.meter)
        if key in seen:
            faults.append(PartFault((number,), "the same meter of the same model twice"))
        seen.add(key)
    refuse_parts(faults)
    return overrides


class TermsSpec(Body):
    """What an organisation pays in the place of list prices. What a request costs us is the same."""

    markup_percent: Markup = Field(default="0", description="Added to every list price; below zero it is a discount.")
    overrides: Annotated[list[PriceOverride], Field(max_length=OVERRIDES_MAX), AfterValidator(_each_once)] = Field(
        default=[],
        description="Prices in the place of list price and markup.",
        examples=[[{"model": "gpt-4o-mini", "meter": "output", "unit": "1M tokens", "price": "0.50"}]],
    )
