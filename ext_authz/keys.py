"""A bounded memory of API keys."""

from collections import OrderedDict
from typing import Protocol

from gateway_core.api_keys import ApiKey, KeyHash
from gateway_core.clock import Monotonic


class KeyStore(Protocol):
    """Where keys come from."""

    async def find(self, key_hash: KeyHash) -> ApiKey | None:
        """The key with this hash, or None.

        Raises:
            asyncpg.PostgresError, OSError: unknown right now; the request is refused with 503.
        """


class KeyCache:
    """Remembers keys and the absence of keys, for a time and up to a number.

    A change is pushed by `forget`; the time to live bounds what a lost push could do.
    """

    def __init__(self, store: KeyStore, *, entries_max: int, ttl_ms: int, monotonic: Monotonic) -> None:
        self._store = store
        self._entries_max = entries_max
        self._ttl_s = ttl_ms / 1000
        self._monotonic = monotonic
        self._entries: OrderedDict[KeyHash, tuple[float, ApiKey | None]] = OrderedDict()
        self._changes = 0

    async def find(self, key_hash: KeyHash) -> ApiKey | None:
        """The key with this hash, from memory if it is fresh."""
        entry = self._entries.get(key_hash)
        if entry is not None and entry[0] > self._monotonic():
            return entry[1]
        changes = self._changes
        key = await self._store.find(key_hash)
        # A change announced while the store was being asked may be newer than its answer: do not keep that.
        if changes == self._changes:
            self._entries[key_hash] = (self._monotonic() + self._ttl_s, key)
            self._entries.move_to_end(key_hash)
            if len(self._entries) > self._entries_max:
                self._entries.popitem(last=False)
        return key

    def forget(self, key_hash: KeyHash) -> None:
        """This key has changed."""
        self._changes += 1
        self._entries.pop(key_hash, None)

    def forget_all(self) -> None:
        """Changes may have been missed."""
        self._changes += 1
        self._entries.clear()
