"""One HTTP request to the control plane. No redirects, no proxies, no pool: a command sends a handful of requests.

`http.client` and not aiohttp, whose import takes longer than the answer.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from tollgate.errors import BrokenConnectionError, UnreachableError, UsageError

TIMEOUT_S: Final = 60.0
_CONNECT_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked.

    Attributes:
        path: from the root of the server, quoted.
        body: JSON; None for no body.
        headers: without the credential.
        timeout_s: for each wait on the connection.
    """

    method: str
    path: str
    query: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def is_json(self) -> bool:
        """Whether it says that it is."""
        content_type = self.headers.get("content-type", "").partition(";")[0].strip()
        return content_type == "application/json" or content_type.endswith("+json")

    def document(self) -> Any:
        """The body as JSON.

        Raises:
            UnreachableError: it is none, so it does not come from a control plane.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise UnreachableError("the answer is not JSON; is this a Tollgate control plane?") from None


def checked_server(text: str) -> str:
    """A server's URL, without a slash at the end.

    Raises:
        UsageError: it is no URL of a server.
    """
    url = text.rstrip("/")
    try:
        parts = urlsplit(url)
        is_server = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_server = False
        parts = urlsplit("")
    if not is_server or parts.username is not None or parts.query or parts.fragment:
        raise UsageError(f"{text!r} is not the URL of a server, such as https://gateway.example.com")
    return url


def exchange(servers: Sequence[str], request: Request, token: str | None) -> Reply:
    """Send one request and read the answer, whatever it is.

    Args:
        servers: instances of the same. The first that can be reached is asked; no other one is when the connection is lost later.
        request: what is asked.
        token: the credential, if any.

    Raises:
        UnreachableError: nothing listens there, so nothing was sent.
        BrokenConnectionError: it was lost, or the answer did not come in time.
    """
    headers = {"Accept": "application/json", **request.headers}
    if request.body is not None:
        headers["Content-Type"] = "application/json"
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    query = f"?{urlencode(request.query, doseq=True)}" if request.query else ""
    server, connection = _connected(servers)
    try:
        connection.sock.settimeout(request.timeout_s)
        target = f"{urlsplit(server).path}{request.path}{query}"
        connection.request(request.method, target, request.body, headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, HTTPException) as error:
        raise BrokenConnectionError(f"the connection to {server} was lost ({_reason(error)})") from None
    finally:
        connection.close()
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def _connected(servers: Sequence[str]) -> tuple[str, HTTPConnection]:
    faults = []
    for server in servers:
        parts = urlsplit(server)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=_CONNECT_TIMEOUT_S)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            faults.append(f"{server} cannot be reached ({_reason(error)})")
        else:
            return server, connection
    raise UnreachableError("; ".join(faults))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).lower() or type(error).__name__
