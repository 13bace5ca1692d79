"""The small HTTP server of a service that has no other: liveness, readiness, metrics."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from gateway_core.connections import Bounds, Door
from gateway_core.settings import HostPort

_BOUNDS: Final = Bounds()
_BACKLOG: Final = 128

Ready = Callable[[], str | None]
"""Returns what is still missing, or None when the service can do its work."""


Role = Callable[[], str]
"""Returns what a ready service answers: what it does among several of its kind, or just `ok`."""


def just_ok() -> str:
    """For a service whose replicas all do the same."""
    return "ok"


def always_ready() -> None:
    """For a service that serves its health only once it is ready."""


def health_routes(ready: Ready, registry: CollectorRegistry, role: Role = just_ok) -> list[web.RouteDef]:
    """`/livez`, `/readyz` (503 with the reason until ready, then the role), `/metrics`: for operators, not for callers."""

    async def readyz(_request: web.Request) -> web.Response:
        missing = ready()
        return web.Response(text=role() + "\n") if missing is None else web.Response(status=503, text=missing + "\n")

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")

    return [live_route(), web.get("/readyz", readyz), web.get("/metrics", metrics)]


def live_route() -> web.RouteDef:
    """`/livez`: this process answers. Tells nothing else, so that anybody may ask."""

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    return web.get("/livez", livez)


@asynccontextmanager
async def serving(
    app: web.Application,
    host: str,
    port: int,
    *,
    registry: CollectorRegistry | None = None,
    bounds: Bounds = _BOUNDS,
    tls: ssl.SSLContext | None = None,
    drain_s: float = 1.0,
    handler_cancellation: bool = False,
) -> AsyncIterator[HostPort]:
    """Serve an application while the block runs; yields where, which for port 0 only the kernel knew before.

    Args:
        app: the application.
        host: address to listen on.
        port: port to listen on; 0 takes any free one.
        registry: where connections are counted; None for a server without metrics.
        bounds: how many connections there may be, and how long they may be silent.
        tls: what is shown and asked for; None serves in the clear.
        drain_s: how long open requests may go on at the end, and after that how long their clients have to take note.
        handler_cancellation: whether a handler ends when its client leaves.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=drain_s,
        handler_cancellation=handler_cancellation,
        keepalive_timeout=bounds.idle_s,
    )
    await runner.setup()
    try:
        assert runner.server is not None  # noqa: S101 - it has been set up
        door = Door(runner.server, bounds, registry)
        listening = await asyncio.get_running_loop().create_server(
            door.connection, host, port, backlog=_BACKLOG, ssl=tls
        )
        try:
            yield HostPort(*listening.sockets[0].getsockname()[:2])
        finally:
            listening.close()
    finally:
        await runner.cleanup()


_HEALTH_BOUNDS: Final = Bounds(connections_max=64, per_address_max=16)
"""Few ask, each with a connection or two: beside a server of its own a process has descriptors left."""


@asynccontextmanager
async def serving_health(
    host: str,
    port: int,
    ready: Ready,
    registry: CollectorRegistry,
    role: Role = just_ok,
    *,
    counts_connections: bool = True,
) -> AsyncIterator[None]:
    """Serve only the health routes while the block runs.

    Args:
        host: address to listen on.
        port: port to listen on.
        ready: what `/readyz` asks.
        registry: what `/metrics` shows.
        role: what a ready service answers.
        counts_connections: whether the connections that the registry has are this server's; there can be one that counts.
    """
    app = web.Application()
    app.add_routes(health_routes(ready, registry, role))
    async with serving(app, host, port, registry=registry if counts_connections else None, bounds=_HEALTH_BOUNDS):
        yield
