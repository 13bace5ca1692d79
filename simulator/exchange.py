"""One request from its arrival to the last byte, or to the fault that was asked for. The edge where aiohttp stops."""

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gateway_core.clock import Now
from gateway_core.logs import Logger
from simulator.chat import Answer, ChatRequest, JsonObject, Stamp, without_directives
from simulator.compose import compose
from simulator.dialect import Dialect
from simulator.frames import compact
from simulator.knobs import HEADER, Fault, InvalidKnobsError, Knobs, take_directives, turn
from simulator.openai_chat import OpenAiChat
from simulator.openai_realtime import EVENT_BYTES_MAX, PROTOCOL, Conversation
from simulator.plain import PlainEndpoint
from simulator.recorder import Recorder
from simulator.refusal import RefusalError
from simulator.words import fingerprint

BODY_BYTES_MAX: Final = 64 * 1024 * 1024
SILENCE_MAX_S: Final = 600.0
"""How long a request with `error=timeout` is held before the simulator gives up on its client."""

_NO_LINGER: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Exchange:
    """Answers requests; holds what outlives one of them."""

    knobs: Knobs
    recorder: Recorder | None
    now: Now
    log: Logger

    async def answer(self, request: web.Request, dialect: Dialect) -> web.StreamResponse:
        """Read a request in a dialect, and answer it or fail as its knobs say."""
        stamp = Stamp(fingerprint((request.path,)), self.now())
        try:
            body = await _read(request)
            if self.recorder is not None:
                self.recorder.record(request, body)
            stamp = Stamp(fingerprint((request.path, body)), self.now())
            dialect.check_headers(request.headers, request.query)
            chat, knobs = self._read_chat(request, dialect.parse(body))
            fault = knobs.fault(stamp.digest)
            answer = compose(chat, knobs, fault, stamp)
        except RefusalError as refusal:
            return _refuse(dialect, refusal, stamp, latency_ms=0)
        self.log.debug("simulated_answer", path=request.path, fault=fault, output_tokens=answer.usage.output_tokens)
        if knobs.latency_ms:
            await asyncio.sleep(knobs.latency_ms / 1000)
        if fault is Fault.RESET:
            return _reset(request)
        if fault is Fault.TIMEOUT:
            await asyncio.sleep(SILENCE_MAX_S)
            return _refuse(dialect, RefusalError(504), stamp, latency_ms=knobs.latency_ms)
        if fault is not None and fault.status is not None:
            return _refuse(dialect, RefusalError(fault.status), stamp, latency_ms=knobs.latency_ms)
        headers = dialect.headers(stamp, status=200, latency_ms=knobs.latency_ms)
        if chat.stream:
            return await _send_stream(request, dialect, answer, headers, knobs, fault)
        return await _send_body(request, dialect.unary(answer), headers, fault)

    async def answer_plainly(self, request: web.Request, endpoint: PlainEndpoint) -> web.StreamResponse:
        """The same where the answer is no conversation; of the knobs, those for faults and latency have a meaning."""
        stamp, dialect = Stamp(fingerprint((request.path,)), self.now()), endpoint.dialect
        try:
            body = await _read(request)
            if self.recorder is not None:
                self.recorder.record(request, body)
            stamp = Stamp(fingerprint((request.path, body)), self.now())
            dialect.check_headers(request.headers, request.query)
            plain = endpoint.answer(body, stamp)
            knobs = self._turned(request, take_directives(plain.text)[1])
        except RefusalError as refusal:
            return _refuse(dialect, refusal, stamp, latency_ms=0)
        fault = knobs.fault(stamp.digest)
        if knobs.latency_ms:
            await asyncio.sleep(knobs.latency_ms / 1000)
        if fault is Fault.RESET:
            return _reset(request)
        if fault is not None and fault.status is not None:
            return _refuse(dialect, RefusalError(fault.status), stamp, latency_ms=knobs.latency_ms)
        headers = dialect.headers(stamp, status=200, latency_ms=knobs.latency_ms)
        if not isinstance(plain.body, bytes):
            usage: JsonObject = {"usage": plain.usage} if plain.usage and fault is not Fault.NO_USAGE else {}
            return await _send_body(request, plain.body | usage, headers, fault)
        response = web.StreamResponse(headers=headers | {"content-type": plain.content_type})
        await response.prepare(request)
        frames = plain.frames or (plain.body,)
        # A stream without its end has no usage either.
        for frame in frames[:-1] if fault in {Fault.CUT, Fault.NO_USAGE} and plain.frames else frames:
            await response.write(frame)
        if fault is Fault.CUT:
            _hang_up(request)
        return response

    async def converse(self, request: web.Request) -> web.StreamResponse:
        """A session over a WebSocket. Of the knobs, those with a status have a meaning for the handshake, the others for a response."""
        stamp, dialect = Stamp(fingerprint((request.path_qs,)), self.now()), OpenAiChat()
        if self.recorder is not None:
            self.recorder.record(request, b"")
        try:
            dialect.check_headers(request.headers, request.query)
            knobs = self._turned(request, "")
        except RefusalError as refusal:
            return _refuse(dialect, refusal, stamp, latency_ms=0)
        fault = knobs.fault(stamp.digest)
        if fault is not None and fault.status is not None:
            return _refuse(dialect, RefusalError(fault.status), stamp, latency_ms=0)
        model = request.query.get("model")
        if not model:
            return _refuse(dialect, RefusalError(400, "A session is of a model.", param="model"), stamp, latency_ms=0)
        socket = web.WebSocketResponse(protocols=(PROTOCOL,), max_msg_size=EVENT_BYTES_MAX, compress=False)
        await socket.prepare(request)
        conversation = Conversation(model, knobs, stamp)
        await socket.send_json(conversation.opening(), dumps=compact)
        async for message in socket:
            if message.type is not web.WSMsgType.TEXT:
                break
            turned = conversation.take(message.data)
            for event in turned.events:
                await socket.send_json(event, dumps=compact)
                if turned.knobs.token_delay_ms:
                    await asyncio.sleep(turned.knobs.token_delay_ms / 1000)
            if turned.is_cut:
                _hang_up(request)
                break
        return socket

    def list_models(self, request: web.Request) -> web.Response:
        """OpenAI's list of models; no knob reaches it."""
        dialect = OpenAiChat()
        stamp = Stamp(fingerprint((request.path,)), self.now())
        if self.recorder is not None:
            self.recorder.record(request, b"")
        try:
            dialect.check_headers(request.headers, request.query)
        except RefusalError as refusal:
            return _refuse(dialect, refusal, stamp, latency_ms=0)
        return web.json_response(
            dialect.models(), headers=dialect.headers(stamp, status=200, latency_ms=0), dumps=compact
        )

    def _read_chat(self, request: web.Request, chat: ChatRequest) -> tuple[ChatRequest, Knobs]:
        chat, directives = without_directives(chat)
        return chat, self._turned(request, directives)

    def _turned(self, request: web.Request, directives: str) -> Knobs:
        try:
            knobs = turn(self.knobs, ",".join(request.headers.getall(HEADER, ())))
            return turn(knobs, directives)
        except InvalidKnobsError as error:
            raise RefusalError(400, f"Invalid knobs: {error}") from error


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise RefusalError(413) from error


def _refuse(dialect: Dialect, refusal: RefusalError, stamp: Stamp, *, latency_ms: int) -> web.Response:
    return web.json_response(
        dialect.error(refusal, stamp),
        status=refusal.status,
        headers=dialect.headers(stamp, status=refusal.status, latency_ms=latency_ms),
        dumps=compact,
    )


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        # Closing a socket that may not linger sends RST; a plain close would send FIN.
        connection: socket.socket = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        request.transport.abort()
    return web.Response()


async def _send_body(
    request: web.Request, answer: JsonObject, headers: dict[str, str], fault: Fault | None
) -> web.StreamResponse:
    body = compact(answer).encode()
    if fault is Fault.MALFORMED:
        body = body[: len(body) // 2]
    if fault is not Fault.CUT:
        return web.Response(body=body, headers=headers, content_type="application/json")
    response = web.StreamResponse(headers=headers)
    response.content_type = "application/json"
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    _hang_up(request)
    return response


async def _send_stream(
    request: web.Request,
    dialect: Dialect,
    answer: Answer,
    headers: dict[str, str],
    knobs: Knobs,
    fault: Fault | None,
) -> web.StreamResponse:
    frames = dialect.stream(answer)
    middle = len(frames) // 2
    if fault is Fault.MALFORMED:
        frames[middle] = frames[middle][: len(frames[middle]) // 2] + b"\n\n"
    if fault is Fault.CUT:
        frames = frames[:middle]
    response = web.StreamResponse(headers=headers | {"content-type": dialect.stream_type, "cache-control": "no-cache"})
    await response.prepare(request)
    if knobs.token_delay_ms:
        for number, frame in enumerate(frames):
            if number:
                await asyncio.sleep(knobs.token_delay_ms / 1000)
            await response.write(frame)
    else:
        await response.write(b"".join(frames))
    if fault is Fault.CUT:
        _hang_up(request)
    return response


def _hang_up(request: web.Request) -> None:
    # close() and not abort(): what was written still goes out, so that a cut is always at the same byte.
    if request.transport is not None:
        request.transport.close()
