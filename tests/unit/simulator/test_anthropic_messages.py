import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from gateway_core.endpoints import Dialect
from gateway_core.provider_usage import parse_usage
from gateway_core.usage import Meter
from simulator.anthropic_messages import AnthropicMessages
from simulator.chat import Answer, Stamp, without_directives
from simulator.compose import compose
from simulator.knobs import Fault, Knobs
from simulator.refusal import RefusalError

STAMP = Stamp("ab" * 32, datetime(2025, 1, 15, tzinfo=UTC))
HELLO = {"role": "user", "content": "Hello"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "sunny"}]}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
DIALECT = AnthropicMessages()


def body(**fields: object) -> bytes:
    return json.dumps({"model": "claude", "max_tokens": 100, "messages": [HELLO]} | fields).encode()


def answer(knobs: Knobs | None = None, fault: Fault | None = None, **fields: object) -> Answer:
    return compose(DIALECT.parse(body(**fields)), knobs or Knobs(), fault, STAMP)


def unary(knobs: Knobs | None = None, fault: Fault | None = None, **fields: object) -> dict[str, Any]:
    return DIALECT.unary(answer(knobs, fault, **fields))


def events(knobs: Knobs | None = None, fault: Fault | None = None, **fields: object) -> list[dict[str, Any]]:
    parsed = []
    for frame in DIALECT.stream(answer(knobs, fault, stream=True, **fields)):
        name, data = frame.decode().removesuffix("\n\n").split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        parsed.append(event)
    return parsed


def test_message_has_the_shape_the_official_types_demand() -> None:
    message = Message.model_validate(unary(), strict=True)

    assert message.id.startswith("msg_01")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.content[0].type == "text"


def test_an_answer_by_schema_is_json_that_fits_it() -> None:
    message = unary(output_config={"format": {"type": "json_schema", "schema": SCHEMA}})

    jsonschema.validate(json.loads(message["content"][0]["text"]), SCHEMA)


def test_usage_counts_cache_tokens_beside_the_input() -> None:
    usage = unary(Knobs(output_tokens=10, cached_tokens=3, cache_write_tokens=2, reasoning_tokens=5))["usage"]

    assert parse_usage(Dialect.ANTHROPIC, json.dumps(usage)).counts == {
        Meter.INPUT: 1,
        Meter.CACHED_INPUT: 3,
        Meter.CACHE_WRITE_5M: 2,
        Meter.OUTPUT: 15,
    }


def test_stream_runs_from_message_start_to_message_stop() -> None:
    types = [event["type"] for event in events(Knobs(output_tokens=2))]

    assert types == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_events_have_the_shape_the_official_types_demand() -> None:
    adapter: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
    for event in events(tools=[WEATHER]):
        if event["type"] != "ping":
            adapter.validate_python(event, strict=True)


def test_stream_says_what_the_unary_answer_says() -> None:
    stream, message = events(), unary()

    deltas = [event["delta"]["text"] for event in stream if event["type"] == "content_block_delta"]
    assert "".join(deltas) == message["content"][0]["text"]
    assert len(deltas) == message["usage"]["output_tokens"]


def test_first_and_last_usage_of_a_stream_add_up_to_the_unary_one() -> None:
    stream, knobs = events(Knobs(cached_tokens=2)), Knobs(cached_tokens=2)

    first, last = stream[0]["message"]["usage"], stream[-2]["usage"]
    assert first | last == unary(knobs)["usage"]


def test_no_usage_leaves_it_out_everywhere() -> None:
    assert "usage" not in unary(fault=Fault.NO_USAGE)
    assert "usage" not in json.dumps(events(fault=Fault.NO_USAGE))


def test_max_tokens_cuts_the_reply_and_says_so() -> None:
    message = unary(max_tokens=3)

    assert (message["usage"]["output_tokens"], message["stop_reason"]) == (3, "max_tokens")


def test_reply_without_room_has_no_block() -> None:
    knobs = Knobs(reasoning_tokens=50)

    assert unary(knobs, max_tokens=3)["content"] == []
    assert [event["type"] for event in events(knobs, max_tokens=3)] == [
        "message_start",
        "ping",
        "message_delta",
        "message_stop",
    ]


def test_stop_sequence_is_named() -> None:
    word = unary()["content"][0]["text"].split()[2]

    message = unary(stop_sequences=[word])

    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", word)


def test_tool_use_has_input_that_fits_the_schema() -> None:
    message = unary(tools=[WEATHER])

    (block,) = message["content"]
    assert (message["stop_reason"], block["type"], block["name"]) == ("tool_use", "tool_use", "weather")
    jsonschema.validate(block["input"], SCHEMA)


def test_streamed_tool_use_gives_its_input_in_pieces() -> None:
    stream = events(tools=[WEATHER])

    deltas = [event["delta"]["partial_json"] for event in stream if event["type"] == "content_block_delta"]
    assert stream[1]["content_block"]["input"] == {}
    assert json.loads("".join(deltas)) == unary(tools=[WEATHER])["content"][0]["input"]
    assert stream[-2]["delta"]["stop_reason"] == "tool_use"


def test_tool_use_cut_by_the_limit_keeps_no_broken_input() -> None:
    message = unary(tools=[WEATHER], max_tokens=1)

    assert (message["stop_reason"], message["content"][0]["input"]) == ("max_tokens", {})


def test_tool_choice_none_and_tool_results_are_answered_with_text() -> None:
    conversation = [HELLO, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [RESULT]}]

    assert unary(tools=[WEATHER], tool_choice={"type": "none"})["content"][0]["type"] == "text"
    assert unary(tools=[WEATHER], messages=conversation)["content"][0]["type"] == "text"


def test_tools_that_the_provider_runs_itself_are_never_called() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}

    assert unary(tools=[search])["content"][0]["type"] == "text"


def test_directive_survives_a_turn_of_nothing_but_tool_results() -> None:
    asked = {"role": "user", "content": [{"type": "text", "text": "Hi [[sim output_tokens=7]]"}]}
    conversation = [asked, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [RESULT]}]

    _, directives = without_directives(DIALECT.parse(body(messages=conversation)))

    assert directives.split() == ["output_tokens=7"]


def test_system_and_blocks_of_all_kinds_are_counted() -> None:
    parts = [{"type": "text", "text": "Hello"}, {"type": "image", "source": {"type": "base64", "data": "AA"}}]
    request = DIALECT.parse(body(system=[{"type": "text", "text": "12345678"}], messages=[HELLO | {"content": parts}]))

    assert request.input_tokens == (2 + 4) + (2 + 85 + 4)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": [{"role": "system", "content": "Hi"}]}, "messages.0.role"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice"),
    ],
)
def test_wrong_field_is_refused_by_name(fields: Mapping[str, object], param: str) -> None:
    with pytest.raises(RefusalError) as refused:
        DIALECT.parse(body(**fields))

    assert (refused.value.status, refused.value.param) == (400, param)


def test_credential_is_an_api_key_or_a_bearer_token_and_the_version_is_demanded_too() -> None:
    version = {"anthropic-version": "2023-06-01"}
    DIALECT.check_headers(version | {"x-api-key": "x"}, {})
    DIALECT.check_headers(version | {"authorization": "Bearer x"}, {})
    for headers, status in ((version, 401), ({"x-api-key": "x"}, 400)):
        with pytest.raises(RefusalError) as refused:
            DIALECT.check_headers(headers, {})
        assert refused.value.status == status


def test_error_has_anthropics_shape_and_names_the_request() -> None:
    error: dict[str, Any] = DIALECT.error(RefusalError(529), STAMP)

    assert (error["type"], error["error"]) == ("error", {"type": "overloaded_error", "message": "Overloaded"})
    assert error["request_id"] == DIALECT.headers(STAMP, status=529, latency_ms=0)["request-id"]
    assert DIALECT.headers(STAMP, status=429, latency_ms=0)["retry-after"] == "1"
