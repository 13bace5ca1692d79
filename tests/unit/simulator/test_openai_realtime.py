"""A session of OpenAI's Realtime API, as the simulator leads it."""

import json
from datetime import UTC, datetime
from typing import Any

from simulator.chat import Stamp
from simulator.knobs import Knobs
from simulator.openai_realtime import ITEMS_MAX, Conversation, Turn

STAMP = Stamp("00" * 32, datetime(2026, 1, 1, tzinfo=UTC))


def begun() -> Conversation:
    return Conversation("talker", Knobs(), STAMP)


def said(conversation: Conversation, text: str) -> Turn:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return conversation.take(json.dumps({"type": "conversation.item.create", "item": item}))


def answered(conversation: Conversation) -> Turn:
    return conversation.take('{"type": "response.create"}')


def kinds(turn: Turn) -> list[Any]:
    return [event["type"] for event in turn.events]


def usage(turn: Turn) -> Any:
    done: Any = turn.events[-1]
    return done["response"]["usage"]


def test_a_response_comes_in_pieces_and_says_its_usage_at_the_end() -> None:
    conversation = begun()
    opening: Any = conversation.opening()
    assert (opening["type"], opening["session"]["model"]) == ("session.created", "talker")
    assert kinds(said(conversation, "Hi [[sim output_tokens=3]]")) == [
        "conversation.item.added",
        "conversation.item.done",
    ]
    turn = answered(conversation)
    assert kinds(turn) == [
        "response.created",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.output_item.done",
        "response.done",
    ]
    assert usage(turn)["output_tokens"] == 3
    assert usage(turn)["total_tokens"] == usage(turn)["input_tokens"] + 3


def test_what_was_said_before_is_read_again() -> None:
    conversation = begun()
    said(conversation, "Hi [[sim output_tokens=10]]")
    first = usage(answered(conversation))
    said(conversation, "And then? [[sim output_tokens=10 cached_tokens=7]]")
    second = usage(answered(conversation))
    assert second["input_tokens"] > first["input_tokens"] + 10
    assert second["input_token_details"]["cached_tokens_details"]["text_tokens"] == 7


def test_instructions_count_and_answers_are_bounded_as_the_session_says() -> None:
    conversation = begun()
    told = conversation.take(
        '{"type": "session.update", "session": {"instructions": "Be kind to everybody.", "max_output_tokens": 2}}'
    )
    assert kinds(told) == ["session.updated"]
    said(conversation, "Hi")
    done = usage(answered(conversation))
    assert (done["output_tokens"], done["input_tokens"]) == (2, (6 + 4) + (1 + 4))


def test_a_cut_ends_in_the_middle() -> None:
    conversation = begun()
    said(conversation, "Hi [[sim output_tokens=20 error=cut]]")
    turn = answered(conversation)
    assert turn.is_cut
    assert kinds(turn)[-1] == "response.output_text.delta"


def test_what_is_no_event_is_told_and_ends_nothing() -> None:
    conversation = begun()
    for text in ("no JSON", "{}", '{"type": "dance"}', '{"type": "conversation.item.create"}'):
        assert kinds(conversation.take(text)) == ["error"]
    said(conversation, "Hi [[sim no_knob=1]]")
    assert kinds(answered(conversation)) == ["error"]


def test_a_conversation_has_a_bound() -> None:
    conversation = begun()
    for _ in range(ITEMS_MAX):
        said(conversation, "Hi")
    assert kinds(said(conversation, "Hi")) == ["error"]
