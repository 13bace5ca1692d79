"""Answers as chat completions, whole and as streams. Pure.

Source: OpenAI's API reference. `reasoning_content` and `thinking_blocks` are fields that other gateways and providers added; a client
that sends them back lets a model go on thinking where it was.
"""

from collections.abc import Mapping
from typing import Final, assert_never

from gateway_core.endpoints import Dialect
from translator.asked import Asked
from translator.json_values import Json, JsonObject, compact
from translator.metering import chat_usage, tier_of
from translator.parts import Refusal, Seal, SealKind, Text, Thinking, ToolCall
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

DONE: Final = b"data: [DONE]\n\n"
_REASONS: Final[Mapping[Stop, str]] = {
    Stop.END: "stop",
    Stop.SEQUENCE: "stop",
    Stop.LENGTH: "length",
    Stop.TOOL_USE: "tool_calls",
    Stop.REFUSED: "content_filter",
}
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


def write_reply(reply: Reply, asked: Asked) -> JsonObject:
    """A whole answer."""
    said = "".join(part.text for part in reply.parts if isinstance(part, Text))
    refused = "".join(part.text for part in reply.parts if isinstance(part, Refusal))
    thoughts = [part for part in reply.parts if isinstance(part, Thinking)]
    message: JsonObject = {"role": "assistant", "content": said or None, "refusal": refused or None}
    if told := "".join(part.text for part in thoughts):
        message["reasoning_content"] = told
    if blocks := [_block(part.text, part.seal) for part in thoughts if _is_anthropics(part.seal)]:
        message["thinking_blocks"] = blocks
    if calls := [_call(part) for part in reply.parts if isinstance(part, ToolCall)]:
        message["tool_calls"] = calls
    choice: JsonObject = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _REASONS[reply.stop],
    }
    return {
        "id": reply.id,
        "object": "chat.completion",
        "created": asked.created,
        "model": reply.model,
        "choices": [choice],
        **_metered(reply.metered),
    }


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


def _metered(usage: Metered) -> JsonObject:
    if usage is None:
        return {}
    tier = tier_of(usage)
    return {**({} if tier is None else {"service_tier": tier}), "usage": chat_usage(usage)}


def _is_anthropics(seal: Seal | None) -> bool:
    return seal is not None and seal.maker is Dialect.ANTHROPIC


def _block(text: str, seal: Seal | None) -> Json:
    assert seal is not None  # noqa: S101 - only sealed thinking is made a block
    if seal.kind is SealKind.WHOLE:
        return {"type": "redacted_thinking", "data": seal.data}
    return {"type": "thinking", "thinking": text, "signature": seal.data}


def _call(call: ToolCall) -> Json:
    function: JsonObject = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function, **_extra(call.seal)}


def _extra(seal: Seal | None) -> JsonObject:
    if seal is None or seal.maker is not Dialect.GEMINI:
        return {}
    return {"extra_content": {"google": {"thought_signature": seal.data}}}


class StreamWriter:
    """Writes the chunks of one stream."""

    def __init__(self, asked: Asked) -> None:
        options = asked.body.get("stream_options")
        self._tells_usage = isinstance(options, dict) and options.get("include_usage") is True
        self._created = asked.created
        self._head = ""
        self._thoughts: list[str] = []
        self._calls = 0

    def write(self, event: Event) -> bytes:
        """What a client is sent for an event."""
        match event:
            case Said(text=text):
                return self._delta(f'{{"content":{compact(text)}}}')
            case CallContinued(arguments=arguments):
                call = f'{{"index":{self._calls - 1},"function":{{"arguments":{compact(arguments)}}}}}'
                return self._delta(f'{{"tool_calls":[{call}]}}')
            case Thought(text=text):
                self._thoughts.append(text)
                return self._delta(f'{{"reasoning_content":{compact(text)}}}')
            case Sealed(seal=seal):
                return self._sealed(seal)
            case Declined(text=text):
                return self._delta(f'{{"refusal":{compact(text)}}}')
            case CallBegan():
                return self._call_began(event)
            case Began():
                return self._began(event)
            case Ended():
                return self._ended(event)
            case Failed(failure=failure):
                return sse(compact(write_failure(failure)))
            case _:
                assert_never(event)

    def _began(self, event: Began) -> bytes:
        head: JsonObject = {
            "id": event.id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": event.model,
        }
        self._head = compact(head)[:-1]
        return self._delta('{"role":"assistant","content":""}')

    def _delta(self, delta: str) -> bytes:
        choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}'
        return f'data: {self._head},"choices":[{choice}]}}\n\n'.encode()

    def _sealed(self, seal: Seal) -> bytes:
        text, self._thoughts = "".join(self._thoughts), []
        if not _is_anthropics(seal):
            return b""
        return self._delta(compact({"thinking_blocks": [_block(text, seal)]}))

    def _call_began(self, event: CallBegan) -> bytes:
        call: JsonObject = {
            "index": self._calls,
            "id": event.id,
            "type": "function",
            "function": {"name": event.name, "arguments": ""},
            **_extra(event.seal),
        }
        self._calls += 1
        return self._delta(compact({"tool_calls": [call]}))

    def _ended(self, event: Ended) -> bytes:
        choice = f'{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"{_REASONS[event.stop]}"}}'
        chunks = f'data: {self._head},"choices":[{choice}]}}\n\n'.encode()
        if self._tells_usage and event.metered is not None:
            # No choices and the usage: by that the front filter knows what to keep from who has not asked for it.
            rest = compact(_metered(event.metered))[1:]
            chunks += f'data: {self._head},"choices":[],{rest}\n\n'.encode()
        return chunks + DONE
