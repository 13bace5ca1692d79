"""A session of OpenAI's Realtime API, in text alone: what is answered to each event of a client. Pure.

Source: the API reference of OpenAI, realtime, client and server events.
"""

from dataclasses import dataclass
from typing import Final, Literal

from simulator.chat import Answer, ChatRequest, Ending, JsonObject, Message, Stamp, Usage, without_directives
from simulator.compose import compose
from simulator.dialect import Body, OutputTokensMax, parse_body
from simulator.knobs import Fault, InvalidKnobsError, Knobs, turn
from simulator.refusal import RefusalError
from simulator.words import fingerprint

PROTOCOL: Final = "realtime"
EVENT_BYTES_MAX: Final = 1024 * 1024
ITEMS_MAX: Final = 1000
"""Of one conversation, which is kept in memory."""


class _Part(Body):
    type: str
    text: str | None = None


class _Item(Body):
    type: str = "message"
    role: Literal["system", "user", "assistant"] = "user"
    content: tuple[_Part, ...] = ()


class _Session(Body):
    instructions: str | None = None
    max_output_tokens: OutputTokensMax | Literal["inf"] | None = None


class _Event(Body):
    type: str
    item: _Item | None = None
    session: _Session | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What is sent back for one event, in order, and whether half of it only."""

    events: tuple[JsonObject, ...]
    knobs: Knobs
    is_cut: bool = False


class Conversation:
    """One session, and what was said in it."""

    def __init__(self, model: str, knobs: Knobs, stamp: Stamp) -> None:
        self._model = model
        self._knobs = knobs
        self._stamp = stamp
        self._session = _Session()
        self._messages: list[Message] = []
        self._events = 0

    def opening(self) -> JsonObject:
        """What is sent unasked."""
        return self._event("session.created", session=self._described())

    def take(self, text: str) -> Turn:
        """Answer an event of the client."""
        try:
            return self._answer(parse_body(_Event, text.encode()))
        except RefusalError as refusal:
            error = {"type": "invalid_request_error", "code": None, "message": refusal.message, "param": refusal.param}
            return self._said(self._event("error", error=error))

    def _answer(self, event: _Event) -> Turn:
        match event.type:
            case "session.update" if event.session is not None:
                self._session = event.session
                return self._said(self._event("session.updated", session=self._described()))
            case "conversation.item.create" if event.item is not None:
                return self._add(event.item)
            case "response.create":
                return self._respond()
            case _:
                raise RefusalError(400, f"The simulator does not know the event '{event.type}'.", param="type")

    def _add(self, item: _Item) -> Turn:
        if len(self._messages) >= ITEMS_MAX:
            raise RefusalError(400, f"A conversation has {ITEMS_MAX} items at most.", param="item")
        text = "".join(part.text or "" for part in item.content)
        attachments = sum(part.text is None for part in item.content)
        self._messages.append(Message(text, attachments, from_user=item.role == "user"))
        shown = self._item(item.role, text, "input_text" if item.role != "assistant" else "output_text")
        return self._said(
            self._event("conversation.item.added", previous_item_id=None, item=shown),
            self._event("conversation.item.done", previous_item_id=None, item=shown),
        )

    def _respond(self) -> Turn:
        instructions = [Message(self._session.instructions)] if self._session.instructions else []
        bound = self._session.max_output_tokens
        chat, directives = without_directives(
            ChatRequest(
                self._model,
                (*instructions, *self._messages),
                output_tokens_max=bound if isinstance(bound, int) else None,
            )
        )
        try:
            knobs = turn(self._knobs, directives)
        except InvalidKnobsError as error:
            raise RefusalError(400, f"Invalid knobs: {error}") from error
        fault = knobs.fault(chat.seed)
        stamp = Stamp(fingerprint((self._stamp.digest, str(self._events))), self._stamp.at)
        answer = compose(chat, knobs, fault, stamp)
        self._messages.append(Message(answer.replies[0].text))
        events = tuple(self._response(answer))
        return Turn(events[: len(events) // 2], knobs, is_cut=True) if fault is Fault.CUT else Turn(events, knobs)

    def _response(self, answer: Answer) -> list[JsonObject]:
        (reply,) = answer.replies
        response: JsonObject = {
            "id": answer.stamp.id("resp_", 24),
            "object": "realtime.response",
            "status": "in_progress",
            "output": [],
            "usage": None,
        }
        item = self._item("assistant", reply.text, "output_text")
        place: JsonObject = {
            "response_id": response["id"],
            "item_id": item["id"],
            "output_index": 0,
            "content_index": 0,
        }
        ended = response | {
            "status": "incomplete" if reply.ending is Ending.LENGTH else "completed",
            "output": [item],
            "usage": _usage(answer.usage) if answer.report_usage else None,
        }
        return [
            self._event("response.created", response=response),
            *(self._event("response.output_text.delta", **place, delta=piece) for piece in reply.pieces),
            self._event("response.output_text.done", **place, text=reply.text),
            self._event("response.output_item.done", response_id=response["id"], output_index=0, item=item),
            self._event("response.done", response=ended),
        ]

    def _said(self, *events: JsonObject) -> Turn:
        return Turn(events, self._knobs)

    def _described(self) -> JsonObject:
        return {
            "type": "realtime",
            "object": "realtime.session",
            "id": self._stamp.id("sess_", 24),
            "model": self._model,
            "output_modalities": ["text"],
            "instructions": self._session.instructions or "",
            "max_output_tokens": self._session.max_output_tokens or "inf",
        }

    def _item(self, role: str, text: str, kind: str) -> JsonObject:
        return {
            "id": self._stamp.id("item_", 20, of=len(self._messages)),
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": role,
            "content": [{"type": kind, "text": text}],
        }

    def _event(self, kind: str, **fields: object) -> JsonObject:
        self._events += 1
        return {"type": kind, "event_id": self._stamp.id("event_", 20, of=self._events), **fields}


def _usage(usage: Usage) -> JsonObject:
    return {
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_token_details": {
            "text_tokens": usage.input_tokens,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": usage.cached_tokens,
            "cached_tokens_details": {"text_tokens": usage.cached_tokens, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": usage.output_tokens, "audio_tokens": 0},
    }
