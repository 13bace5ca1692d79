"""A provider that tells good keys from others, and remembers which ones it was shown."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@dataclass
class KeyedProvider:
    """OpenAI's chat and Anthropic's messages, as little of them as is needed.

    Attributes:
        accepted: the keys that are good; everybody else is answered 401.
        shown: every key that came, in order.
        goes_on: until this is set, as it is at first, a stream waits behind its first event.
    """

    accepted: set[str]
    url: str = ""
    shown: list[str] = field(default_factory=list)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Record and answer."""
        asked = json.loads(await request.read())
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.shown.append(key)
        if key not in self.accepted:
            return web.json_response({"error": {"message": "Incorrect API key provided."}}, status=401)
        if asked.get("stream"):
            return await self._stream(request)
        message = {"role": "assistant", "content": "Hello."}
        return web.json_response(
            {
                "id": "chat-1",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": USAGE,
            }
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(_event({"choices": [{"index": 0, "delta": {"content": "Hel"}}]}))
        await self.goes_on.wait()
        await response.write(_event({"choices": [{"index": 0, "delta": {"content": "lo."}, "finish_reason": "stop"}]}))
        await response.write(_event({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n")
        return response


def _event(content: dict[str, object]) -> bytes:
    chunk = {"id": "chat-1", "object": "chat.completion.chunk", "created": 1, "model": "m", **content}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


@asynccontextmanager
async def keyed_provider(*accepted: str) -> AsyncIterator[KeyedProvider]:
    """Serve one on a free port of loopback."""
    provider = KeyedProvider(set(accepted))
    provider.goes_on.set()
    app = web.Application()
    app.router.add_post("/{path:.*}", provider.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    provider.url = f"http://{host}:{port}/v1"
    try:
        yield provider
    finally:
        await runner.cleanup()
