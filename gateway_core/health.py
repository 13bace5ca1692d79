"""The small HTTP server of a service that has no other: liveness, readiness, metrics."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

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
    app: web.Application, host: str, port: int, *, drain_s: float = 1.0, handler_cancellation: bool = False
) -> AsyncIterator[HostPort]:
    """Serve an application while the block runs; yields where, which for port 0 only the kernel knew before.

    Args:
        app: the application.
        host: address to listen on.
        port: port to listen on; 0 takes any free one.
        drain_s: how long open requests may go on at the end, and after that how long their clients have to take note.
        handler_cancellation: whether a handler ends when its client leaves.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=drain_s, handler_cancellation=handler_cancellation)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield HostPort(*runner.addresses[0][:2])
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
