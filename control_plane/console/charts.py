"""Bars over days as SVG, made here so that no script draws and every figure is in the page as text too. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from control_plane.console.figures import usd

WIDTH: Final = 720
HEIGHT: Final = 180
_LEFT, _BOTTOM, _TOP = 64, 24, 10
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
class Spent:
    """What something cost on a day."""

    day: date
    series: str
    amount: Decimal


SERIES_MAX: Final = 6
OTHERS: Final = "others"


def chart(spent: Sequence[Spent], *, first: date, days: int) -> Chart:
    """A bar for each day, in the colours of what costs most; what comes behind those is one colour more."""
    totals: dict[str, Decimal] = {}
    for each in spent:
        totals[each.series] = totals.get(each.series, Decimal(0)) + each.amount
    dearest = sorted(totals, key=lambda name: (-totals[name], name))
    shown = dearest if len(dearest) <= SERIES_MAX else [*dearest[: SERIES_MAX - 1], OTHERS]
    amounts: dict[tuple[date, str], Decimal] = {}
    for each in spent:
        place = (each.day, each.series if each.series in shown else OTHERS)
        amounts[place] = amounts.get(place, Decimal(0)) + each.amount
    all_days = [first + timedelta(days=number) for number in range(days)]
    highest = max(sum((amounts.get((day, name), Decimal(0)) for name in shown), Decimal(0)) for day in all_days)
    top = _round_up(highest)
    room = Decimal(HEIGHT - _BOTTOM - _TOP)
    step = Decimal(WIDTH - _LEFT) / days
    every = -(-days // 8)
    bars = []
    for number, day in enumerate(all_days):
        parts, y = [], Decimal(HEIGHT - _BOTTOM)
        for series, name in enumerate(shown):
            amount = amounts.get((day, name), Decimal(0))
            if amount > 0:
                height = room * amount / top
                y -= height
                parts.append(Part(series, _short(y), _short(height), f"{day:%b %d}, {name}: {usd(str(amount))}"))
        bars.append(
            Bar(
                x=_short(_LEFT + step * (number + _GAP / 2)),
                width=_short(step * (1 - _GAP)),
                label=f"{day:%b %d}",
                is_labelled=(days - 1 - number) % every == 0,
                parts=tuple(parts),
            )
        )
    ticks = tuple(
        Tick(_short(HEIGHT - _BOTTOM - room * number / _TICKS), usd(str(top * number / _TICKS)))
        for number in range(_TICKS + 1)
    )
    return Chart(tuple(bars), ticks, tuple(shown))


def _round_up(amount: Decimal) -> Decimal:
    """The next of 1, 2, 4 or 8 times a power of ten, so that quarters of it read well; a cent for nothing."""
    if amount <= 0:
        return Decimal("0.01")
    power = Decimal(10) ** amount.adjusted()
    return next(power * times for times in (1, 2, 4, 8, 10) if power * times >= amount)


def _short(number: Decimal) -> Decimal:
    return number.quantize(Decimal("0.01"))
