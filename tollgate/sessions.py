"""Who is logged in where: one private file. A refresh token is used once, whatever number of processes share the file.

Reuse of a refresh token ends its session, so tokens are exchanged by whoever holds the lock, and everybody else takes what
that one has written.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from gateway_core.clock import Now
from local_stack.secret_files import DIRECTORY_MODE, FILE_MODE, write_private
from tollgate.errors import CommandError, NotLoggedInError

_MARGIN: Final = timedelta(seconds=30)
"""A token this near its end is exchanged at once: the request it goes with takes time too."""


@dataclass(frozen=True, slots=True)
class Session:
    """One log-in.

    Attributes:
        expires_at: of the access token, in ISO 8601.
    """

    email: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: str

    @classmethod
    def of(cls, email: str, tokens: Mapping[str, Any], now: datetime) -> "Session":
        """From the answer of `/auth/login` or `/auth/refresh`."""
        expires_at = now + timedelta(seconds=tokens["expires_in"])
        return cls(email, tokens["access_token"], tokens["refresh_token"], expires_at.isoformat())


@dataclass(frozen=True, slots=True)
class State:
    """The content of the file.

    Attributes:
        server: where the last log-in was.
        sessions: by server.
        orgs: the organisation that is meant when none is named, by server and whose session there is.
    """

    server: str | None = None
    sessions: Mapping[str, Session] = field(default_factory=dict)
    orgs: Mapping[str, str] = field(default_factory=dict)

    def with_session(self, server: str, session: Session | None) -> "State":
        """Another session on a server, or none. Whoever else logs in there has other organisations; one's own are there again later."""
        others = {each: kept for each, kept in self.sessions.items() if each != server}
        return replace(self, sessions=others if session is None else {**others, server: session})

    def at(self, server: str) -> "State":
        """With that server as the last."""
        return replace(self, server=server)

    def with_org(self, server: str, org_id: str) -> "State":
        """Another organisation that is meant on a server, by whoever is logged in there now, or by who is not."""
        return replace(self, orgs={**self.orgs, self._place(server): org_id})

    def org(self, server: str) -> str | None:
        """The organisation that is meant on a server, by whoever is logged in there now, or by who is not."""
        return self.orgs.get(self._place(server))

    def _place(self, server: str) -> str:
        session = self.sessions.get(server)
        return server if session is None else f"{server} {session.email}"


Renew = Callable[[Session], Session]
"""Exchanges a session's refresh token for new tokens.

Raises:
    NotLoggedInError: the server says that the session is over.
"""


class Sessions:
    """The file, in a directory of its own."""

    def __init__(self, directory: Path, now: Now) -> None:
        self._directory = directory
        self._file = directory / "sessions.json"
        self._now = now

    def read(self) -> State:
        """What is kept.

        Raises:
            CommandError: the file cannot be read.
        """
        try:
            content = json.loads(self._file.read_bytes())
            sessions = {server: Session(**each) for server, each in content["sessions"].items()}
            return State(content["server"], sessions, content["orgs"])
        except FileNotFoundError:
            return State()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CommandError(f"{self._file} is damaged; remove it and log in again") from None

    def update(self, change: Callable[[State], State]) -> None:
        """Replace what is kept, while nobody else does."""
        with self._locked():
            self._write(change(self.read()))

    def access_token(self, server: str, renew: Renew, *, refused: str | None = None) -> str:
        """An access token of the session on a server.

        Args:
            server: one that has a session.
            renew: called at most once, and by one process at a time.
            refused: an access token that the server does not take any more, whatever its time.

        Raises:
            NotLoggedInError: there is no session, or it is over. That stays so until somebody logs in or out: what was asked in one's
                own name is not done in the local operator's.
        """
        session = self._find(server)
        if self._is_good(session, refused):
            return session.access_token
        with self._locked():
            session = self._find(server)  # another process may have been here
            if self._is_good(session, refused):
                return session.access_token
            renewed = renew(session)
            self._write(self.read().with_session(server, renewed))
            return renewed.access_token

    def _find(self, server: str) -> Session:
        session = self.read().sessions.get(server)
        if session is None:
            raise NotLoggedInError(f"not logged in to {server}; `tollgate login` does that")
        return session

    def _is_good(self, session: Session, refused: str | None) -> bool:
        lives = datetime.fromisoformat(session.expires_at) - _MARGIN > self._now()
        return lives and session.access_token != refused

    def _write(self, state: State) -> None:
        write_private(self._file, json.dumps(asdict(state), indent=2) + "\n")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
