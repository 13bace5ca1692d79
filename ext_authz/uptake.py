"""How far this process has followed the changes of keys and of the catalogue. No I/O, but an event for the task that reports it."""

import asyncio
from dataclasses import dataclass

from gateway_core.clock import Monotonic


@dataclass(frozen=True, slots=True)
class TakenUp:
    """Every change of a key up to a number, and for how many seconds already; and the catalogue of a revision.

    The revision is 0 before the catalogue has been read.
    """

    number: int
    age_s: float
    catalog_revision: int


class Uptake:
    """What `follow_changes` and `refresh_offers` have done and `report` tells.

    Changes of keys are announced in the order of their numbers, so the highest one says it all. After a break some may have been
    missed: everything remembered is doubted then, and the newest number has to be looked up.

    Attributes:
        news: set when there is something to tell or to look up.
        has_gap: whether the newest number has to be looked up.
    """

    def __init__(self, monotonic: Monotonic) -> None:
        self._monotonic = monotonic
        self._number: int | None = None
        self._at = 0.0
        self._catalog_revision = 0
        self.has_gap = False
        self.news = asyncio.Event()

    def take_up(self, number: int) -> None:
        """Every change up to this one is taken up."""
        self.news.set()
        if self._number is None or number > self._number:
            self._number = number
            self._at = self._monotonic()

    def read_catalog(self, revision: int) -> None:
        """Requests are decided by this revision from now on."""
        if revision != self._catalog_revision:
            self._catalog_revision = revision
            self.news.set()

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
        if self._number is None:
            return None
        return TakenUp(self._number, self._monotonic() - self._at, self._catalog_revision)
