"""Answers of the Responses API, whole and as streams. Pure.

Source: OpenAI's API reference (responses, streaming events of responses).
"""

from collections.abc import Iterable, Mapping
from typing import Final, assert_never

from translator.asked import Asked
from translator.conversation import FREEFORM_FIELD
from translator.json_values import Json, JsonObject, ShapeError, compact, parse_object
from translator.metering import responses_usage, tier_of
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
from translator.responses.request_reader import sealed_text
from translator.sse import event as sse

_INCOMPLETE: Final[Mapping[Stop, str]] = {Stop.LENGTH: "max_output_tokens", Stop.REFUSED: "content_filter"}
_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
}
_CODES: Final[Mapping[int, str]] = {400: "invalid_prompt", 429: "rate_limit_exceeded"}
_ECHOED: Final = (
    "instructions",
    "max_output_tokens",
    "temperature",
    "top_p",
    "tool_choice",
    "tools",
    "parallel_tool_calls",
    "reasoning",
    "text",
    "metadata",
    "user",
)
_ECHOED_WHERE_ABSENT: Final[Mapping[str, Json]] = {
    "tool_choice": "auto",
    "tools": [],
    "parallel_tool_calls": True,
    "metadata": {},
}


def write_reply(reply: Reply, asked: Asked) -> JsonObject:
    """A whole answer."""
    items: list[Json] = [
        _item(part, number, reply.id, asked, _status(reply.stop)) for number, part in enumerate(_joined(reply.parts))
    ]
    return _response(reply.id, reply.model, asked, _ending(reply.stop, reply.metered) | {"output": items})


def write_failure(failure: Failure) -> JsonObject:
    """An error."""
    kind = _TYPES.get(failure.status) or "server_error"
    error: JsonObject = {
        "message": failure.message,
        "type": kind,
        "param": failure.param,
        "code": failure.code or failure.kind,
    }
    return {"error": error}


def _joined(parts: tuple[ModelPart, ...]) -> Iterable[ModelPart]:
    """Neighbouring words are one message."""
    text: str | None = None
    for part in parts:
        if isinstance(part, Text):
            text = part.text if text is None else text + part.text
            continue
        if text is not None:
            yield Text(text)
            text = None
        yield part
    if text is not None:
        yield Text(text)


def _response(reply_id: str, model: str, asked: Asked, rest: JsonObject) -> JsonObject:
    echoed = {name: asked.body.get(name) for name in _ECHOED}
    echoed |= {name: value for name, value in _ECHOED_WHERE_ABSENT.items() if echoed[name] is None}
    return {
        "id": f"resp_{reply_id}",
        "object": "response",
        "created_at": asked.created,
        "model": model,
        "error": None,
        "incomplete_details": None,
        "previous_response_id": None,
        "store": False,
        **echoed,
        **rest,
    }


def _status(stop: Stop) -> str:
    return "incomplete" if stop in _INCOMPLETE else "completed"


def _ending(stop: Stop, usage: Metered) -> JsonObject:
    found: JsonObject = {"status": _status(stop)}
    if stop in _INCOMPLETE:
        found["incomplete_details"] = {"reason": _INCOMPLETE[stop]}
    if usage is not None:
        found["usage"] = responses_usage(usage)
        if (tier := tier_of(usage)) is not None:
            found["service_tier"] = tier
    return found


def _item(part: ModelPart, number: int, reply_id: str, asked: Asked, status: str) -> JsonObject:
    match part:
        case Text(text=text):
            return _message(number, reply_id, status, _output_text(text))
        case Refusal(text=text):
            return _message(number, reply_id, status, {"type": "refusal", "refusal": text})
        case Thinking(text=text, seal=seal):
            return _reasoning(number, reply_id, text, seal)
        case ToolCall():
            return _call(part, number, reply_id, status, freeform=_is_freeform(part.name, asked))
        case _:
            assert_never(part)


def _message(number: int, reply_id: str, status: str, *content: JsonObject) -> JsonObject:
    return {
        "type": "message",
        "id": f"msg_{number}_{reply_id}",
        "status": status,
        "role": "assistant",
        "content": list(content),
    }


def _output_text(text: str) -> JsonObject:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _reasoning(number: int, reply_id: str, text: str, seal: Seal | None) -> JsonObject:
    summary: list[Json] = [{"type": "summary_text", "text": text}] if text else []
    found: JsonObject = {"type": "reasoning", "id": f"rs_{number}_{reply_id}", "summary": summary}
    if seal is not None:
        found["encrypted_content"] = sealed_text(seal)
    return found


def _is_freeform(name: str, asked: Asked) -> bool:
    return any(tool.freeform and tool.name == name for tool in asked.conversation.tools)


def _call(call: ToolCall, number: int, reply_id: str, status: str, *, freeform: bool) -> JsonObject:
    if freeform:
        return {
            "type": "custom_tool_call",
            "id": f"ctc_{number}_{reply_id}",
            "call_id": call.id,
            "name": call.name,
            "input": _freeform_input(call.arguments),
            "status": status,
        }
    return {
        "type": "function_call",
        "id": f"fc_{number}_{reply_id}",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }


def _freeform_input(arguments: str) -> str:
    try:
        found = parse_object(arguments or "{}").get(FREEFORM_FIELD)
    except ShapeError:
        found = None
    # Other arguments than were asked for are all there is of the call.
    return found if isinstance(found, str) else arguments


class StreamWriter:
    """Writes the events of one stream: items one after the other, each begun, told in pieces and told again whole."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._sequence = 0
        self._id = self._model = ""
        self._items: list[Json] = []
        self._open: type[ModelPart] | None = None
        self._pieces: list[str] = []
        self._call: CallBegan | None = None
        self._seal: Seal | None = None

    def write(self, event: Event) -> bytes:
        """What a client is sent for an event."""
        match event:
            case Said(text=text):
                return self._in(Text) + self._piece(
                    "response.output_text.delta", text, ',"content_index":0,"logprobs":[]'
                )
            case Declined(text=text):
                return self._in(Refusal) + self._piece("response.refusal.delta", text, ',"content_index":0')
            case Thought(text=text):
                opened = self._in(Thinking)
                return opened + self._piece("response.reasoning_summary_text.delta", text, ',"summary_index":0')
            case CallContinued(arguments=arguments):
                if self._call is not None and _is_freeform(self._call.name, self._asked):
                    # Its text is known when its arguments are whole.
                    self._pieces.append(arguments)
                    return b""
                return self._piece("response.function_call_arguments.delta", arguments, "")
            case Sealed(seal=seal):
                opened = self._in(Thinking, tells=False)
                self._seal = seal
                return opened + self._close("completed")
            case CallBegan():
                closed = self._close("completed")
                self._call = event
                return closed + self._in(ToolCall)
            case Began(id=reply_id, model=model):
                self._id, self._model = reply_id, model
                response = self._response({"status": "in_progress", "output": [], "usage": None})
                return self._event("response.created", {"response": response}) + self._event(
                    "response.in_progress", {"response": response}
                )
            case Ended():
                return self._ended(event)
            case Failed(failure=failure):
                error: JsonObject = {
                    "code": _CODES.get(failure.status, "server_error"),
                    "message": failure.message,
                }
                closed = self._close("incomplete")
                response = self._response({"status": "failed", "output": list(self._items), "error": error})
                return closed + self._event("response.failed", {"response": response})
            case _:
                assert_never(event)

    def _response(self, rest: JsonObject) -> JsonObject:
        return _response(self._id, self._model, self._asked, rest)

    def _event(self, kind: str, fields: JsonObject) -> bytes:
        self._sequence += 1
        return sse(compact({"type": kind, "sequence_number": self._sequence - 1, **fields}), kind)

    def _ended(self, event: Ended) -> bytes:
        closed = self._close(_status(event.stop))
        response = self._response({**_ending(event.stop, event.metered), "output": list(self._items)})
        return closed + self._event(f"response.{response['status']}", {"response": response})

    def _in(self, kind: type[ModelPart], *, tells: bool = True) -> bytes:
        if self._open is kind:
            return b""
        before = self._close("completed")
        self._open = kind
        item = self._item("in_progress")
        if kind in {Text, Refusal}:
            item["content"] = []
        place: JsonObject = {"output_index": len(self._items)}
        added = self._event("response.output_item.added", {**place, "item": item})
        place["item_id"] = item["id"]
        if kind in {Text, Refusal}:
            part = {**place, "content_index": 0, "part": self._content()}
            return before + added + self._event("response.content_part.added", part)
        if kind is Thinking and tells:
            empty: JsonObject = {"type": "summary_text", "text": ""}
            part = {**place, "summary_index": 0, "part": empty}
            return before + added + self._event("response.reasoning_summary_part.added", part)
        return before + added

    def _piece(self, kind: str, text: str, rest: str) -> bytes:
        self._pieces.append(text)
        self._sequence += 1
        place = f'"item_id":{compact(self._item_id())},"output_index":{len(self._items)}{rest}'
        data = f'{{"type":"{kind}","sequence_number":{self._sequence - 1},{place},"delta":{compact(text)}}}'
        return f"event: {kind}\ndata: {data}\n\n".encode()

    def _item_id(self) -> str:
        prefix = "rs" if self._open is Thinking else "fc" if self._open is ToolCall else "msg"
        return f"{prefix}_{len(self._items)}_{self._id}"

    def _content(self) -> JsonObject:
        text = "".join(self._pieces)
        return _output_text(text) if self._open is Text else {"type": "refusal", "refusal": text}

    def _item(self, status: str) -> JsonObject:
        number, text = len(self._items), "".join(self._pieces)
        if self._open is Thinking:
            return _reasoning(number, self._id, text, self._seal)
        if self._open is ToolCall:
            assert self._call is not None  # noqa: S101 - it has begun
            freeform = _is_freeform(self._call.name, self._asked)
            return _call(ToolCall(self._call.id, self._call.name, text), number, self._id, status, freeform=freeform)
        return _message(number, self._id, status, self._content())

    def _close(self, status: str) -> bytes:
        if self._open is None:
            return b""
        item = self._item(status)
        place: JsonObject = {"item_id": item["id"], "output_index": len(self._items)}
        ends = b"".join(self._event(kind, {**place, **fields}) for kind, fields in self._endings(item))
        ends += self._event("response.output_item.done", {"output_index": len(self._items), "item": item})
        self._items.append(item)
        self._open, self._pieces, self._call, self._seal = None, [], None, None
        return ends

    def _endings(self, item: JsonObject) -> Iterable[tuple[str, JsonObject]]:
        text = "".join(self._pieces)
        match item["type"]:
            case "reasoning" if not text:
                return
            case "reasoning":
                part: JsonObject = {"type": "summary_text", "text": text}
                yield "response.reasoning_summary_text.done", {"summary_index": 0, "text": text}
                yield "response.reasoning_summary_part.done", {"summary_index": 0, "part": part}
            case "function_call":
                yield "response.function_call_arguments.done", {"arguments": text, "name": item["name"]}
            case "custom_tool_call":
                yield "response.custom_tool_call_input.delta", {"delta": item["input"]}
                yield "response.custom_tool_call_input.done", {"input": item["input"]}
            case _ if self._open is Text:
                yield "response.output_text.done", {"content_index": 0, "text": text, "logprobs": []}
                yield "response.content_part.done", {"content_index": 0, "part": self._content()}
            case _:
                yield "response.refusal.done", {"content_index": 0, "refusal": text}
                yield "response.content_part.done", {"content_index": 0, "part": self._content()}
