"""How far this process has followed the changes of keys and of the catalogue. No I/O, but an event for the task that reports it."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway_core.clock import Monotonic

WAITING_MAX: Final = 1000
"""Changes that wait for leases to end; of more, the newest wait together."""


@dataclass(frozen=True, slots=True)
class TakenUp:
    """Every change of a key up to a number, and for how many seconds already; and the catalogue of a revision.

    The revision is 0 before the catalogue has been read.
    """

    number: int
    age_s: float
    catalog_revision: int


class _Waiting(NamedTuple):
    due_s: float
    number: int | None
    catalog_revision: int


class Uptake:
    """What `follow_changes` and `refresh_offers` have done and `report` tells.

    Changes of keys are announced in the order of their numbers, so the highest one says it all. After a break some may have been
    missed: everything remembered is doubted then, and the newest number has to be looked up.

    What Envoy has been lent before a change, it spends by what was before. So a change is taken up when the last of that is over.

    Attributes:
        news: set when there is something to tell or to look up.
        has_gap: whether the newest number has to be looked up.
    """

    def __init__(self, monotonic: Monotonic, *, leases_end_s: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._leases_end_s = leases_end_s
        self._number: int | None = None
        self._at = 0.0
        self._catalog_revision = 0
        self._waiting: deque[_Waiting] = deque()
        self.has_gap = False
        self.news = asyncio.Event()

    def take_up(self, number: int) -> None:
        """Requests are decided by every change up to this one from now on."""
        self.news.set()
        if not self.has_taken_up(number):
            self._wait(number, self._newest_revision)

    def read_catalog(self, revision: int) -> None:
        """Requests are decided by this revision from now on."""
        if revision != self._newest_revision:
            self._wait(self._newest_number, revision)
            self.news.set()

    def lose_track(self) -> None:
        """Changes may have been missed."""
        self.has_gap = True
        self.news.set()

    def distrust(self) -> None:
        """The number was somebody's invention."""
        self._number = None
        self._waiting = deque(each._replace(number=None) for each in self._waiting)
        self.lose_track()

    def has_taken_up(self, number: int) -> bool:
        """Whether requests are known to be decided by this change, even if leases from before it are not over."""
        newest = self._newest_number
        return newest is not None and number <= newest

    def close_gap(self, number: int) -> None:
        """Every change up to this one is taken up: it is known, or everything was doubted after it was the newest."""
        self.has_gap = False
        self.take_up(number)

    @property
    def next_s(self) -> float | None:
        """After how many seconds there will be something new to tell, if it is known."""
        return max(0.0, self._waiting[0].due_s - self._monotonic()) if self._waiting else None

    @property
    def taken_up(self) -> TakenUp | None:
        """What to tell; None before the first look."""
        self._pass_on()
        if self._number is None:
            return None
        return TakenUp(self._number, self._monotonic() - self._at, self._catalog_revision)

    @property
    def _newest_number(self) -> int | None:
        return self._waiting[-1].number if self._waiting else self._number

    @property
    def _newest_revision(self) -> int:
        return self._waiting[-1].catalog_revision if self._waiting else self._catalog_revision

    def _wait(self, number: int | None, revision: int) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.pop()
        self._waiting.append(_Waiting(max(self._monotonic(), self._leases_end_s()), number, revision))
        self._pass_on()

    def _pass_on(self) -> None:
        now_s = self._monotonic()
        while self._waiting and self._waiting[0].due_s <= now_s:
            due_s, number, self._catalog_revision = self._waiting.popleft()
            if number != self._number:
                self._number, self._at = number, due_s
