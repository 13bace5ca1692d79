import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway_core.endpoints import Dialect
from gateway_core.provider_usage import parse_usage
from gateway_core.usage import Meter
from simulator.chat import Answer, Stamp
from simulator.compose import compose
from simulator.knobs import Fault, Knobs
from simulator.openai_chat import OpenAiChat
from simulator.refusal import RefusalError

STAMP = Stamp("ab" * 32, datetime(2025, 1, 15, tzinfo=UTC))
HELLO = {"role": "user", "content": "Hello"}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city", "days"],
}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}}
DIALECT = OpenAiChat()


def body(**fields: object) -> bytes:
    return json.dumps({"model": "gpt-5", "messages": [HELLO]} | fields).encode()


def answer(knobs: Knobs | None = None, fault: Fault | None = None, **fields: object) -> Answer:
    return compose(DIALECT.parse(body(**fields)), knobs or Knobs(), fault, STAMP)


def unary(knobs: Knobs | None = None, fault: Fault | None = None, **fields: object) -> dict[str, Any]:
    return DIALECT.unary(answer(knobs, fault, **fields))


def chunks(knobs: Knobs | None = None, fault: Fault | None = None, **fields: object) -> list[dict[str, Any]]:
    *frames, done = DIALECT.stream(answer(knobs, fault, stream=True, **fields))
    assert done == b"data: [DONE]\n\n"
    return [json.loads(frame.removeprefix(b"data: ")) for frame in frames]


def test_completion_has_the_shape_the_official_types_demand() -> None:
    completion = ChatCompletion.model_validate(unary(), strict=True)

    assert completion.object == "chat.completion"
    assert completion.id.startswith("chatcmpl-")
    assert completion.created == 1_736_899_200
    assert completion.choices[0].finish_reason == "stop"


def test_usage_counts_cached_and_reasoning_tokens_inside_the_wholes() -> None:
    usage = unary(Knobs(output_tokens=10, cached_tokens=4, reasoning_tokens=7))["usage"]

    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (6, 17, 23)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 4
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 7
    assert parse_usage(Dialect.OPENAI, json.dumps(usage)).counts == {
        Meter.INPUT: 2,
        Meter.CACHED_INPUT: 4,
        Meter.OUTPUT: 10,
        Meter.REASONING: 7,
    }


def test_stream_says_what_the_unary_answer_says() -> None:
    events = chunks(n=2)

    for choice in unary(n=2)["choices"]:
        deltas = [event["choices"][0] for event in events if event["choices"][0]["index"] == choice["index"]]
        assert "".join(delta["delta"].get("content", "") for delta in deltas) == choice["message"]["content"]
        assert deltas[0]["delta"]["role"] == "assistant"
        assert [delta["finish_reason"] for delta in deltas if delta["finish_reason"]] == ["stop"]


def test_chunks_have_the_shape_the_official_types_demand() -> None:
    for event in chunks(tools=[WEATHER], stream_options={"include_usage": True}):
        ChatCompletionChunk.model_validate(event, strict=True)


def test_stream_reports_usage_only_when_asked_and_in_a_chunk_of_its_own() -> None:
    silent = chunks()
    *others, last = chunks(stream_options={"include_usage": True})

    assert all("usage" not in event for event in silent)
    assert all(event["usage"] is None for event in others)
    assert last["choices"] == []
    assert last["usage"] == unary()["usage"]


def test_no_usage_leaves_it_out_everywhere() -> None:
    assert "usage" not in unary(fault=Fault.NO_USAGE)
    assert not any("usage" in event for event in chunks(fault=Fault.NO_USAGE, stream_options={"include_usage": True}))


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_limit_cuts_the_reply_and_says_so(limit: str) -> None:
    fields: dict[str, Any] = {limit: 3}

    completion = unary(**fields)

    assert completion["usage"]["completion_tokens"] == 3
    assert completion["choices"][0]["finish_reason"] == "length"
    assert chunks(**fields)[-1]["choices"][0]["finish_reason"] == "length"


def test_tool_call_has_arguments_that_fit_the_schema() -> None:
    choice = unary(tools=[WEATHER])["choices"][0]

    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert call["function"]["name"] == "weather"
    jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMA)


def test_streamed_tool_call_gives_its_name_once_and_its_arguments_in_pieces() -> None:
    calls = [call for event in chunks(tools=[WEATHER]) for call in event["choices"][0]["delta"].get("tool_calls", ())]

    assert [call["function"]["name"] for call in calls if "name" in call["function"]] == ["weather"]
    assert len(calls) > 3
    expected = unary(tools=[WEATHER])["choices"][0]["message"]["tool_calls"][0]
    assert "".join(call["function"]["arguments"] for call in calls) == expected["function"]["arguments"]
    assert calls[0]["id"] == expected["id"]


def test_tool_choice_names_the_tool_or_forbids_them() -> None:
    other = {"type": "function", "function": {"name": "other"}}

    named = unary(tools=[WEATHER, other], tool_choice={"type": "function", "function": {"name": "other"}})
    forbidden = unary(tools=[WEATHER], tool_choice="none")

    assert named["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "other"
    assert forbidden["choices"][0]["message"]["content"]


def test_result_of_a_tool_is_answered_with_text() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    conversation = [
        HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]

    choice = unary(tools=[WEATHER], messages=conversation)["choices"][0]

    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"]


def test_response_format_gives_json() -> None:
    as_schema = unary(response_format={"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA}})
    as_object = unary(response_format={"type": "json_object"})

    jsonschema.validate(json.loads(as_schema["choices"][0]["message"]["content"]), SCHEMA)
    assert list(json.loads(as_object["choices"][0]["message"]["content"])) == ["answer"]


def test_image_is_accepted_and_costs_tokens() -> None:
    parts = [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]

    assert unary(messages=[{"role": "user", "content": parts}])["usage"]["prompt_tokens"] == 6 + 85


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages.0.role"),
        ({"model": ""}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"n": 129}, "n"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
    ],
)
def test_wrong_field_is_refused_by_name(fields: Mapping[str, object], param: str) -> None:
    with pytest.raises(RefusalError) as refused:
        DIALECT.parse(body(**fields))

    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'"text"'])
def test_body_that_is_no_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(RefusalError):
        DIALECT.parse(text)


def test_credential_is_any_bearer_token() -> None:
    DIALECT.check_headers({"authorization": "Bearer x"}, {})
    for headers in ({}, {"authorization": "Bearer "}, {"authorization": "Basic x"}, {"x-api-key": "x"}):
        with pytest.raises(RefusalError) as refused:
            DIALECT.check_headers(headers, {})
        assert refused.value.status == 401


def test_error_has_openais_shape_and_a_429_says_when_to_come_back() -> None:
    assert DIALECT.error(RefusalError(429), STAMP) == {
        "error": {
            "message": "Rate limit reached. Please try again in 1s.",
            "type": "requests",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }
    assert DIALECT.headers(STAMP, status=429, latency_ms=0)["retry-after"] == "1"
    assert "retry-after" not in DIALECT.headers(STAMP, status=200, latency_ms=0)
