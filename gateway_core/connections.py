"""Who may hold a connection to an HTTP server of ours, and for how long without asking for anything.

A descriptor is the one thing a caller takes before saying a word. aiohttp bounds the time between two requests, and neither the time to
the first one nor the number of connections; both are bounded here, around its protocol.
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge

_END_OF_HEAD: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is put up with.

    Attributes:
        connections_max: those beyond are closed at once. Well below the 1024 descriptors that a process usually has, of which
            the database and files take some.
        first_request_s: how long the first request line and its headers may take; the later ones have `idle_s`.
        idle_s: how long a connection may be kept between two requests.
    """

    connections_max: int = 512
    first_request_s: float = 15.0
    idle_s: float = 75.0


class Cut(StrEnum):
    """Why we close a connection that is no use to anybody."""

    FULL = "full"
    SILENT = "silent"


class Door:
    """Lets connections in to a server and counts them."""

    def __init__(self, server: web.Server, bounds: Bounds, registry: CollectorRegistry | None) -> None:
        self.server = server
        self.bounds = bounds
        self.present = 0
        self._cut = Counter(
            "tollgate_http_connections_cut",
            "HTTP connections closed because there were too many (full) or no request came (silent)",
            ["reason"],
            registry=registry,
        )
        for reason in Cut:
            self._cut.labels(reason)
        Gauge("tollgate_http_connections", "Open HTTP connections", registry=registry).set_function(
            lambda: self.present
        )

    def connection(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return _Connection(self)

    def cut(self, transport: asyncio.Transport, reason: Cut) -> None:
        """Close a connection at once."""
        self._cut.labels(reason).inc()
        transport.abort()


class _Connection(asyncio.Protocol):
    """aiohttp's protocol behind the door; without one if there is no place."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._handler: asyncio.Protocol | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream's, as asked for
        door = self._door
        if door.present >= door.bounds.connections_max:
            door.cut(transport, Cut.FULL)
            return
        door.present += 1
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(door.bounds.first_request_s, door.cut, transport, Cut.SILENT)
        self._handler = door.server()
        self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._deadline is not None:
            seen = self._tail + data
            self._tail = seen[1 - len(_END_OF_HEAD) :]
            if _END_OF_HEAD in seen:
                self._spoken()
        if self._handler is not None:
            self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._handler is None else self._handler.eof_received()

    def pause_writing(self) -> None:
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        if self._handler is not None:
            self._handler.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._spoken()
        if self._handler is not None:
            self._door.present -= 1
            self._handler.connection_lost(error)

    def _spoken(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
