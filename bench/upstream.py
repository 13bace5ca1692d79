"""`python -m bench.upstream PORT`: a provider that costs next to nothing, so that what stands in front of it can be measured.

It answers chat completions as OpenAI does, with the same words each time. A model called `mock-N` streams N events where a stream is
asked for, each by a write of its own; usage is the last of them, if it is asked for. Nothing else of a request is looked at.
"""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, Final

_MODEL: Final = re.compile(rb'"model"\s*:\s*"mock-(\d+)"')
_STREAMS: Final = re.compile(rb'"stream"\s*:\s*true')
_WANTS_USAGE: Final = re.compile(rb'"include_usage"\s*:\s*true')
_LENGTH: Final = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)

_USAGE: Final = {"prompt_tokens": 230, "completion_tokens": 16, "total_tokens": 246}
_REPLY: Final = "This is what the provider has to say to everybody, in sixteen words or thereabouts, every time."


def _object(kind: str, **fields: Any) -> bytes:
    common = {"id": "chatcmpl-bench", "object": kind, "created": 1767225600, "model": "mock"}
    return json.dumps({**common, **fields}).encode()


def _event(**fields: Any) -> bytes:
    return _chunk(b"data: " + _object("chat.completion.chunk", **fields) + b"\n\n")


def _word(delta: Any, finish_reason: str | None = None) -> bytes:
    return _event(choices=[{"index": 0, "delta": delta, "finish_reason": finish_reason}])


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


_BODY: Final = _object(
    "chat.completion",
    choices=[{"index": 0, "message": {"role": "assistant", "content": _REPLY}, "finish_reason": "stop"}],
    usage=_USAGE,
)
_PLAIN: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)
_STREAM: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_BEGIN: Final = _word({"role": "assistant", "content": ""})
_WORD: Final = _word({"content": "word "})
_END: Final = _word({}, "stop")
_COUNTED: Final = _event(choices=[], usage=_USAGE)
_DONE: Final = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _stream(events: int, *, wants_usage: bool) -> Iterator[bytes]:
    """So many events, the first and the last ones among them."""
    yield _STREAM + _BEGIN
    for _ in range(events - 2 - wants_usage):
        yield _WORD
    yield _END
    if wants_usage:
        yield _COUNTED
    yield _DONE


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer once a request is whole."""
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = _LENGTH.search(self._received, 0, head_end + 2)
        end = head_end + 4 + (int(length[1]) if length else 0)
        if len(self._received) < end:
            return
        # The fields that are looked at stand at the beginning.
        body = bytes(self._received[head_end + 4 : min(end, head_end + 4096)])
        del self._received[:end]
        if _STREAMS.search(body):
            model = _MODEL.search(body)
            events = int(model[1]) if model else 3
            self._write_on(_stream(events, wants_usage=bool(_WANTS_USAGE.search(body))))
        else:
            self._transport.write(_PLAIN)

    def _write_on(self, pieces: Iterator[bytes]) -> None:
        piece = next(pieces, None)
        if piece is not None and not self._transport.is_closing():
            self._transport.write(piece)
            asyncio.get_running_loop().call_soon(self._write_on, pieces)


async def serve(port: int) -> None:
    """Answer on this port for ever."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
