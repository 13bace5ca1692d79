"""A bounded memory of API keys."""

from collections import Counter, OrderedDict
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from gateway_core.api_keys import ApiKey, KeyHash
from gateway_core.clock import Monotonic
from gateway_core.ids import OrgId, ProjectId

T = TypeVar("T")

ASK_AGAIN_S: Final = 0.5
"""How often a store that is away is asked about one key."""

CHANGES_MAX: Final = 100_000
"""So many of the latest changes are told apart; what was read before those is read again."""

READINGS_MAX: Final = 3
"""How often a key is read that changes while it is."""

ENTRIES_PER_ABSENT: Final = 10
"""For so many keys one is remembered that does not exist. Anybody can invent some, and pushes out only others by that."""


class KeyStore(Protocol):
    """Where keys come from."""

    async def find(self, key_hash: KeyHash) -> ApiKey | None:
        """The key with this hash, or None.

        Raises:
            asyncpg.PostgresError, OSError: unknown right now; the request is refused with 503.
        """


@dataclass(frozen=True, slots=True)
class _Entry:
    """A key as it was read.

    Attributes:
        as_of: how many changes had been announced when it was asked for.
    """

    key: ApiKey
    as_of: int
    read_s: float
    fresh_until_s: float


class KeyCache:
    """Remembers keys and the absence of keys, for a time and up to a number; what was used longest ago is forgotten first.

    A change is pushed by `forget`, `forget_org` or `forget_project`; the time to live bounds what a lost push could do. While the store is away, a key that it
    has shown not long ago is still good, unless it is known to have changed: who cannot be asked cannot have revoked it
    either, but for a network that is cut between.

    Attributes:
        stale_ms: how long ago that may be.
        silence_s: after so long without `hears`, nobody counts on this process any more, and a change may have been announced as known
            everywhere without it: it may have stood still.
        trouble: what the store raises while it is away.
    """

    def __init__(
        self,
        store: KeyStore,
        *,
        entries_max: int,
        ttl_ms: int,
        stale_ms: int,
        silence_s: float,
        trouble: tuple[type[Exception], ...],
        monotonic: Monotonic,
    ) -> None:
        self._store = store
        self._entries_max = entries_max
        self._absent_max = max(1, entries_max // ENTRIES_PER_ABSENT)
        self._ttl_s = ttl_ms / 1000
        self._stale_s = stale_ms / 1000
        self._trouble = trouble
        self._monotonic = monotonic
        self._entries: OrderedDict[KeyHash, _Entry] = OrderedDict()
        self._absent: OrderedDict[KeyHash, float] = OrderedDict()
        self._asking: Counter[KeyHash] = Counter()
        self._changes = 0
        self._changed_as_of: OrderedDict[KeyHash | OrgId | ProjectId, int] = OrderedDict()
        self._told_apart_from = 0
        self._doubted_as_of = 0
        self._silence_s = silence_s
        self._heard_s = monotonic()
        self._is_doubting = False

    def hears(self) -> None:
        """This process is known to run, and has followed every change so far."""
        self._heard_s = self._monotonic()
        self._is_doubting = False

    def is_at_hand(self, key_hash: KeyHash) -> bool:
        """Whether nobody has to be asked anew what this hash stands for, or that it stands for nothing: it is known, or asked for already."""
        return key_hash in self._asking or self._is_known(key_hash)

    def _is_known(self, key_hash: KeyHash) -> bool:
        now_s = self._monotonic()
        entry = self._entries.get(key_hash)
        is_known = (
            entry is not None and entry.fresh_until_s > now_s and self._is_unchanged(key_hash, entry.key, entry.as_of)
        )
        return is_known or self._absent.get(key_hash, now_s) > now_s

    async def find(self, key_hash: KeyHash) -> ApiKey | None:
        """The key with this hash, from memory if it is fresh."""
        if not self._is_doubting and self._monotonic() > self._heard_s + self._silence_s:
            self._is_doubting = True
            self.doubt_all()
        if self._is_known(key_hash):
            if (entry := self._entries.get(key_hash)) is None:
                return None
            self._entries.move_to_end(key_hash)
            return entry.key
        self._asking[key_hash] += 1
        try:
            return await self._read(key_hash)
        except self._trouble:
            # Looked up only now: it may have changed meanwhile.
            entry, now_s = self._entries.get(key_hash), self._monotonic()
            if (
                entry is None
                or now_s >= entry.read_s + self._stale_s
                or not self._is_unchanged(key_hash, entry.key, entry.as_of)
            ):
                raise
            self._entries[key_hash] = replace(entry, fresh_until_s=now_s + ASK_AGAIN_S)
            return entry.key
        finally:
            self._asking[key_hash] -= 1
            if not self._asking[key_hash]:
                del self._asking[key_hash]

    async def _read(self, key_hash: KeyHash) -> ApiKey | None:
        readings = 0
        while True:
            as_of = self._changes
            key = await self._store.find(key_hash)
            readings += 1
            # A change announced while the store was being asked may be newer than its answer.
            if as_of >= self._doubted_as_of and self._is_unchanged(key_hash, key, as_of):
                self._remember(key_hash, key, as_of)
                return key
            if readings == READINGS_MAX:
                return key

    def _is_unchanged(self, key_hash: KeyHash, key: ApiKey | None, as_of: int) -> bool:
        changed = (key_hash,) if key is None else (key_hash, key.org_id, key.project_id)
        return as_of >= self._told_apart_from and all(self._changed_as_of.get(each, 0) <= as_of for each in changed)

    def _remember(self, key_hash: KeyHash, key: ApiKey | None, as_of: int) -> None:
        now_s = self._monotonic()
        if key is None:
            self._entries.pop(key_hash, None)
            _put(self._absent, key_hash, now_s + self._ttl_s, self._absent_max)
        else:
            self._absent.pop(key_hash, None)
            _put(self._entries, key_hash, _Entry(key, as_of, now_s, now_s + self._ttl_s), self._entries_max)

    def forget(self, key_hash: KeyHash) -> None:
        """This key has changed."""
        self._has_changed(key_hash)
        self._entries.pop(key_hash, None)
        self._absent.pop(key_hash, None)

    def forget_org(self, org_id: OrgId) -> None:
        """Every key of this organisation has changed."""
        self._has_changed(org_id)

    def forget_project(self, project_id: ProjectId) -> None:
        """Every key of this project has changed."""
        self._has_changed(project_id)

    def _has_changed(self, what: KeyHash | OrgId | ProjectId) -> None:
        self._changes += 1
        self._changed_as_of[what] = self._changes
        self._changed_as_of.move_to_end(what)
        if len(self._changed_as_of) > CHANGES_MAX:
            _, self._told_apart_from = self._changed_as_of.popitem(last=False)

    def doubt_all(self) -> None:
        """Changes may have been missed: each key is read again before it is used, if the store can be asked."""
        self._changes += 1
        self._doubted_as_of = self._changes
        self._absent.clear()
        for key_hash, entry in self._entries.items():
            self._entries[key_hash] = replace(entry, fresh_until_s=float("-inf"))


def _put(memory: OrderedDict[KeyHash, T], key_hash: KeyHash, value: T, most: int) -> None:
    memory[key_hash] = value
    memory.move_to_end(key_hash)
    if len(memory) > most:
        memory.popitem(last=False)
