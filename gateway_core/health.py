"""The small HTTP server of a service that has no other: liveness, readiness, metrics."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from gateway_core.settings import HostPort

Ready = Callable[[], str | None]
"""Returns what is still missing, or None when the service can do its work."""


Role = Callable[[], str]
"""Returns what a ready service answers: what it does among several of its kind, or just `ok`."""


def just_ok() -> str:
    """For a service whose replicas all do the same."""
    return "ok"


def always_ready() -> None:
    """For a service that serves its health only once it is ready."""


KEEPALIVE_S: Final = 75.0
"""How long a connection may wait for its next request; aiohttp's own is an hour."""


CONNECTIONS_MAX: Final = 4096
"""At once; far below the files that a process may have open, of which Postgres needs some. More are hung up on."""


class _TurnedAway(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def health_routes(ready: Ready, registry: CollectorRegistry, role: Role = just_ok) -> list[web.RouteDef]:
    """`/livez` (this process answers), `/readyz` (503 with the reason until ready, then the role), `/metrics`."""

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        missing = ready()
        return web.Response(text=role() + "\n") if missing is None else web.Response(status=503, text=missing + "\n")

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")

    return [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)]


@asynccontextmanager
async def serving(
    app: web.Application,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    drain_s: float = 1.0,
    handler_cancellation: bool = False,
) -> AsyncIterator[HostPort]:
    """Serve an application while the block runs; yields where, which for port 0 only the kernel knew before.

    Args:
        app: the application.
        host: address to listen on.
        port: port to listen on; 0 takes any free one.
        tls: what is shown and asked for; None serves in the clear.
        drain_s: how long open requests may go on at the end, and after that how long their clients have to take note.
        handler_cancellation: whether a handler ends when its client leaves.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=drain_s,
        handler_cancellation=handler_cancellation,
        keepalive_timeout=KEEPALIVE_S,
    )
    await runner.setup()
    handlers = runner.server
    assert handlers is not None  # noqa: S101 - it has been set up

    def door() -> asyncio.Protocol:
        return _TurnedAway() if len(handlers.connections) >= CONNECTIONS_MAX else handlers()

    try:
        listener = await asyncio.get_running_loop().create_server(door, host, port, ssl=tls)
        try:
            yield HostPort(*listener.sockets[0].getsockname()[:2])
        finally:
            listener.close()
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving_health(
    host: str, port: int, ready: Ready, registry: CollectorRegistry, role: Role = just_ok
) -> AsyncIterator[None]:
    """Serve only the health routes while the block runs."""
    app = web.Application()
    app.add_routes(health_routes(ready, registry, role))
    async with serving(app, host, port):
        yield
