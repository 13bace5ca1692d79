"""Answers of chat completions, whole and as streams. Pure.

Source: OpenAI's API reference (chat completions, streaming); `reasoning_content` and `reasoning` are what servers that imitate it
call the thinking.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway_core.endpoints import Dialect
from translator.failures import failure_in
from translator.json_values import Fields, JsonObject
from translator.metering import metered
from translator.parts import ModelPart, Refusal, Seal, SealKind, Text, Thinking, ToolCall
from translator.reply import (
    Began,
    CallBegan,
    CallContinued,
    Declined,
    Ended,
    Event,
    Failed,
    Reply,
    Said,
    Stop,
    Thought,
)

_STOPS: Final[Mapping[str, Stop]] = {
    "stop": Stop.END,
    "length": Stop.LENGTH,
    "tool_calls": Stop.TOOL_USE,
    "function_call": Stop.TOOL_USE,
    "content_filter": Stop.REFUSED,
}


def read_reply(body: JsonObject) -> Reply:
    """Read a whole answer.

    Raises:
        ShapeError: it is none.
    """
    fields = Fields(body)
    choices = fields.objects("choices")
    parts: tuple[ModelPart, ...] = ()
    stop = Stop.END
    if choices:
        parts = tuple(_parts(choices[0].object("message")))
        calls = any(isinstance(part, ToolCall) for part in parts)
        stop = _stop(choices[0].text_or_none("finish_reason"), calls=calls)
    usage = fields.object_or_none("usage")
    return Reply(
        fields.text_or_none("id") or "",
        fields.text_or_none("model") or "",
        parts,
        stop,
        metered(Dialect.OPENAI, None if usage is None else usage.value, tier=fields.text_or_none("service_tier")),
    )


def _parts(message: Fields) -> Iterable[ModelPart]:
    if thinking := message.text_or_none("reasoning_content") or message.text_or_none("reasoning"):
        yield Thinking(thinking)
    if said := message.text_or_none("content"):
        yield Text(said)
    if refused := message.text_or_none("refusal"):
        yield Refusal(refused)
    for call in message.objects("tool_calls"):
        function = call.object("function")
        yield ToolCall(call.text("id"), function.text("name"), function.text_or_none("arguments") or "", _seal(call))


def _seal(call: Fields) -> Seal | None:
    extra = call.object_or_none("extra_content")
    google = None if extra is None else extra.object_or_none("google")
    signature = None if google is None else google.text_or_none("thought_signature")
    return None if signature is None else Seal(Dialect.GEMINI, SealKind.SIGNATURE, signature)


def _stop(reason: str | None, *, calls: bool) -> Stop:
    stop = _STOPS.get(reason or "", Stop.END)
    # Some servers say `stop` of a call as well.
    return Stop.TOOL_USE if calls and stop is Stop.END else stop


@dataclass(slots=True)
class _Call:
    """A call that has to wait: a stream without indices tells of one part after the other."""

    began: CallBegan
    arguments: list[str] = field(default_factory=list)


class StreamReader:
    """Reads the chunks of one stream.

    Calls have numbers, so their pieces may come in any order; the first call is told as it comes, the others when it is known
    to be over, which is at the end.
    """

    def __init__(self) -> None:
        self._began = False
        self._finish: str | None = None
        self._usage_first: JsonObject | None = None
        self._usage_last: JsonObject | None = None
        self._tier: str | None = None
        self._told: int | None = None
        self._waiting: dict[int, _Call] = {}
        self._over = False

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
            yield Began(fields.text_or_none("id") or "", fields.text_or_none("model") or "")
        self._note_usage(fields)
        for choice in fields.objects("choices")[:1]:
            delta = choice.object_or_none("delta")
            if delta is not None:
                yield from self._delta(delta)
            self._finish = choice.text_or_none("finish_reason") or self._finish

    def end(self) -> Iterable[Event]:
        """What the end of the stream says; nothing if it broke off."""
        if self._finish is None or self._over:
            return
        self._over = True
        for number in sorted(self._waiting):
            call = self._waiting[number]
            yield call.began
            yield from map(CallContinued, call.arguments)
        yield Ended(
            _stop(self._finish, calls=self._told is not None),
            metered(Dialect.OPENAI, self._usage_first, self._usage_last, self._tier),
        )

    def _note_usage(self, fields: Fields) -> None:
        self._tier = fields.text_or_none("service_tier") or self._tier
        usage = fields.object_or_none("usage")
        if usage is None:
            return
        if self._usage_first is None:
            self._usage_first = usage.value
        else:
            self._usage_last = usage.value

    def _delta(self, delta: Fields) -> Iterable[Event]:
        if thinking := delta.text_or_none("reasoning_content") or delta.text_or_none("reasoning"):
            yield Thought(thinking)
        if said := delta.text_or_none("content"):
            yield Said(said)
        if refused := delta.text_or_none("refusal"):
            yield Declined(refused)
        for number, call in enumerate(delta.objects("tool_calls")):
            yield from self._call(call, number)

    def _call(self, call: Fields, place: int) -> Iterable[Event]:
        index = call.whole("index")
        number = place if index is None else index
        function = call.object_or_none("function")
        arguments = None if function is None else function.text_or_none("arguments")
        if number != self._told and number not in self._waiting:
            name = None if function is None else function.text_or_none("name")
            began = CallBegan(call.text_or_none("id") or f"call_{number}", name or "", _seal(call))
            if self._told is None:
                self._told = number
                yield began
            else:
                self._waiting[number] = _Call(began)
        if not arguments:
            return
        if number == self._told:
            yield CallContinued(arguments)
        else:
            self._waiting[number].arguments.append(arguments)
