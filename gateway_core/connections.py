"""Who may hold a connection to an HTTP server of ours, and for how long without asking for anything.

A descriptor is the one thing a caller takes before saying a word. aiohttp bounds the time between two requests, and neither the time to
the first one nor the number of connections; both are bounded here, around its protocol.
"""

import asyncio
from collections import Counter as Multiset
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway_core.networks import Address, Network, is_in_any, parse_address

_END_OF_HEAD: Final = b"\r\n\r\n"
_V6_PREFIX: Final = 64
"""Whoever has one IPv6 address has all that begin like it."""

_CROWDED_TEXT: Final = "Too many connections from this address. Close some, or use one for many requests.\n"
_CROWDED_ANSWER: Final = (
    "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\n"
    f"Content-Length: {len(_CROWDED_TEXT)}\r\nConnection: close\r\n\r\n{_CROWDED_TEXT}"
).encode()


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is put up with.

    Attributes:
        connections_max: those beyond are closed at once. Well below the 1024 descriptors that a process usually has, of which
            the database and files take some.
        per_address_max: the same of one address; those beyond are answered 429 and closed. None: as many as there may be.
        many_behind: networks in which an address stands for many callers, such as a load balancer's. There is no bound for each.
        first_request_s: how long the first request line and its headers may take; the later ones have `idle_s`.
        idle_s: how long a connection may be kept between two requests.
    """

    connections_max: int = 512
    per_address_max: int | None = None
    many_behind: Sequence[Network] = ()
    first_request_s: float = 15.0
    idle_s: float = 75.0


class Cut(StrEnum):
    """Why we close a connection that is no use to anybody."""

    FULL = "full"
    CROWDED = "crowded"
    SILENT = "silent"


class Door:
    """Lets connections in to a server and counts them."""

    def __init__(self, server: web.Server, bounds: Bounds, registry: CollectorRegistry | None) -> None:
        self.server = server
        self.bounds = bounds
        self.present = 0
        self._present_of: Multiset[Address] = Multiset()
        self._cut = Counter(
            "tollgate_http_connections_cut",
            "HTTP connections closed because there were too many (full), too many of one address (crowded), or no request came (silent)",
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

    def enter(self, caller: Address) -> Cut | None:
        """Take a place, or say why there is none."""
        bounds = self.bounds
        if self.present >= bounds.connections_max:
            return Cut.FULL
        is_crowded = bounds.per_address_max is not None and self._present_of[caller] >= bounds.per_address_max
        if is_crowded and not is_in_any(caller, bounds.many_behind):
            return Cut.CROWDED
        self.present += 1
        self._present_of[caller] += 1
        return None

    def leave(self, caller: Address) -> None:
        """Give the place back."""
        self.present -= 1
        self._present_of[caller] -= 1
        if not self._present_of[caller]:
            del self._present_of[caller]

    def cut(self, transport: asyncio.Transport, reason: Cut) -> None:
        """Close a connection at once."""
        self._cut.labels(reason).inc()
        if reason is Cut.CROWDED:
            transport.write(_CROWDED_ANSWER)
            transport.close()
        else:
            transport.abort()


class _Connection(asyncio.Protocol):
    """aiohttp's protocol behind the door; without one if there is no place."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._handler: asyncio.Protocol | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._tail = b""
        self._caller: Address | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream's, as asked for
        door, caller = self._door, _caller(transport)
        refusal = door.enter(caller)
        if refusal is not None:
            door.cut(transport, refusal)
            return
        self._caller = caller
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
        if self._caller is not None:
            self._door.leave(self._caller)
        if self._handler is not None:
            self._handler.connection_lost(error)

    def _spoken(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _caller(transport: asyncio.Transport) -> Address:
    """Whose connection it is, as far as can be told: of an IPv6 address only what comes from the network it is in."""
    address = parse_address(transport.get_extra_info("peername")[0].partition("%")[0])
    if isinstance(address, IPv6Address):
        return IPv6Network((address, _V6_PREFIX), strict=False).network_address
    return address
