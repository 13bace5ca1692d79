"""A provider that keeps files and batches as the simulator does, and fails where a test says so: before it has done what it was asked, or after."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway_core.health import serving
from simulator.app import build_app
from simulator.settings import SimulatorSettings
from tests.support.logs import QUIET


@dataclass
class BalkyKeeper:
    """Where it is, and how it fails.

    Attributes:
        refuses: with which status POSTs to a path are answered without being done.
        loses: the same where they are done.
    """

    url: str = ""
    refuses: dict[str, int] = field(default_factory=dict)
    loses: dict[str, int] = field(default_factory=dict)

    async def files(self, credential: str) -> list[dict[str, Any]]:
        """What it keeps for a credential, the newest first."""
        headers = {"Authorization": f"Bearer {credential}"}
        async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{self.url}/files") as answer:
            found: list[dict[str, Any]] = (await answer.json())["data"]
            return found


@asynccontextmanager
async def balky_keeper() -> AsyncIterator[BalkyKeeper]:
    """Serve one on a free port of loopback."""
    keeper = BalkyKeeper()

    @web.middleware
    async def fail(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "POST" and request.path in keeper.refuses:
            await request.read()
            return web.Response(status=keeper.refuses[request.path])
        answer = await handler(request)
        if request.method == "POST" and request.path in keeper.loses:
            return web.Response(status=keeper.loses[request.path])
        return answer

    app = build_app(SimulatorSettings(), QUIET)
    app.middlewares.append(fail)
    async with serving(app, "127.0.0.1", 0) as address:
        keeper.url = f"http://127.0.0.1:{address.port}/v1"
        yield keeper
