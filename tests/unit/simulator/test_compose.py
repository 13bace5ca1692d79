from datetime import UTC, datetime

import pytest

from simulator.chat import ChatRequest, Ending, Message, Stamp, Tool, without_directives
from simulator.compose import compose
from simulator.knobs import Fault, Knobs
from simulator.refusal import RefusalError

STAMP = Stamp("ab" * 32, datetime(2025, 1, 15, tzinfo=UTC))
HELLO = ChatRequest(model="m", messages=(Message("Hello", from_user=True),))
WEATHER = Tool("weather", {"type": "object", "properties": {"city": {"type": "string"}}}, text="x" * 40)


def test_prompt_costs_its_text_and_a_little_per_message_attachment_and_tool() -> None:
    request = ChatRequest(model="m", messages=(Message("12345678"), Message("1", attachments=1)), tools=(WEATHER,))

    assert request.input_tokens == (2 + 4) + (1 + 85 + 4) + 10


def test_same_conversation_gets_the_same_reply_whatever_the_model_is_called() -> None:
    renamed = ChatRequest(model="another", messages=HELLO.messages)

    assert compose(HELLO, Knobs(), None, STAMP).replies == compose(renamed, Knobs(), None, STAMP).replies


def test_each_choice_says_something_else() -> None:
    request = ChatRequest(model="m", messages=HELLO.messages, choices=3)

    assert len({reply.text for reply in compose(request, Knobs(), None, STAMP).replies}) == 3


def test_reply_longer_than_the_client_allows_is_cut_there() -> None:
    request = ChatRequest(model="m", messages=HELLO.messages, output_tokens_max=5)

    answer = compose(request, Knobs(output_tokens=50), None, STAMP)

    assert (len(answer.replies[0].pieces), answer.replies[0].ending) == (5, Ending.LENGTH)
    assert answer.usage.output_tokens == 5


def test_reply_that_just_fits_is_not_cut() -> None:
    request = ChatRequest(model="m", messages=HELLO.messages, output_tokens_max=50)

    assert compose(request, Knobs(output_tokens=50), None, STAMP).replies[0].ending is Ending.STOP


def test_reasoning_uses_up_the_limit_before_the_text_does() -> None:
    request = ChatRequest(model="m", messages=HELLO.messages, output_tokens_max=8)

    partly = compose(request, Knobs(reasoning_tokens=6, output_tokens=9), None, STAMP)
    wholly = compose(request, Knobs(reasoning_tokens=60, output_tokens=9), None, STAMP)

    assert (partly.usage.output_tokens, partly.usage.reasoning_tokens, len(partly.replies[0].pieces)) == (8, 6, 2)
    assert (wholly.usage.output_tokens, wholly.usage.reasoning_tokens, wholly.replies[0].pieces) == (8, 8, ())


def test_cache_tokens_are_never_more_than_the_prompt() -> None:
    usage = compose(HELLO, Knobs(cached_tokens=4, cache_write_tokens=100), None, STAMP).usage

    assert (usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens) == (6, 4, 2)


def test_stop_sequence_ends_the_reply_and_is_told() -> None:
    plain = compose(HELLO, Knobs(), None, STAMP).replies[0]
    stop = plain.pieces[3]

    reply = compose(ChatRequest(model="m", messages=HELLO.messages, stops=(stop,)), Knobs(), None, STAMP).replies[0]

    assert (reply.pieces, reply.ending, reply.stop_sequence) == (plain.pieces[:3], Ending.STOP_SEQUENCE, stop)


def test_tool_call_has_its_own_length_and_ignores_stop_sequences() -> None:
    request = ChatRequest(model="m", messages=HELLO.messages, tools=(WEATHER,), call=WEATHER, stops=("city",))

    reply = compose(request, Knobs(output_tokens=1), None, STAMP).replies[0]

    assert reply.ending is Ending.TOOL_CALL
    assert reply.text.startswith('{"city":"')


def test_no_usage_keeps_the_counts_back() -> None:
    assert compose(HELLO, Knobs(), Fault.NO_USAGE, STAMP).report_usage is False


def test_more_output_than_memory_should_hold_is_refused() -> None:
    request = ChatRequest(model="m", messages=HELLO.messages, choices=100)

    with pytest.raises(RefusalError, match="200000"):
        compose(request, Knobs(output_tokens=100_000), None, STAMP)


def test_directive_of_the_last_user_message_counts_and_all_are_taken_out() -> None:
    request = ChatRequest(
        model="m",
        messages=(
            Message("Hi [[sim error=500]]", from_user=True),
            Message("Sorry."),
            Message("Again [[sim latency_ms=1]]", from_user=True),
            Message("a tool said [[sim error=cut]]"),
        ),
    )

    said, directives = without_directives(request)

    assert directives.split() == ["latency_ms=1"]
    assert [message.text for message in said.messages] == ["Hi", "Sorry.", "Again", "a tool said [[sim error=cut]]"]
