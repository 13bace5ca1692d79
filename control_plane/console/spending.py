"""What organisations have spent, for pages that ask for it again and again: counted at most a tenth of the time, however many look."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from gateway_core.clock import Monotonic

_FRESH_S: Final = 1.0
_SHARE: Final = 10
"""What took a while to count is shown for so many times as long."""
KEPT_MAX: Final = 1000
"""Organisations; of more, who was looked at longest ago is forgotten."""


@dataclass
class _Kept:
    counting: asyncio.Lock = field(default_factory=asyncio.Lock)
    found: Any = None
    good_until: float = float("-inf")


class RecentSpending:
    """The latest count of each organisation that somebody looks at. It asks for no right: who is shown it is for the caller to know."""

    def __init__(self, monotonic: Monotonic) -> None:
        self._monotonic = monotonic
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def of(self, org_id: str, count: Callable[[], Awaitable[Any]]) -> Any:
        """The count of an organisation, a few seconds old at most unless it takes long."""
        kept = self._kept.setdefault(org_id, _Kept())
        self._kept.move_to_end(org_id)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        async with kept.counting:
            began = self._monotonic()
            if began >= kept.good_until:
                kept.found = await count()
                took_s = self._monotonic() - began
                kept.good_until = began + took_s + max(_FRESH_S, _SHARE * took_s)
        return kept.found
