"""Remembers what was received, for tests that must know what a provider got to see. In memory, and bounded.

Credentials are kept as they came, which is why nothing is recorded unless the setting says so.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gateway_core.clock import Now

BODY_BYTES_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request, and the beginning of its body as text; bytes that are no UTF-8 are replaced."""

    received_at: str
    method: str
    path: str
    headers: dict[str, str]
    body_bytes: int
    body_start: str


class Recorder:
    """The last requests, oldest first. A new one pushes the oldest out."""

    def __init__(self, requests_max: int, now: Now) -> None:
        self._requests: deque[ReceivedRequest] = deque(maxlen=requests_max)
        self._now = now

    def record(self, request: web.Request, body: bytes) -> None:
        """Remember a request. Names of headers become lower case; a repeated one is joined with commas."""
        headers = {name.lower(): ", ".join(request.headers.getall(name)) for name in request.headers}
        self._requests.append(
            ReceivedRequest(
                received_at=self._now().isoformat(),
                method=request.method,
                path=request.path_qs,
                headers=headers,
                body_bytes=len(body),
                body_start=body[:BODY_BYTES_KEPT].decode(errors="replace"),
            )
        )

    def requests(self) -> list[ReceivedRequest]:
        """All that are remembered."""
        return list(self._requests)

    def clear(self) -> None:
        """Forget them."""
        self._requests.clear()
