"""Answers as Anthropic's messages, whole and as streams. Pure.

Source: Anthropic's API reference (messages, streaming messages, errors).
"""

from collections.abc import Mapping
from typing import Final, assert_never

from gateway_core.endpoints import Dialect
from gateway_core.usage import BYTES_PER_TOKEN
from translator.asked import Asked
from translator.faults import UnreadableAnswerError
from translator.json_values import Json, JsonObject, compact
from translator.metering import messages_usage
from translator.parts import ModelPart, Refusal, Seal, SealKind, Text, Thinking, ToolCall
from translator.reply import (
    Began,
    CallBegan,
    CallContinued,
    Declined,
    Ended,
    Event,
    Failed,
    Failure,
    Reply,
    Said,
    Sealed,
    Stop,
    Thought,
)
from translator.sse import event as sse

_REASONS: Final[Mapping[Stop, str]] = {
    Stop.END: "end_turn",
    Stop.SEQUENCE: "stop_sequence",
    Stop.LENGTH: "max_tokens",
    Stop.TOOL_USE: "tool_use",
    Stop.REFUSED: "refusal",
}
_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def write_reply(reply: Reply, _asked: Asked) -> JsonObject:
    """A whole answer.

    Raises:
        UnreadableAnswerError: arguments of a call are no JSON object, and nothing says that they were cut off.
    """
    return {
        "id": reply.id,
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": [_block(part, reply.stop) for part in reply.parts],
        "stop_reason": _REASONS[reply.stop],
        "stop_sequence": reply.stop_sequence,
        **({} if reply.metered is None else {"usage": messages_usage(reply.metered)}),
    }


def write_failure(failure: Failure) -> JsonObject:
    """An error."""
    kind = _TYPES.get(failure.status) or "api_error"
    code: JsonObject = {} if failure.code is None else {"code": failure.code}
    return {"type": "error", "error": {"type": kind, "message": failure.message, **code}}


def _block(part: ModelPart, stop: Stop) -> Json:
    match part:
        case Text(text=text) | Refusal(text=text):
            return {"type": "text", "text": text}
        case Thinking(text=text, seal=seal):
            if seal is not None and seal.kind is SealKind.WHOLE:
                return {"type": "redacted_thinking", "data": seal.data}
            return {"type": "thinking", "thinking": text, "signature": _signature(seal)}
        case ToolCall():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": _arguments(part, stop)}
        case _:
            assert_never(part)


def _signature(seal: Seal | None) -> str:
    return seal.data if seal is not None and seal.maker is Dialect.ANTHROPIC else ""


def _arguments(call: ToolCall, stop: Stop) -> JsonObject:
    arguments = call.arguments_object()
    if arguments is not None:
        return arguments
    if stop is Stop.LENGTH:
        # Cut off: Anthropic has an empty object there, too.
        return {}
    raise UnreadableAnswerError("the arguments of a tool call are no JSON object")


class StreamWriter:
    """Writes the events of one stream: one block after the other, each begun and ended."""

    def __init__(self, asked: Asked) -> None:
        self._input_estimate = asked.input_estimate
        self._blocks = 0
        self._open: str | None = None
        self._characters = 0

    def write(self, event: Event) -> bytes:
        """What a client is sent for an event."""
        match event:
            case Said(text=text) | Declined(text=text):
                opened = self._in("text", '{"type":"text","text":""}')
                return opened + self._delta("text_delta", "text", text)
            case CallContinued(arguments=arguments):
                return self._delta("input_json_delta", "partial_json", arguments)
            case Thought(text=text):
                opened = self._in("thinking", '{"type":"thinking","thinking":"","signature":""}')
                return opened + self._delta("thinking_delta", "thinking", text)
            case Sealed(seal=seal):
                return self._sealed(seal)
            case CallBegan():
                block = compact({"type": "tool_use", "id": event.id, "name": event.name, "input": {}})
                return self._close() + self._in("tool_use", block)
            case Began():
                return self._began(event)
            case Ended():
                return self._ended(event)
            case Failed(failure=failure):
                return self._close() + sse(compact(write_failure(failure)), "error")
            case _:
                assert_never(event)

    def _began(self, event: Began) -> bytes:
        # Nobody has counted yet. A client is told what billing_sink would take for its input if the answer broke off here.
        message: JsonObject = {
            "id": event.id,
            "type": "message",
            "role": "assistant",
            "model": event.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": self._input_estimate, "output_tokens": 1},
        }
        return sse(compact({"type": "message_start", "message": message}), "message_start")

    def _in(self, kind: str, block: str) -> bytes:
        if self._open == kind:
            return b""
        before = self._close()
        self._open = kind
        start = f'{{"type":"content_block_start","index":{self._blocks},"content_block":{block}}}'
        return before + f"event: content_block_start\ndata: {start}\n\n".encode()

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        stop = f'{{"type":"content_block_stop","index":{self._blocks}}}'
        self._blocks += 1
        return f"event: content_block_stop\ndata: {stop}\n\n".encode()

    def _delta(self, kind: str, name: str, text: str) -> bytes:
        self._characters += len(text)
        delta = f'{{"type":"{kind}","{name}":{compact(text)}}}'
        data = f'{{"type":"content_block_delta","index":{self._blocks},"delta":{delta}}}'
        return f"event: content_block_delta\ndata: {data}\n\n".encode()

    def _sealed(self, seal: Seal) -> bytes:
        if seal.kind is SealKind.WHOLE:
            block = compact({"type": "redacted_thinking", "data": seal.data})
            return self._close() + self._in("redacted_thinking", block) + self._close()
        if self._open != "thinking":
            return b""
        return self._delta("signature_delta", "signature", _signature(seal)) + self._close()

    def _ended(self, event: Ended) -> bytes:
        usage: JsonObject
        if event.metered is None:
            # There has to be one. By the rule billing_sink has for answers that nobody has counted.
            usage = {"output_tokens": max(1, -(-self._characters // BYTES_PER_TOKEN))}
        else:
            usage = messages_usage(event.metered)
        delta: JsonObject = {"stop_reason": _REASONS[event.stop], "stop_sequence": event.stop_sequence}
        return b"".join(
            (
                self._close(),
                sse(compact({"type": "message_delta", "delta": delta, "usage": usage}), "message_delta"),
                sse('{"type":"message_stop"}', "message_stop"),
            )
        )
