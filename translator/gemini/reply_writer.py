"""Answers as Gemini's generateContent, whole and as streams. Pure.

Source: Google's API reference (generateContent, GenerateContentResponse, errors).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, assert_never

from gateway_core.endpoints import Dialect
from gateway_core.errors import google_status
from translator.asked import Asked
from translator.failures import INTERNAL
from translator.json_values import Json, JsonObject, ShapeError, compact
from translator.metering import gemini_usage
from translator.parts import ModelPart, Refusal, Seal, Text, Thinking, ToolCall
from translator.reply import (
    Began,
    CallBegan,
    CallContinued,
    Declined,
    Ended,
    Event,
    Failed,
    Failure,
    Metered,
    Reply,
    Said,
    Sealed,
    Stop,
    Thought,
)
from translator.sse import event as sse

_REASONS: Final[Mapping[Stop, str]] = {
    Stop.END: "STOP",
    Stop.SEQUENCE: "STOP",
    Stop.LENGTH: "MAX_TOKENS",
    Stop.TOOL_USE: "STOP",
    Stop.REFUSED: "SAFETY",
}


def write_reply(reply: Reply, _asked: Asked) -> JsonObject:
    """A whole answer.

    Raises:
        ShapeError: arguments of a call are no JSON object, and nothing says that they were cut off.
    """
    parts: list[Json] = [_part(part, reply.stop) for part in reply.parts if not _is_empty(part)]
    return {
        "candidates": [_candidate(parts, _REASONS[reply.stop])],
        **_metered(reply.metered),
        "modelVersion": reply.model,
        "responseId": reply.id,
    }


def write_failure(failure: Failure) -> JsonObject:
    """An error."""
    status = failure.status or INTERNAL
    error: JsonObject = {"code": status, "message": failure.message, "status": google_status(status)}
    reason = failure.code or failure.kind
    return {"error": error if reason is None else {**error, "reason": reason}}


def _candidate(parts: list[Json], reason: str | None = None) -> Json:
    found: JsonObject = {"content": {"role": "model", "parts": parts}, "index": 0}
    return found if reason is None else {**found, "finishReason": reason}


def _metered(usage: Metered) -> JsonObject:
    return {} if usage is None else {"usageMetadata": gemini_usage(usage)}


def _is_empty(part: ModelPart) -> bool:
    return not isinstance(part, ToolCall) and not part.text


def _part(part: ModelPart, stop: Stop) -> Json:
    match part:
        case Text(text=text) | Refusal(text=text):
            return {"text": text}
        case Thinking(text=text):
            return {"text": text, "thought": True}
        case ToolCall():
            return _call(part, is_cut_off=stop is Stop.LENGTH)
        case _:
            assert_never(part)


def _call(call: ToolCall, *, is_cut_off: bool) -> Json:
    arguments = call.arguments_object()
    if arguments is None:
        if not is_cut_off:
            raise ShapeError("functionCall.args", "not an object")
        arguments = {}
    return {"functionCall": {"id": call.id, "name": call.name, "args": arguments}, **_signed(call.seal)}


def _signed(seal: Seal | None) -> JsonObject:
    return {"thoughtSignature": seal.data} if seal is not None and seal.maker is Dialect.GEMINI else {}


@dataclass(slots=True)
class _Call:
    """A call whose arguments come in pieces, which is told when it is whole."""

    began: CallBegan
    arguments: list[str] = field(default_factory=list)

    @property
    def whole(self) -> ToolCall:
        return ToolCall(self.began.id, self.began.name, "".join(self.arguments), self.began.seal)


class StreamWriter:
    """Writes the chunks of one stream: each is an answer of its own with the next parts in it."""

    def __init__(self, _asked: Asked) -> None:
        self._rest: JsonObject = {}
        self._call: _Call | None = None

    def write(self, event: Event) -> bytes:
        """What a client is sent for an event.

        Raises:
            ShapeError: arguments of a call are no JSON object, and nothing says that they were cut off.
        """
        match event:
            case Said(text=text) | Declined(text=text):
                return self._told() + self._chunk([{"text": text}])
            case Thought(text=text):
                return self._told() + self._chunk([{"text": text, "thought": True}])
            case CallBegan():
                told = self._told()
                self._call = _Call(event)
                return told
            case CallContinued(arguments=arguments):
                if self._call is not None:
                    self._call.arguments.append(arguments)
                return b""
            case Began(id=id_, model=model):
                self._rest = {"modelVersion": model, "responseId": id_}
                return b""
            case Sealed():
                return b""
            case Ended(stop=stop, metered=metered):
                told = self._told(is_cut_off=stop is Stop.LENGTH)
                return told + self._chunk([{"text": ""}], _REASONS[stop], metered)
            case Failed(failure=failure):
                return sse(compact(write_failure(failure)))
            case _:
                assert_never(event)

    def _told(self, *, is_cut_off: bool = False) -> bytes:
        """The call that is over."""
        call, self._call = self._call, None
        return b"" if call is None else self._chunk([_call(call.whole, is_cut_off=is_cut_off)])

    def _chunk(self, parts: list[Json], reason: str | None = None, metered: Metered = None) -> bytes:
        return sse(compact({"candidates": [_candidate(parts, reason)], **_metered(metered), **self._rest}))
