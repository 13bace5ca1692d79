"""A provider that answers with exactly the bytes a test wants, in exactly the pieces it wants."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class ScriptedProvider:
    """What it will answer next, and what it has received.

    Attributes:
        pieces: the body of the answer; each piece is written by itself, with a pause behind it.
        cut: whether the connection breaks instead of ending well.
        more_headers: of the answer.
        answers: until this is set, as it is at first, a request waits for its answer.
    """

    url: str = ""
    status: int = 200
    content_type: str = "text/event-stream"
    pieces: Sequence[bytes] = ()
    pause_s: float = 0.0
    cut: bool = False
    more_headers: Mapping[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def asked(self) -> list[bytes]:
        """The bodies it has received; whoever looks whether it is well sends none."""
        return [body for body in self.bodies if body]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Record and answer."""
        self.bodies.append(await request.read())
        self.paths.append(request.path)
        self.headers.append(dict(request.headers))
        await self.answers.wait()
        pieces, pause_s, is_cut = self.pieces, self.pause_s, self.cut
        response = web.StreamResponse(
            status=self.status, headers={**self.more_headers, "Content-Type": self.content_type}
        )
        if "event-stream" not in self.content_type.lower():
            response.content_length = sum(map(len, pieces))
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(pause_s)
        if is_cut and request.transport is not None:
            request.transport.abort()
        return response


@asynccontextmanager
async def scripted_provider() -> AsyncIterator[ScriptedProvider]:
    """Serve one on a free port of loopback."""
    provider = ScriptedProvider()
    provider.answers.set()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", provider.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    provider.url = f"http://{host}:{port}/v1"
    try:
        yield provider
    finally:
        await runner.cleanup()
