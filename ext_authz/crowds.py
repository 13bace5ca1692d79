"""How many checks are under way, and whose: those that flood this process leave places for the others."""

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Final

STRANGERS: Final = "strangers"
"""All who show keys that have to be looked up, together."""


class Crowds:
    """Half of the places are for whoever comes; of the rest nobody has more who has an even share already, one share being left for who comes next."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._present: Counter[Hashable] = Counter()
        self._sum = 0

    @contextmanager
    def of(self, who: Hashable) -> Iterator[bool]:
        """One more, as long as the block runs; False if there are too many already."""
        if not self._has_place(who):
            yield False
            return
        self._present[who] += 1
        self._sum += 1
        try:
            yield True
        finally:
            self._sum -= 1
            self._present[who] -= 1
            if not self._present[who]:
                del self._present[who]

    def _has_place(self, who: Hashable) -> bool:
        if self._sum < self._places // 2:
            return True
        shares = len(self._present) + (who not in self._present) + 1
        return self._sum < self._places and self._present[who] < max(1, self._places // shares)
