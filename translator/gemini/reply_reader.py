"""Answers of Gemini's generateContent, whole and as streams. Pure.

Source: Google's API reference (generateContent, GenerateContentResponse, thinking, function calling).
"""

from collections.abc import Callable, Iterable
from typing import Final

from gateway_core.endpoints import Dialect
from translator.failures import failure_in
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
    Reply,
    Said,
    Stop,
    Thought,
)

NewCallId = Callable[[], str]
"""Gemini's calls have no ids that could be relied on."""

_REFUSED: Final = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "LANGUAGE",
        "IMAGE_SAFETY",
    }
)


def read_reply(body: JsonObject, new_call_id: NewCallId) -> Reply:
    """Read a whole answer.

    Raises:
        ShapeError: it is none.
    """
    fields = Fields(body)
    parts: list[ModelPart] = []
    for each in _parts(fields):
        part = _part(each, new_call_id)
        last = parts[-1] if parts else None
        if isinstance(part, Text) and isinstance(last, Text):
            parts[-1] = Text(last.text + part.text)
        elif isinstance(part, Thinking) and isinstance(last, Thinking):
            parts[-1] = Thinking(last.text + part.text)
        elif part is not None:
            parts.append(part)
    usage = fields.object_or_none("usageMetadata")
    return Reply(
        fields.text_or_none("responseId") or "",
        fields.text_or_none("modelVersion") or "",
        tuple(parts),
        _stop(_reason(fields) or "", calls=any(isinstance(part, ToolCall) for part in parts)),
        metered(Dialect.GEMINI, None if usage is None else usage.value),
    )


def _parts(fields: Fields) -> list[Fields]:
    for candidate in fields.objects("candidates")[:1]:
        content = candidate.object_or_none("content")
        return [] if content is None else content.objects("parts")
    return []


def _part(part: Fields, new_call_id: NewCallId) -> ModelPart | None:
    call = part.object_or_none("functionCall")
    if call is not None:
        arguments = call.object_or_none("args")
        return ToolCall(
            call.text_or_none("id") or new_call_id(),
            call.text("name"),
            "{}" if arguments is None else compact(arguments.value),
            _seal(part),
        )
    text = part.text_or_none("text")
    if not text:
        return None
    return Thinking(text) if part.flag("thought") else Text(text)


def _seal(part: Fields) -> Seal | None:
    signature = part.text_or_none("thoughtSignature")
    return None if signature is None else Seal(Dialect.GEMINI, SealKind.SIGNATURE, signature)


def _reason(fields: Fields) -> str | None:
    for candidate in fields.objects("candidates")[:1]:
        return candidate.text_or_none("finishReason")
    feedback = fields.object_or_none("promptFeedback")
    # A prompt that is refused has no candidates.
    return None if feedback is None or feedback.text_or_none("blockReason") is None else "SAFETY"


def _stop(reason: str, *, calls: bool) -> Stop:
    if reason in _REFUSED:
        return Stop.REFUSED
    if reason == "MAX_TOKENS":
        return Stop.LENGTH
    return Stop.TOOL_USE if calls else Stop.END


class StreamReader:
    """Reads the chunks of one stream; each is a whole answer of its own with the next parts in it."""

    def __init__(self, new_call_id: NewCallId) -> None:
        self._new_call_id = new_call_id
        self._began = False
        self._calls = False
        self._reason: str | None = None
        self._usage_first: JsonObject | None = None
        self._usage_last: JsonObject | None = None

    def read(self, event: JsonObject) -> Iterable[Event]:
        """What a chunk says.

        Raises:
            ShapeError: it is none.
        """
        if event.get("error") is not None and (failure := failure_in(event)) is not None:
            yield Failed(failure)
            return
        fields = Fields(event)
        if not self._began:
            self._began = True
            yield Began(fields.text_or_none("responseId") or "", fields.text_or_none("modelVersion") or "")
        for each in _parts(fields):
            match _part(each, self._new_call_id):
                case Text(text=text):
                    yield Said(text)
                case Thinking(text=text):
                    yield Thought(text)
                case ToolCall() as call:
                    self._calls = True
                    yield CallBegan(call.id, call.name, call.seal)
                    yield CallContinued(call.arguments)
                case _:
                    pass
        usage = fields.object_or_none("usageMetadata")
        if usage is not None and self._usage_first is None:
            self._usage_first = usage.value
        elif usage is not None:
            self._usage_last = usage.value
        self._reason = _reason(fields) or self._reason

    def end(self) -> Iterable[Event]:
        """What the end of the stream says; nothing if it broke off."""
        if self._reason is not None:
            yield Ended(
                _stop(self._reason, calls=self._calls),
                metered(Dialect.GEMINI, self._usage_first, self._usage_last),
            )
