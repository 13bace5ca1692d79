"""When keys were last used, gathered in memory and handed out now and then, so that no request waits for it. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from gateway_core.ids import KeyId

AGAIN_AFTER: Final = timedelta(minutes=1)
"""How long what was written about a key is good enough."""


class KeyUses:
    """Up to `keys_max` keys; when there are more, the use of another one is left out until these have been written."""

    def __init__(self, *, keys_max: int) -> None:
        self._keys_max = keys_max
        self._seen: dict[KeyId, datetime] = {}
        self._written: dict[KeyId, datetime] = {}

    def note(self, key_id: KeyId, now: datetime) -> None:
        """A key was used."""
        if key_id in self._seen or len(self._seen) < self._keys_max:
            self._seen[key_id] = now

    def due(self, now: datetime) -> Mapping[KeyId, datetime]:
        """The latest use of every key about which nothing was written for a while."""
        self._written = {key_id: at for key_id, at in self._written.items() if now - at < AGAIN_AFTER}
        return {key_id: at for key_id, at in self._seen.items() if key_id not in self._written}

    def written(self, uses: Mapping[KeyId, datetime], now: datetime) -> None:
        """These have been written."""
        for key_id, at in uses.items():
            self._written[key_id] = now
            if self._seen.get(key_id) == at:
                del self._seen[key_id]
