"""Public lists of models and prices, whatever their format: what one says of a model at a provider. Pure."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final

from pydantic import Field

from control_plane.catalog.price_specs import Condition, MeterPrice, Unit, amount_per
from control_plane.errors import pointer
from control_plane.resource import Resource
from gateway_core.endpoints import SOLD_UNLESS_TOLD, Endpoint
from gateway_core.money import MAX_NANO_USD, NANO_PER_USD
from gateway_core.pricing import UNITS_PER_PRICE
from gateway_core.providers import ProviderKind
from gateway_core.usage import Meter

Json = Mapping[str, object]
"""An object of a list; its numbers with a point are `Decimal`."""

Rates = dict[tuple[Meter, int | None], int]
"""Nano-USD per million units, by meter and the number of input tokens above which it holds; None: always."""

_NUMBER: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?")
_DATE: Final = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}")
_EXPONENT_MAX: Final = 40
_UNITS: Final[Mapping[Meter, Unit]] = {
    Meter.REQUEST: Unit.MILLION_REQUESTS,
    Meter.IMAGE: Unit.IMAGE,
    Meter.CHARACTER: Unit.MILLION_CHARACTERS,
    Meter.SEARCH_UNIT: Unit.THOUSAND_SEARCH_UNITS,
}
"""As they are published; tokens per million."""


class Skipped(Resource):
    """What was not taken over."""

    pointer: str = Field(description="Where it stands, as a JSON pointer into the content.")
    reason: str


class SkipError(Exception):
    """An entry that cannot be taken over, with where and why."""

    def __init__(self, steps: tuple[str | int, ...], reason: str) -> None:
        super().__init__(reason)
        self.skipped = Skipped(pointer=pointer(steps), reason=reason)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a list, not yet read.

    Attributes:
        steps: where it stands in the list.
        provider: as the list calls it.
        model: the provider's own name for it.
    """

    steps: tuple[str | int, ...]
    provider: str
    model: str
    fields: Json


@dataclass(frozen=True, slots=True)
class Listing:
    """One entry, read.

    Attributes:
        base_url: where the provider is, if that is known.
        endpoints: on which it can be sold.
        notes: parts of it that could not be taken over.
    """

    kind: ProviderKind
    base_url: str | None
    owned_by: str
    context_tokens: int
    max_output_tokens: int
    capabilities: tuple[str, ...]
    deprecated_at: datetime | None
    rates: Rates
    endpoints: tuple[Endpoint, ...] = SOLD_UNLESS_TOLD
    notes: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PriceList:
    """A format.

    Attributes:
        entries: all that content has; raises `SkipError` if it is not of the format at all, yields one for what is no entry.
        read: raises `SkipError` for an entry that cannot be taken over.
    """

    entries: Callable[[Json], Iterator[Entry | SkipError]]
    read: Callable[[Entry], Listing]


def exact_rate(value: object, steps: tuple[str | int, ...]) -> int:
    """An amount in US dollars per unit, as a number or as text, as we keep it.

    Raises:
        SkipError: it is none, or it cannot be kept exactly.
    """
    match value:
        case int() | Decimal() if not isinstance(value, bool):
            number = Decimal(value)
        case str() if _NUMBER.fullmatch(value):
            number = Decimal(value)
        case _:
            raise SkipError(steps, "not an amount")
    if number < 0:
        raise SkipError(steps, "below zero: there is no fixed price")
    # Before anything is multiplied out: an exponent makes a short text a long number.
    exact = Fraction(number) * NANO_PER_USD * UNITS_PER_PRICE if abs(number.adjusted()) <= _EXPONENT_MAX else None
    if exact is None or exact.denominator != 1:
        raise SkipError(steps, "not a whole number of nano-USD per million; it would have to be rounded")
    if exact > MAX_NANO_USD:
        raise SkipError(steps, "too large")
    return int(exact)


def count(fields: Json, *names: str) -> int | None:
    """The first of these fields that holds a count above zero."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, int | Decimal) and not isinstance(value, bool) and value > 0 and value == int(value):
            return int(value)
    return None


def date(fields: Json, name: str, steps: tuple[str | int, ...], notes: list[Skipped]) -> datetime | None:
    """The beginning of a day, in UTC."""
    value = fields.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, str) and _DATE.fullmatch(value):
            return datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:  # such as February 30
        pass
    notes.append(Skipped(pointer=pointer((*steps, name)), reason="not a date as YYYY-MM-DD"))
    return None


def meter_prices(rates: Rates, kind: ProviderKind) -> list[MeterPrice]:
    """Prices for every meter that a provider of the kind may count.

    A list leaves out what is not billed apart: input from a cache costs what input costs, reasoning what output costs.
    """
    complete = _like(rates, Meter.CACHED_INPUT, Meter.INPUT)
    if kind is not ProviderKind.ANTHROPIC:  # counts no reasoning
        complete = _like(complete, Meter.REASONING, Meter.OUTPUT)
    return [
        MeterPrice(
            meter=meter,
            unit=(unit := _UNITS.get(meter, Unit.MILLION_TOKENS)),
            condition=Condition(input_tokens_above=bound),
            cost=amount_per(rate, unit),
        )
        for (meter, bound), rate in complete.items()
    ]


def _like(rates: Rates, meter: Meter, other: Meter) -> Rates:
    if (meter, None) in rates:
        return rates
    return rates | {(meter, bound): rate for (priced, bound), rate in rates.items() if priced is other}
