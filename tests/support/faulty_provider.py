"""A provider made of bare bytes: it can fail in every way that a connection can, and sees when its own is closed."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic

INPUT_TOKENS, OUTPUT_TOKENS = 11, 5
"""Of a good answer, unless told otherwise."""

_BODY_BYTES_MAX = 64 * 1024 * 1024
_RESET_AT_ONCE = struct.pack("ii", 1, 0)


class Fault(StrEnum):
    """How a request fails at a provider."""

    RATE_LIMITED = "429"
    BROKEN = "500"
    UNAVAILABLE = "503"
    OVERLOADED = "529"
    REFUSED = "refused"
    """Nobody listens: the one that no provider can act."""
    RESET = "reset"
    """Before there are headers."""
    CUT = "cut"
    """Behind the headers, and before the first byte of the body."""
    SILENT = "silent"
    """No headers, until it is given up."""
    MALFORMED = "malformed"
    """An answer that is not HTTP."""

    @property
    def status(self) -> int | None:
        """What is answered, if anything is."""
        return int(self) if self.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and the connection it came over.

    Attributes:
        headers: by their names in lower case; where one came twice, both values, so that no comparison holds.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes
    reader: asyncio.StreamReader = field(repr=False)
    writer: asyncio.StreamWriter = field(repr=False)

    async def send(self, data: bytes) -> None:
        """Write as it is."""
        self.writer.write(data)
        await self.writer.drain()

    async def closed(self) -> float:
        """Wait until the other side closes the connection, and say when that was."""
        with suppress(ConnectionError):
            await self.reader.read(1)
        return monotonic()

    def reset(self) -> None:
        """End the connection with a reset."""
        found: socket.socket = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_ONCE)
        self.writer.transport.abort()


@dataclass
class FaultyProvider:
    """Where it is, and every request it has read whole."""

    address: str
    exchanges: list[Exchange] = field(default_factory=list)


Script = Callable[[Exchange], Awaitable[None]]
"""What is done with a request. Afterwards the connection is as the script has left it."""


@asynccontextmanager
async def faulty_provider(script: Script, *, before_body: Script | None = None) -> AsyncIterator[FaultyProvider]:
    """Serve one on a free port of loopback; `before_body` is what it does when it has the headers alone."""
    tasks: set[asyncio.Task[None]] = set()
    provider = FaultyProvider("")

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer.transport), suppress(ConnectionError):
            while not writer.is_closing() and (exchange := await _read(reader, writer, before_body)) is not None:
                provider.exchanges.append(exchange)
                await script(exchange)

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(connection(reader, writer), name="connection of a provider")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    provider.address = f"http://{host}:{port}"
    try:
        yield provider
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, before_body: Script | None
) -> Exchange | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        key = name.strip().lower()
        headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    length = int(headers["content-length"])
    assert length <= _BODY_BYTES_MAX
    path = first.split(" ")[1]
    if before_body is not None:
        await before_body(Exchange(path, headers, b"", reader, writer))
    try:
        body = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None
    return Exchange(path, headers, body, reader, writer)


async def fail(exchange: Exchange, fault: Fault) -> None:
    """Fail in a way."""
    streamed = b'"stream":true' in exchange.body or b'"stream": true' in exchange.body
    match fault:
        case Fault.RESET:
            exchange.reset()
        case Fault.CUT:
            await exchange.send(head(200, streamed=streamed, length=None if streamed else 100))
            # Together with the headers, the end of the connection would be all that Envoy sees.
            await asyncio.sleep(0.1)
            exchange.reset()
        case Fault.SILENT:
            await exchange.closed()
            exchange.writer.close()
        case Fault.MALFORMED:
            await exchange.send(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            exchange.writer.close()
        case Fault.REFUSED:
            raise AssertionError("nobody listens there")
        case _:
            assert fault.status is not None
            text = json.dumps({"error": {"message": f"failed with {fault}", "type": "provider_error"}}).encode()
            await exchange.send(head(fault.status, streamed=False, length=len(text)) + text)


def head(status: int, *, streamed: bool, length: int | None = None) -> bytes:
    """The beginning of an answer; a stream without a length comes in chunks."""
    content_type = "text/event-stream" if streamed else "application/json"
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return f"HTTP/1.1 {status} Status\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    """A piece of a body that comes in chunks; the last one is empty."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def deliver(
    exchange: Exchange,
    text: str,
    *,
    streamed: bool,
    input_tokens: int = INPUT_TOKENS,
    output_tokens: int = OUTPUT_TOKENS,
) -> None:
    """A good answer in the dialect of the path that was asked, with usage."""
    events, whole = _answer(exchange, text, input_tokens, output_tokens)
    if streamed:
        await exchange.send(head(200, streamed=True) + b"".join(map(chunk, events)) + chunk(b""))
    else:
        await exchange.send(head(200, streamed=False, length=len(whole)) + whole)


def answer_events(exchange: Exchange, text: str) -> list[bytes]:
    """The same as the events of a stream: of chat the text, the usage and the end; of messages six, the third of which has the text."""
    return _answer(exchange, text, INPUT_TOKENS, OUTPUT_TOKENS)[0]


def _answer(exchange: Exchange, text: str, input_tokens: int, output_tokens: int) -> tuple[list[bytes], bytes]:
    write = _messages if exchange.path.endswith("/messages") else _chat
    return write(text, input_tokens, output_tokens)


def _chat(text: str, input_tokens: int, output_tokens: int) -> tuple[list[bytes], bytes]:
    usage = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    base = {"id": "c", "created": 1_700_000_000, "model": "m"}
    delta = {**base, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
    last = {**base, "object": "chat.completion.chunk", "choices": [], "usage": usage}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    whole = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
    events = [*(f"data: {json.dumps(each)}\n\n".encode() for each in (delta, last)), b"data: [DONE]\n\n"]
    return events, json.dumps(whole).encode()


def _messages(text: str, input_tokens: int, output_tokens: int) -> tuple[list[bytes], bytes]:
    usage = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    block = {"type": "text", "text": text}
    told: list[dict[str, object]] = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]
    whole = {**message, "content": [block], "stop_reason": "end_turn", "usage": usage}
    events = [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in told]
    return events, json.dumps(whole).encode()
