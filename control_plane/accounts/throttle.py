"""How often somebody may try: counted in Redis for all replicas together, or per process while Redis is away.

Windows are fixed: the first attempt opens one, and it ends for good after its time.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol

from control_plane.errors import ThrottledError
from gateway_core.clock import Monotonic
from gateway_core.logs import Logger

_ENTRIES_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Limit:
    """So many attempts in a window, for each subject."""

    name: str
    attempts_max: int
    window_s: int


LOGIN_PER_ACCOUNT_AND_SOURCE: Final = Limit("login_account_source", 10, 900)
"""Wrong passwords for one address of a person from one of the network; a right one forgets them."""
LOGIN_PER_ACCOUNT: Final = Limit("login_account", 300, 900)
"""The same from everywhere. Much more, because whoever uses it up keeps the owner out as well."""
LOGIN_PER_SOURCE: Final = Limit("login_source", 300, 900)
"""Attempts with a password, or with a token at the console, from one address of the network, right or wrong."""
PASSWORD_CHANGE: Final = Limit("password_change", 10, 900)
"""Wrong passwords of one user who is logged in; a right one forgets them. Nobody else can use it up."""
OIDC_PER_SOURCE: Final = Limit("oidc_source", 600, 900)
"""Log-ins at an issuer; each counts when it begins and when it ends."""
RESET_PER_SOURCE: Final = Limit("reset_source", 300, 900)
"""Passwords set with the token of a mail."""
MAILS_PER_RECIPIENT: Final = Limit("mails_recipient", 5, 3600)
"""Mails of one purpose to one address. The window is as long as a reset is good for, so the last one that was sent still is."""
SIGN_UP_PER_SOURCE: Final = Limit("sign_up_source", 600, 3600)
"""Registrations and requests for mails."""
ORGS_PER_USER: Final = Limit("orgs_user", 20, 3600)
"""Organisations that a user makes: each has bounds of its own."""
OWN_KEY_CHANGES: Final = Limit("own_key_changes", 60, 3600)
"""Changes of keys for providers, of one organisation and by one user or token: each is a revision of the catalogue."""


class Counters(Protocol):
    """Where attempts are counted."""

    async def add(self, key: str, window_s: int) -> tuple[int, int]:
        """Count one attempt; returns how many in this window, and the seconds left of it.

        Raises:
            CountersUnavailableError: nobody can say right now.
        """

    async def forget(self, key: str) -> None:
        """Begin again at zero.

        Raises:
            CountersUnavailableError: it stays as it is.
        """


class CountersUnavailableError(RuntimeError):
    """The counters cannot be reached."""


class LocalCounters:
    """Counters of this process alone. Full: the oldest are forgotten."""

    def __init__(self, monotonic: Monotonic) -> None:
        self._monotonic = monotonic
        self._windows: OrderedDict[str, tuple[int, float]] = OrderedDict()

    async def add(self, key: str, window_s: int) -> tuple[int, int]:
        """Count one attempt."""
        now = self._monotonic()
        count, ends = self._windows.get(key, (0, 0.0))
        if ends <= now:
            count, ends = 0, now + window_s
        self._windows[key] = (count + 1, ends)
        if len(self._windows) > _ENTRIES_MAX:
            self._windows.popitem(last=False)
        return count + 1, max(1, int(ends - now))

    async def forget(self, key: str) -> None:
        """Begin again at zero."""
        self._windows.pop(key, None)


class Throttle:
    """Refuses what comes too often."""

    def __init__(self, shared: Counters | None, local: LocalCounters, log: Logger) -> None:
        self._shared = shared
        self._local = local
        self._log = log

    async def attempt(self, limit: Limit, subject: str) -> None:
        """Count an attempt and let it pass, or not.

        Raises:
            ThrottledError: one too many.
        """
        count, left_s = await self._add(_key(limit, subject), limit.window_s)
        if count > limit.attempts_max:
            raise ThrottledError(left_s)

    async def admits(self, limit: Limit, subject: str) -> bool:
        """Count an attempt whose caller is told nothing, and say whether it passes."""
        count, _ = await self._add(_key(limit, subject), limit.window_s)
        return count <= limit.attempts_max

    async def forgive(self, limit: Limit, subject: str) -> None:
        """Forget the attempts of a subject that has shown who it is."""
        key = _key(limit, subject)
        await self._local.forget(key)
        if self._shared is not None:
            try:
                await self._shared.forget(key)
            except CountersUnavailableError as error:
                self._log.warning("throttle_unavailable", error=str(error))

    async def _add(self, key: str, window_s: int) -> tuple[int, int]:
        if self._shared is not None:
            try:
                return await self._shared.add(key, window_s)
            except CountersUnavailableError as error:
                self._log.warning("throttle_unavailable", error=str(error))
        return await self._local.add(key, window_s)


def _key(limit: Limit, subject: str) -> str:
    # Hashed: addresses of people do not belong into a cache's key space.
    return f"tollgate:throttle:{limit.name}:{hashlib.sha256(subject.lower().encode()).hexdigest()[:32]}"
