"""How many checks of each organisation are under way: one that floods this process leaves places for the others."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway_core.ids import OrgId


class Crowds:
    """Of all checks that this process takes at once, an organisation has half at the most."""

    def __init__(self, checks_max: int) -> None:
        self._most = max(1, checks_max // 2)
        self._present: Counter[OrgId] = Counter()

    @contextmanager
    def of(self, org_id: OrgId) -> Iterator[bool]:
        """One more, as long as the block runs; False if there are too many already."""
        if self._present[org_id] >= self._most:
            yield False
            return
        self._present[org_id] += 1
        try:
            yield True
        finally:
            self._present[org_id] -= 1
            if not self._present[org_id]:
                del self._present[org_id]
