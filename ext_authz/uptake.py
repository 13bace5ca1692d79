"""How far this process has followed the changes of keys. No I/O, but an event for the task that reports it."""

import asyncio
from dataclasses import dataclass

from gateway_core.clock import Monotonic


@dataclass(frozen=True, slots=True)
class TakenUp:
    """Every change up to a number, and for how many seconds already."""

    number: int
    age_s: float


class Uptake:
    """What `follow_changes` has done and `report` tells.

    Changes are announced in the order of their numbers, so the highest one says it all. After a break some may have been
    missed: everything remembered is forgotten then, and the newest number has to be looked up.

    Attributes:
        news: set when there is something to tell or to look up.
        has_gap: whether the newest number has to be looked up.
    """

    def __init__(self, monotonic: Monotonic) -> None:
        self._monotonic = monotonic
        self._number: int | None = None
        self._at = 0.0
        self.has_gap = False
        self.news = asyncio.Event()

    def take_up(self, number: int) -> None:
        """Every change up to this one is taken up."""
        self.news.set()
        if self._number is None or number > self._number:
            self._number = number
            self._at = self._monotonic()

    def lose_track(self) -> None:
        """Changes may have been missed."""
        self.has_gap = True
        self.news.set()

    def distrust(self) -> None:
        """The number was somebody's invention."""
        self._number = None
        self.lose_track()

    def has_taken_up(self, number: int) -> bool:
        """Whether this change is known to be taken up."""
        return self._number is not None and number <= self._number

    def close_gap(self, number: int) -> None:
        """Every change up to this one is taken up: it is known, or everything was doubted after it was the newest."""
        self.has_gap = False
        self.take_up(number)

    @property
    def taken_up(self) -> TakenUp | None:
        """What to tell; None before the first look."""
        return None if self._number is None else TakenUp(self._number, self._monotonic() - self._at)
