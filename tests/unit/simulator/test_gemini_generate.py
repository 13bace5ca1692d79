import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest

from simulator.chat import Answer, Stamp, without_directives
from simulator.compose import compose
from simulator.gemini_generate import Framing, GeminiGenerate
from simulator.knobs import Fault, Knobs
from simulator.refusal import RefusalError

STAMP = Stamp("ab" * 32, datetime(2025, 1, 15, tzinfo=UTC))
HELLO = {"role": "user", "parts": [{"text": "Hello"}]}
WEATHER = {
    "functionDeclarations": [
        {"name": "weather", "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}}
    ]
}
UNARY = GeminiGenerate("gemini-2.5-pro", Framing.UNARY)
EVENTS = GeminiGenerate("gemini-2.5-pro", Framing.SSE)
ARRAY = GeminiGenerate("gemini-2.5-pro", Framing.ARRAY)


def body(**fields: object) -> bytes:
    return json.dumps({"contents": [HELLO]} | fields).encode()


def answer(dialect: GeminiGenerate, knobs: Knobs | None, fault: Fault | None, fields: Mapping[str, object]) -> Answer:
    return compose(dialect.parse(body(**fields)), knobs or Knobs(), fault, STAMP)


def unary(knobs: Knobs | None = None, fault: Fault | None = None, **fields: object) -> dict[str, Any]:
    return UNARY.unary(answer(UNARY, knobs, fault, fields))


def events(knobs: Knobs | None = None, fault: Fault | None = None, **fields: object) -> list[dict[str, Any]]:
    frames = EVENTS.stream(answer(EVENTS, knobs, fault, fields))
    assert all(frame.endswith(b"\r\n\r\n") for frame in frames)
    return [json.loads(frame.removeprefix(b"data: ")) for frame in frames]


def text_of(response: Mapping[str, Any]) -> str:
    return "".join(part["text"] for part in response["candidates"][0]["content"]["parts"])


def test_answer_has_candidates_usage_and_the_model_it_came_from() -> None:
    response = unary(Knobs(output_tokens=10))

    (candidate,) = response["candidates"]
    assert (candidate["finishReason"], candidate["index"], candidate["content"]["role"]) == ("STOP", 0, "model")
    assert response["modelVersion"] == "gemini-2.5-pro"
    assert len(response["responseId"]) == 22
    assert text_of(response).count(" ") == 9


def test_thoughts_are_counted_beside_the_candidates_and_cached_tokens_inside_the_prompt() -> None:
    usage = unary(Knobs(output_tokens=10, reasoning_tokens=7, cached_tokens=4))["usageMetadata"]

    assert (usage["promptTokenCount"], usage["cachedContentTokenCount"]) == (6, 4)
    assert (usage["candidatesTokenCount"], usage["thoughtsTokenCount"], usage["totalTokenCount"]) == (10, 7, 23)


def test_stream_says_what_the_unary_answer_says_and_counts_along() -> None:
    stream, response = events(), unary()

    assert "".join(text_of(event) for event in stream) == text_of(response)
    counts = [event["usageMetadata"]["candidatesTokenCount"] for event in stream]
    assert counts == list(range(1, len(stream) + 1))
    assert stream[-1]["usageMetadata"] == response["usageMetadata"]
    assert [event["candidates"][0].get("finishReason") for event in stream] == [None] * (len(stream) - 1) + ["STOP"]


def test_stream_of_several_candidates_ends_with_the_same_usage_as_the_unary_answer() -> None:
    config = {"candidateCount": 3}

    assert (
        events(generationConfig=config)[-1]["usageMetadata"]["totalTokenCount"]
        == unary(generationConfig=config)["usageMetadata"]["totalTokenCount"]
    )


def test_stream_without_events_is_a_json_array() -> None:
    text = b"".join(ARRAY.stream(answer(ARRAY, None, None, {})))

    assert json.loads(text) == events()


def test_no_usage_leaves_it_out_everywhere() -> None:
    assert "usageMetadata" not in unary(fault=Fault.NO_USAGE)
    assert not any("usageMetadata" in event for event in events(fault=Fault.NO_USAGE))


def test_limit_cuts_the_reply_and_says_so_in_either_spelling() -> None:
    spellings: list[dict[str, Any]] = [
        {"generationConfig": {"maxOutputTokens": 3}},
        {"generation_config": {"max_output_tokens": 3}},
    ]
    for fields in spellings:
        response = unary(**fields)
        assert response["candidates"][0]["finishReason"] == "MAX_TOKENS"
        assert response["usageMetadata"]["candidatesTokenCount"] == 3


def test_reply_without_room_still_ends() -> None:
    (event,) = events(Knobs(reasoning_tokens=9), generationConfig={"maxOutputTokens": 3})

    assert event["candidates"][0] == {
        "content": {"parts": [], "role": "model"},
        "finishReason": "MAX_TOKENS",
        "index": 0,
    }
    assert event["usageMetadata"]["totalTokenCount"] == 6 + 3


def test_function_call_arrives_whole() -> None:
    response = unary(tools=[WEATHER])

    (part,) = response["candidates"][0]["content"]["parts"]
    assert part["functionCall"]["name"] == "weather"
    assert isinstance(part["functionCall"]["args"]["city"], str)
    assert events(tools=[WEATHER]) == [response]


def test_function_response_and_mode_none_are_answered_with_text() -> None:
    conversation = [
        HELLO,
        {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"city": "Oslo"}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"sky": "clear"}}}]},
    ]

    assert text_of(unary(tools=[WEATHER], contents=conversation))
    assert text_of(unary(tools=[WEATHER], toolConfig={"functionCallingConfig": {"mode": "NONE"}}))


def test_response_schema_gives_json_that_fits() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    config = {"responseMimeType": "application/json", "responseJsonSchema": schema}

    jsonschema.validate(json.loads(text_of(unary(generationConfig=config))), schema)


def test_directive_system_instruction_and_attachments_are_understood() -> None:
    parts = [{"text": "Hello [[sim cached_tokens=1]]"}, {"inlineData": {"mimeType": "image/png", "data": "AA"}}]
    parsed = UNARY.parse(body(contents=[{"parts": parts}], systemInstruction={"parts": [{"text": "12345678"}]}))

    request, directives = without_directives(parsed)

    assert directives.split() == ["cached_tokens=1"]
    assert request.input_tokens == (2 + 4) + (2 + 85 + 4)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"contents": []}, "contents"),
        ({"contents": None}, "contents"),
        ({"generationConfig": {"maxOutputTokens": -1}}, "generationConfig.maxOutputTokens"),
    ],
)
def test_wrong_field_is_refused_by_name(fields: Mapping[str, object], param: str) -> None:
    with pytest.raises(RefusalError) as refused:
        UNARY.parse(body(**fields))

    assert (refused.value.status, refused.value.param) == (400, param)


def test_credential_comes_in_one_of_three_ways() -> None:
    UNARY.check_headers({"x-goog-api-key": "x"}, {})
    UNARY.check_headers({"authorization": "Bearer x"}, {})
    UNARY.check_headers({}, {"key": "x"})
    with pytest.raises(RefusalError) as refused:
        UNARY.check_headers({}, {})
    assert refused.value.status == 401


def test_error_has_googles_shape() -> None:
    assert UNARY.error(RefusalError(400, "no"), STAMP) == {
        "error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}
    }
    limited: dict[str, Any] = UNARY.error(RefusalError(429), STAMP)
    assert limited["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert limited["error"]["details"][0]["retryDelay"] == "1s"
