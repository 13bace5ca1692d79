"""Answers of Anthropic's messages, whole and as streams. Pure.

Source: Anthropic's API reference (messages, streaming messages).
"""

from collections.abc import Iterable, Mapping
from typing import Final

from gateway_core.endpoints import Dialect
from translator.failures import INTERNAL, failure_in
from translator.json_values import Fields, JsonObject, compact
from translator.metering import metered
from translator.parts import ModelPart, Seal, SealKind, Text, Thinking, ToolCall
from translator.reply import (
    Began,
    CallBegan,
    CallContinued,
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

_STOPS: Final[Mapping[str, Stop]] = {
    "end_turn": Stop.END,
    "stop_sequence": Stop.SEQUENCE,
    "max_tokens": Stop.LENGTH,
    "model_context_window_exceeded": Stop.LENGTH,
    "tool_use": Stop.TOOL_USE,
    "refusal": Stop.REFUSED,
}


def read_reply(body: JsonObject) -> Reply:
    """Read a whole answer.

    Raises:
        ShapeError: it is none.
    """
    fields = Fields(body)
    usage = fields.object_or_none("usage")
    return Reply(
        fields.text("id"),
        fields.text("model"),
        tuple(part for block in fields.objects("content") if (part := _part(block)) is not None),
        _stop(fields),
        metered(Dialect.ANTHROPIC, None if usage is None else usage.value),
        fields.text_or_none("stop_sequence"),
    )


def _part(block: Fields) -> ModelPart | None:
    match block.text("type"):
        case "text":
            return Text(block.text("text"))
        case "thinking":
            return Thinking(block.text("thinking"), _signature(block.text_or_none("signature")))
        case "redacted_thinking":
            return Thinking("", Seal(Dialect.ANTHROPIC, SealKind.WHOLE, block.text("data")))
        case "tool_use":
            return ToolCall(block.text("id"), block.text("name"), compact(block.object("input").value))
        case _:
            # Of tools that Anthropic runs itself; none was offered.
            return None


def _signature(text: str | None) -> Seal | None:
    return Seal(Dialect.ANTHROPIC, SealKind.SIGNATURE, text) if text else None


def _stop(fields: Fields) -> Stop:
    return _STOPS.get(fields.text_or_none("stop_reason") or "", Stop.END)


class StreamReader:
    """Reads the events of one stream."""

    def __init__(self) -> None:
        self._usage_first: JsonObject | None = None
        self._usage_last: JsonObject | None = None
        self._ended: Ended | None = None
        self._signature = ""
        self._call_is_empty = False

    def read(self, event: JsonObject) -> Iterable[Event]:
        """What an event says.

        Raises:
            ShapeError: it is none.
        """
        fields = Fields(event)
        match fields.text("type"):
            case "content_block_delta":
                yield from self._delta(fields.object("delta"))
            case "content_block_start":
                yield from self._block(fields.object("content_block"))
            case "content_block_stop":
                yield from self._block_ended()
            case "message_start":
                message = fields.object("message")
                usage = message.object_or_none("usage")
                self._usage_first = None if usage is None else usage.value
                yield Began(message.text("id"), message.text("model"))
            case "message_delta":
                self._note_end(fields)
            case "message_stop":
                yield from self.end()
            case "error":
                yield Failed(failure_in(event) or Failure(INTERNAL, "The model provider failed."))
            case _:
                # Pings, and whatever is new.
                pass

    def end(self) -> Iterable[Event]:
        """What the end of the stream says; nothing if it broke off."""
        if self._ended is not None:
            yield self._ended

    def _note_end(self, fields: Fields) -> None:
        usage = fields.object_or_none("usage")
        if usage is not None:
            # Nulls are what did not change.
            said: JsonObject = {name: value for name, value in usage.value.items() if value is not None}
            self._usage_last = said if self._usage_first is not None else None
            self._usage_first = self._usage_first or said
        delta = fields.object("delta")
        self._ended = Ended(
            _stop(delta),
            metered(Dialect.ANTHROPIC, self._usage_first, self._usage_last),
            delta.text_or_none("stop_sequence"),
        )

    def _block(self, block: Fields) -> Iterable[Event]:
        match block.text("type"):
            case "tool_use":
                self._call_is_empty = True
                yield CallBegan(block.text("id"), block.text("name"))
            case "text":
                if text := block.text_or_none("text"):
                    yield Said(text)
            case "thinking":
                if text := block.text_or_none("thinking"):
                    yield Thought(text)
            case "redacted_thinking":
                yield Sealed(Seal(Dialect.ANTHROPIC, SealKind.WHOLE, block.text("data")))
            case _:
                pass

    def _delta(self, delta: Fields) -> Iterable[Event]:
        match delta.text("type"):
            case "text_delta":
                yield Said(delta.text("text"))
            case "input_json_delta":
                if arguments := delta.text("partial_json"):
                    self._call_is_empty = False
                    yield CallContinued(arguments)
            case "thinking_delta":
                yield Thought(delta.text("thinking"))
            case "signature_delta":
                self._signature += delta.text("signature")
            case _:
                pass

    def _block_ended(self) -> Iterable[Event]:
        if self._call_is_empty:
            yield CallContinued("{}")
            self._call_is_empty = False
        if (seal := _signature(self._signature)) is not None:
            yield Sealed(seal)
            self._signature = ""
