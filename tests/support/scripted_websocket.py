"""A provider of sessions that sends exactly the bytes a test wants, whatever RFC 6455 says of them."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
END: Final = b"\x88\x82\0\0\0\0\x03\xe8"
"""The close frame that the gateway sends in a client's place."""
TEXT, CONTINUATION, CLOSE, PING = 1, 0, 8, 9


@dataclass
class ScriptedWebSocket:
    """What it will send behind its handshake, and what it has received.

    Attributes:
        pieces: each is written by itself, with a pause behind it.
        cut: whether the connection breaks then, instead of staying open until the client leaves.
        heads: the handshakes of clients, as they came.
        received: what came behind the last of them. If the end of the session is in that, it ends it, too.
        transports: of all its connections, none of which outlives it.
        extensions: what it says it has agreed to, asked or not.
    """

    url: str = ""
    pieces: Sequence[bytes] = ()
    cut: bool = False
    extensions: str | None = None
    heads: list[str] = field(default_factory=list)
    received: bytes = b""
    is_left: asyncio.Event = field(default_factory=asyncio.Event)
    transports: list[asyncio.WriteTransport] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One session."""
        self.is_left.clear()
        self.transports.append(writer.transport)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        self.received = b""
        key = next(line[19:] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key: "))
        accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()
        more = f"Sec-WebSocket-Extensions: {self.extensions}\r\n" if self.extensions else ""
        writer.write(
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{more}\r\n".encode()
        )
        try:
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            while not self.cut and END not in self.received and (data := await reader.read(65536)):
                self.received += data
            if END in self.received:
                writer.write(frame(b"\x03\xe8", CLOSE))
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.is_left.set()


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True, bits: int = 0, long: bool = False) -> bytes:
    """One frame of a server; `long` takes 64 bits for its length whatever that is."""
    head = bytes([(128 if fin else 0) | bits | opcode])
    if long or len(payload) >= 1 << 16:
        return head + b"\x7f" + len(payload).to_bytes(8) + payload
    if len(payload) > 125:
        return head + b"\x7e" + len(payload).to_bytes(2) + payload
    return head + bytes([len(payload)]) + payload


def client_frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True, mask: bytes = b"\x9a\x01\xf7\x3c") -> bytes:
    """One frame of a client."""
    length = len(payload)
    head = bytes([(128 if fin else 0) | opcode])
    if length >= 1 << 16:
        head += b"\xff" + length.to_bytes(8)
    elif length > 125:
        head += b"\xfe" + length.to_bytes(2)
    else:
        head += bytes([128 | length])
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def event(kind: str, **fields: object) -> bytes:
    """An event as text."""
    return json.dumps({"type": kind, "event_id": "event_1", **fields}).encode()


@asynccontextmanager
async def scripted_websocket() -> AsyncIterator[ScriptedWebSocket]:
    """Serve one on a free port of loopback."""
    provider = ScriptedWebSocket()
    server = await asyncio.start_server(provider.answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    provider.url = f"http://{host}:{port}/v1"
    async with server:
        yield provider
    for transport in provider.transports:
        transport.abort()
