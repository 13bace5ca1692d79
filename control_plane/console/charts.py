"""Bars over days, as the template draws them in SVG: no script draws, and every figure is in the page as text too. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 180
_LEFT, _BOTTOM, _TOP = 84, 26, 12
_TICKS: Final = 4
_GAP: Final = Decimal("0.2")
"""Of the room of a bar, between it and the next one."""


@dataclass(frozen=True, slots=True)
class Part:
    """One colour of a bar.

    Attributes:
        series: which, counted from 0: its place in the legend.
        y: of its upper edge, from the top.
    """

    series: int
    y: Decimal
    height: Decimal
    said: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One day."""

    x: Decimal
    width: Decimal
    label: str
    is_labelled: bool
    parts: tuple[Part, ...]

    @property
    def middle(self) -> Decimal:
        """Where its label stands."""
        return self.x + self.width / 2


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across, and what it stands for."""

    y: Decimal
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    series: tuple[str, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    bottom: int = HEIGHT - _BOTTOM


@dataclass(frozen=True, slots=True)
class Measured:
    """How much of something there was on a day."""

    day: date
    series: str
    amount: Decimal


SERIES_MAX: Final = 6
OTHERS: Final = "others"


def chart(
    measured: Sequence[Measured], *, first: date, days: int, said: Callable[[Decimal], str], least: Decimal
) -> Chart:
    """A bar for each day, in the colours of what there is most of; what comes behind those is one colour more.

    Args:
        measured: what is shown.
        first: day.
        days: how many.
        said: an amount as text.
        least: how far two lines across are apart at the least.
    """
    totals: dict[str, Decimal] = {}
    for each in measured:
        totals[each.series] = totals.get(each.series, Decimal(0)) + each.amount
    most = sorted(totals, key=lambda name: (-totals[name], name))
    shown = most if len(most) <= SERIES_MAX else [*most[: SERIES_MAX - 1], OTHERS]
    amounts: dict[tuple[date, str], Decimal] = {}
    for each in measured:
        place = (each.day, each.series if each.series in shown else OTHERS)
        amounts[place] = amounts.get(place, Decimal(0)) + each.amount
    all_days = [first + timedelta(days=number) for number in range(days)]
    highest = max(sum((amounts.get((day, name), Decimal(0)) for name in shown), Decimal(0)) for day in all_days)
    step = _step(highest / _TICKS, least)
    top = step * _TICKS
    room = Decimal(HEIGHT - _BOTTOM - _TOP)
    place_of_bar = Decimal(WIDTH - _LEFT) / days
    every = -(-days // 8)
    bars = []
    for number, day in enumerate(all_days):
        parts, y = [], Decimal(HEIGHT - _BOTTOM)
        for series, name in enumerate(shown):
            amount = amounts.get((day, name), Decimal(0))
            if amount > 0:
                height = room * amount / top
                y -= height
                parts.append(Part(series, _short(y), _short(height), f"{day:%b %d}, {name}: {said(amount)}"))
        bars.append(
            Bar(
                x=_short(_LEFT + place_of_bar * (number + _GAP / 2)),
                width=_short(place_of_bar * (1 - _GAP)),
                label=f"{day:%b %d}",
                is_labelled=(days - 1 - number) % every == 0,
                parts=tuple(parts),
            )
        )
    ticks = tuple(
        Tick(_short(HEIGHT - _BOTTOM - room * number / _TICKS), said(step * number)) for number in range(_TICKS + 1)
    )
    return Chart(tuple(bars), ticks, tuple(shown))


def _step(least_step: Decimal, least: Decimal) -> Decimal:
    """The next of 1, 2, 3 or 5 times a power of ten: multiples of it read well."""
    wanted = max(least_step, least)
    power = Decimal(10) ** wanted.adjusted()
    return next(power * times for times in (1, 2, 3, 5, 10) if power * times >= wanted)


def _short(number: Decimal) -> Decimal:
    return number.quantize(Decimal("0.01"))
