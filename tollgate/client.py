"""The control plane as a command sees it: which server, with which credential, and what to do when a call fails."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from gateway_core.clock import Now, utc_now
from local_stack.data_directory import DataDirectory
from tollgate.connection import Reply, Request, checked_server, exchange
from tollgate.errors import BrokenConnectionError, NotLoggedInError, UnreachableError, UsageError
from tollgate.invocation import DEFAULT_DATA_DIR
from tollgate.refusals import NOWHERE, Place, refusal
from tollgate.sessions import Session, Sessions
from tollgate.settings import Settings

PREFIX: Final = "/api/v1"
_REPEAT_AFTER_S: Final = (0.2, 1.0)
_UNAUTHENTICATED: Final = 401
_FIRST_REFUSAL: Final = 400
_NOT_YOURS: Final = frozenset({403, 404})
_ORGS_SHOWN: Final = 10
_LOCAL_OPERATOR: Final = "token of the local operator"


class Credential(Protocol):
    """Where a token comes from."""

    @property
    def description(self) -> str:
        """What it is, for people."""

    def token(self) -> str:
        """The token to send."""

    def after_refusal(self, token: str) -> str | None:
        """Another token in place of one that was not accepted; None if there is none."""


@dataclass(frozen=True, slots=True)
class FixedToken:
    """A token that somebody gave us."""

    value: str
    description: str

    def __repr__(self) -> str:
        """Without the token."""
        return f"FixedToken({self.description!r})"

    def token(self) -> str:
        """That one."""
        return self.value

    def after_refusal(self, token: str) -> None:
        """There is no other."""


@dataclass(frozen=True, slots=True)
class LogIn:
    """The session of `tollgate login`."""

    sessions: Sessions
    server: str
    now: Now
    description: str
    replicas: tuple[str, ...]

    def token(self) -> str:
        """A token that is good for some time yet."""
        return self.sessions.access_token(self.server, self._renew)

    def after_refusal(self, token: str) -> str:
        """The session's next one."""
        return self.sessions.access_token(self.server, self._renew, refused=token)

    def _renew(self, session: Session) -> Session:
        body = json.dumps({"refresh_token": session.refresh_token}).encode()
        # Never sent twice: if the answer is lost, a second use would look like theft.
        reply = exchange((self.server, *self.replicas), Request("POST", f"{PREFIX}/auth/refresh", body=body), None)
        if reply.status == _UNAUTHENTICATED:
            raise NotLoggedInError(
                f"the session on {self.server} is over; `tollgate login` begins another, `tollgate logout` forgets it"
            )
        if reply.status >= _FIRST_REFUSAL:
            raise refusal(reply)
        return Session.of(session.email, reply.document(), self.now())


@dataclass(frozen=True, slots=True)
class Where:
    """A server; if it is that of a local stack, with the operator's token and its other instances."""

    server: str
    operator_token: FixedToken | None = None
    replicas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Client:
    """Sends requests to one server.

    Attributes:
        credential: None for nobody.
        hides_operator: whether beside a local stack somebody is logged in, so that its operator is not meant.
        replicas: other instances of the server, asked when it cannot be reached.
        sleep: between attempts.
    """

    server: str
    credential: Credential | None
    sessions: Sessions
    hides_operator: bool = False
    replicas: tuple[str, ...] = ()
    now: Now = utc_now
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def find(cls, server: str | None, data_dir: Path | None) -> "Client":
        """The server that is meant, with the credential for it.

        Raises:
            UsageError: what was given names no server.
            UnreachableError: nothing was given and nothing runs here.
        """
        settings = Settings.load()
        sessions = Sessions(settings.state_directory, utc_now)
        where = find_server(server, data_dir, settings, sessions)
        client = cls(where.server, where.operator_token, sessions, replicas=where.replicas)
        if settings.token is not None:
            return replace(client, credential=FixedToken(settings.token, "TOLLGATE_TOKEN"))
        return client.as_logged_in() if where.server in sessions.read().sessions else client

    def as_logged_in(self) -> "Client":
        """The same with the session of `tollgate login`, whatever other credential there is.

        Raises:
            NotLoggedInError: there is no session.
        """
        session = self.sessions.read().sessions.get(self.server)
        if session is None:
            raise NotLoggedInError(f"not logged in to {self.server}")
        log_in = LogIn(self.sessions, self.server, self.now, f"session of {session.email}", self.replicas)
        return replace(self, credential=log_in, hides_operator=self.hides_operator or self._is_operator)

    def send(self, request: Request, *, place: Place = NOWHERE, repeat: bool = False, public: bool = False) -> Reply:
        """One call that succeeds.

        Args:
            request: the call.
            place: where a fault is that the server points at.
            repeat: whether it may be sent again when the connection is lost on the way.
            public: whether it works without a credential, which it then goes without.

        Raises:
            CommandError: of the kind that tells why it did not succeed.
        """
        token = None if self.credential is None or public else self.credential.token()
        reply = self._exchange(request, token, repeat=repeat)
        if reply.status == _UNAUTHENTICATED and self.credential is not None and token is not None:
            other = self.credential.after_refusal(token)
            if other is not None:
                reply = self._exchange(request, other, repeat=repeat)
        if reply.status == _UNAUTHENTICATED and not public:
            raise self._not_accepted()
        if reply.status >= _FIRST_REFUSAL:
            raise refusal(reply, place, hint=self._hint(reply.status))
        return reply

    def get(self, path: str, **query: str) -> Any:
        """What a path behind `/api/v1` answers, as JSON."""
        return self.send(Request("GET", PREFIX + path, query), repeat=True).document()

    def org_id(self) -> str:
        """The organisation that is meant when none is named: the remembered one, or the only one.

        Raises:
            UsageError: there are none, or several.
        """
        remembered = self.sessions.read().org(self.server)
        if remembered is not None:
            return remembered
        found = self.get("/orgs", limit=str(_ORGS_SHOWN))["data"]
        if len(found) == 1:
            return str(found[0]["id"])
        if not found:
            raise UsageError("you are in no organisation; `tollgate orgs create` makes one")
        lines = [f"  {org['id']}  {org['name']}" for org in found]
        raise UsageError(
            "\n".join(["which organisation? Name it with --org, or once and for all with `tollgate use-org`:", *lines])
        )

    def _exchange(self, request: Request, token: str | None, *, repeat: bool) -> Reply:
        servers = (self.server, *self.replicas)
        for pause_s in _REPEAT_AFTER_S if repeat else ():
            try:
                return exchange(servers, request, token)
            except BrokenConnectionError:
                self.sleep(pause_s)
        return exchange(servers, request, token)

    @property
    def _is_operator(self) -> bool:
        return self.credential is not None and self.credential.description == _LOCAL_OPERATOR

    def _hint(self, status: int) -> str | None:
        if status not in _NOT_YOURS or not self.hides_operator or self.credential is None:
            return None
        return f"Asked with the {self.credential.description}; after `tollgate logout` it is asked as the operator of the stack here."

    def _not_accepted(self) -> NotLoggedInError:
        if self.credential is None:
            return NotLoggedInError(f"not logged in to {self.server}; `tollgate login` does that")
        return NotLoggedInError(f"{self.server} does not accept the {self.credential.description}")


def find_server(server: str | None, data_dir: Path | None, settings: Settings, sessions: Sessions) -> Where:
    """The server that is meant: the one that is named, else the local stack, else that of the last log-in.

    Raises:
        UsageError: what was given names no server, or two.
        UnreachableError: nothing was given and nothing runs here, or nothing runs where it was said to.
    """
    if server is not None and data_dir is not None:
        raise UsageError("--server and --data-dir name two servers; give one of them")
    if data_dir is None and (named := server or settings.server) is not None:
        url = checked_server(named)
        stack = _stack_at(settings.data_dir or DEFAULT_DATA_DIR)
        return stack if stack is not None and stack.server == url else Where(url)
    data_dir = data_dir or settings.data_dir
    stack = _stack_at(data_dir or DEFAULT_DATA_DIR)
    if stack is not None:
        return stack
    if data_dir is not None:
        raise UnreachableError(f"no stack serves in {data_dir}; start one with `tollgate up --data-dir {data_dir}`")
    last = sessions.read().server
    if last is None:
        raise UnreachableError(
            "which server? Start a stack here with `tollgate up`, say with --data-dir or TOLLGATE_DATA_DIR where one is, or "
            "name a server with --server or TOLLGATE_SERVER"
        )
    return Where(last)


def _stack_at(path: Path) -> Where | None:
    directory = DataDirectory.at(path)
    if directory.holder() is None:
        return None
    try:
        endpoints = json.loads(directory.endpoints.read_bytes())
    except FileNotFoundError:
        return None
    server, *replicas = endpoints["control_plane_urls"]
    return Where(server, FixedToken(endpoints["operator_token"], _LOCAL_OPERATOR), tuple(replicas))


def quoted(path: str, values: Mapping[str, str]) -> str:
    """A path with its parameters.

    Raises:
        UsageError: a parameter that would lead to another path.
    """
    for name, value in values.items():
        if value in {"", ".", ".."}:
            raise UsageError(f"{value!r} names nothing ({name.upper()})")
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    return path


def with_headers(request: Request, headers: Mapping[str, str]) -> Request:
    """A request with more headers."""
    return replace(request, headers={**request.headers, **headers})
