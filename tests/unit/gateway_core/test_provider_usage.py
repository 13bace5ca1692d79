"""How a provider's usage becomes disjoint meters.

The examples are those of the API references of OpenAI (chat completions, responses, prompt caching, reasoning, predicted outputs),
Anthropic (messages, prompt caching, web search, compaction, fast mode, data residency) and Gemini (generateContent), or follow the
fields and their meaning there and in the types of the official SDKs.
"""

import contextlib
import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_core.endpoints import Dialect
from gateway_core.provider_usage import InvalidUsageError, UnknownUsageError, parse_usage
from gateway_core.usage import MAX_TOKENS, InvalidTierError, Meter, Usage

COUNTS = st.integers(0, 1_000_000)


def parse(dialect: Dialect, *usages: Mapping[str, object]) -> Mapping[Meter, int]:
    return parse_usage(dialect, *map(json.dumps, usages)).counts


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param(
            {
                "prompt_tokens": 19,
                "completion_tokens": 10,
                "total_tokens": 29,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {
                    "reasoning_tokens": 0,
                    "audio_tokens": 0,
                    "accepted_prediction_tokens": 0,
                    "rejected_prediction_tokens": 0,
                },
            },
            {Meter.INPUT: 19, Meter.OUTPUT: 10},
            id="chat",
        ),
        pytest.param(
            {
                "prompt_tokens": 2006,
                "completion_tokens": 300,
                "total_tokens": 2306,
                "prompt_tokens_details": {"cached_tokens": 1920},
                "completion_tokens_details": {"reasoning_tokens": 0},
            },
            {Meter.INPUT: 86, Meter.CACHED_INPUT: 1920, Meter.OUTPUT: 300},
            id="prompt caching: cached tokens are inside the prompt",
        ),
        pytest.param(
            {
                "prompt_tokens": 75,
                "completion_tokens": 1186,
                "total_tokens": 1261,
                "completion_tokens_details": {"reasoning_tokens": 1024},
            },
            {Meter.INPUT: 75, Meter.OUTPUT: 162, Meter.REASONING: 1024},
            id="reasoning tokens are inside the completion",
        ),
        pytest.param(
            {
                "prompt_tokens": 1117,
                "completion_tokens": 46,
                "total_tokens": 1163,
                "prompt_tokens_details": {"cached_tokens": 100, "audio_tokens": 17},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 36},
            },
            {
                Meter.INPUT: 1000,
                Meter.CACHED_INPUT: 100,
                Meter.AUDIO_INPUT: 17,
                Meter.OUTPUT: 10,
                Meter.AUDIO_OUTPUT: 36,
            },
            id="audio on both sides",
        ),
        pytest.param(
            {"prompt_tokens": 8, "total_tokens": 8, "prompt_tokens_details": None},
            {Meter.INPUT: 8},
            id="nothing completed, details null",
        ),
        pytest.param(
            {"prompt_tokens": 6, "completion_tokens": 9, "total_tokens": 34},
            {Meter.INPUT: 6, Meter.OUTPUT: 9, Meter.REASONING: 19},
            id="gemini's compatible endpoint counts thoughts in the total only",
        ),
        pytest.param({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, {}, id="nothing at all"),
        pytest.param(
            {
                "prompt_tokens": 2048,
                "completion_tokens": 88,
                "total_tokens": 2136,
                "prompt_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 896, "text_tokens": 2048},
                "completion_tokens_details": {"text_tokens": 88},
            },
            {Meter.INPUT: 128, Meter.CACHED_INPUT: 1024, Meter.CACHE_WRITE_30M: 896, Meter.OUTPUT: 88},
            id="what is written to a cache is a part of the prompt",
        ),
        pytest.param(
            {
                "prompt_tokens": 39,
                "completion_tokens": 30,
                "total_tokens": 69,
                "completion_tokens_details": {"accepted_prediction_tokens": 12, "rejected_prediction_tokens": 4},
            },
            {Meter.INPUT: 39, Meter.OUTPUT: 30},
            id="predicted tokens are inside the completion",
        ),
        pytest.param(
            {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 3}},
            {Meter.CACHED_INPUT: 3, Meter.AUDIO_INPUT: 2},
            id="a cached token is cached, whatever it stands for",
        ),
        pytest.param(
            {"prompt_tokens": 300, "prompt_tokens_details": {"cached_tokens": 20, "image_tokens": 255}},
            {Meter.INPUT: 25, Meter.CACHED_INPUT: 20, Meter.IMAGE_INPUT: 255},
            id="an image",
        ),
        pytest.param(
            {
                "prompt_tokens": 16,
                "completion_tokens": 4,
                "prompt_cache_hit_tokens": 6,
                "prompt_cache_miss_tokens": 10,
                "total_tokens": 20,
            },
            {Meter.INPUT: 10, Meter.CACHED_INPUT: 6, Meter.OUTPUT: 4},
            id="deepseek's words for the cached part",
        ),
        pytest.param(
            {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4, "queue_time": 0.0378, "cost": 0.00014},
            {Meter.INPUT: 3, Meter.OUTPUT: 1},
            id="times and costs count nothing",
        ),
    ],
)
def test_openai_usage_becomes_disjoint_meters(usage: Mapping[str, object], expected: Mapping[Meter, int]) -> None:
    assert parse(Dialect.OPENAI, usage) == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param({"input_tokens": 2095, "output_tokens": 503}, {Meter.INPUT: 2095, Meter.OUTPUT: 503}, id="plain"),
        pytest.param(
            {
                "input_tokens": 50,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 100_000,
                "output_tokens": 503,
            },
            {Meter.INPUT: 50, Meter.CACHED_INPUT: 100_000, Meter.OUTPUT: 503},
            id="a cache hit: cached tokens stand beside the input",
        ),
        pytest.param(
            {"input_tokens": 50, "cache_creation_input_tokens": 248, "output_tokens": 503},
            {Meter.INPUT: 50, Meter.CACHE_WRITE_5M: 248, Meter.OUTPUT: 503},
            id="a cache write of the default lifetime",
        ),
        pytest.param(
            {
                "input_tokens": 2048,
                "cache_read_input_tokens": 1800,
                "cache_creation_input_tokens": 248,
                "output_tokens": 503,
                "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
                "server_tool_use": None,
                "service_tier": "standard",
            },
            {
                Meter.INPUT: 2048,
                Meter.CACHED_INPUT: 1800,
                Meter.CACHE_WRITE_5M: 148,
                Meter.CACHE_WRITE_1H: 100,
                Meter.OUTPUT: 503,
            },
            id="cache writes of both lifetimes",
        ),
        pytest.param(
            {
                "input_tokens": 5,
                "cache_creation_input_tokens": None,
                "cache_read_input_tokens": None,
                "cache_creation": None,
                "output_tokens": 1,
            },
            {Meter.INPUT: 5, Meter.OUTPUT: 1},
            id="nulls count nothing",
        ),
        pytest.param(
            {
                "input_tokens": 105,
                "output_tokens": 6039,
                "cache_read_input_tokens": 7123,
                "cache_creation_input_tokens": 7345,
                "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 2},
            },
            {
                Meter.INPUT: 105,
                Meter.CACHED_INPUT: 7123,
                Meter.CACHE_WRITE_5M: 7345,
                Meter.OUTPUT: 6039,
                Meter.WEB_SEARCH: 1,
            },
            id="searches are counted, pages that were fetched cost their tokens only",
        ),
        pytest.param(
            {
                "input_tokens": 5,
                "output_tokens": 1,
                "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
            },
            {Meter.INPUT: 5, Meter.CACHE_WRITE_5M: 3, Meter.CACHE_WRITE_1H: 4, Meter.OUTPUT: 1},
            id="cache writes that only the lifetimes name",
        ),
        pytest.param(
            {
                "input_tokens": 23_000,
                "output_tokens": 1000,
                "iterations": [
                    {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500},
                    {"type": "message", "input_tokens": 23_000, "output_tokens": 1000},
                ],
            },
            {Meter.INPUT: 203_000, Meter.OUTPUT: 4500},
            id="a compaction is beside what stands at the top, a message is in it",
        ),
        pytest.param(
            {
                "input_tokens": 9,
                "output_tokens": 600,
                "output_tokens_details": {"thinking_tokens": 512},
                "inference_geo": "global",
                "speed": "standard",
            },
            {Meter.INPUT: 9, Meter.OUTPUT: 600},
            id="thinking is output",
        ),
    ],
)
def test_anthropic_usage_becomes_disjoint_meters(usage: Mapping[str, object], expected: Mapping[Meter, int]) -> None:
    assert parse(Dialect.ANTHROPIC, usage) == expected


RESPONSES_CACHE = {"cached_tokens": 512, "cache_write_tokens": 1000}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param(
            {
                "input_tokens": 36,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 87,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 123,
            },
            {Meter.INPUT: 36, Meter.OUTPUT: 87},
            id="plain",
        ),
        pytest.param(
            {
                "input_tokens": 81,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 1035,
                "output_tokens_details": {"reasoning_tokens": 832},
                "total_tokens": 1116,
            },
            {Meter.INPUT: 81, Meter.OUTPUT: 203, Meter.REASONING: 832},
            id="reasoning is inside the output",
        ),
        pytest.param(
            {
                "input_tokens": 2000,
                "input_tokens_details": {
                    **RESPONSES_CACHE,
                    "cache_write_tokens_details": {"ttl_30m_tokens": 400, "ttl_12h_tokens": 600},
                },
                "output_tokens": 1,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 2001,
            },
            {
                Meter.INPUT: 488,
                Meter.CACHED_INPUT: 512,
                Meter.CACHE_WRITE_30M: 400,
                Meter.CACHE_WRITE_12H: 600,
                Meter.OUTPUT: 1,
            },
            id="cache writes of both lifetimes",
        ),
        pytest.param(
            {
                "total_tokens": 100,
                "input_tokens": 50,
                "output_tokens": 50,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
                "output_tokens_details": {"text_tokens": 20, "image_tokens": 30},
            },
            {Meter.INPUT: 10, Meter.IMAGE_INPUT: 40, Meter.OUTPUT: 20, Meter.IMAGE_OUTPUT: 30},
            id="images, in the same words",
        ),
    ],
)
def test_responses_usage_becomes_disjoint_meters(usage: Mapping[str, object], expected: Mapping[Meter, int]) -> None:
    assert parse(Dialect.RESPONSES, usage) == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param(
            {
                "promptTokenCount": 7,
                "candidatesTokenCount": 26,
                "totalTokenCount": 33,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 7}],
                "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 26}],
            },
            {Meter.INPUT: 7, Meter.OUTPUT: 26},
            id="plain",
        ),
        pytest.param(
            {
                "promptTokenCount": 24,
                "candidatesTokenCount": 30,
                "thoughtsTokenCount": 831,
                "totalTokenCount": 885,
                "trafficType": "ON_DEMAND",
            },
            {Meter.INPUT: 24, Meter.OUTPUT: 30, Meter.REASONING: 831},
            id="thoughts stand beside the candidates",
        ),
        pytest.param(
            {
                "promptTokenCount": 33,
                "toolUsePromptTokenCount": 10_309,
                "toolUsePromptTokensDetails": [{"modality": "TEXT", "tokenCount": 10_309}],
                "candidatesTokenCount": 45,
                "thoughtsTokenCount": 31,
                "totalTokenCount": 10_418,
            },
            {Meter.INPUT: 10_342, Meter.OUTPUT: 45, Meter.REASONING: 31},
            id="what tools brought is input beside the prompt",
        ),
        pytest.param(
            {
                "promptTokenCount": 1000,
                "cachedContentTokenCount": 600,
                "candidatesTokenCount": 1300,
                "totalTokenCount": 2300,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 200},
                    {"modality": "AUDIO", "tokenCount": 500},
                    {"modality": "IMAGE", "tokenCount": 258},
                    {"modality": "VIDEO", "tokenCount": 42},
                ],
                "cacheTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 150},
                    {"modality": "AUDIO", "tokenCount": 450},
                ],
                "candidatesTokensDetails": [
                    {"modality": "IMAGE", "tokenCount": 1290},
                    {"modality": "AUDIO", "tokenCount": 4},
                ],
            },
            {
                Meter.INPUT: 50,
                Meter.CACHED_INPUT: 150,
                Meter.CACHED_AUDIO_INPUT: 450,
                Meter.AUDIO_INPUT: 50,
                Meter.IMAGE_INPUT: 300,
                Meter.OUTPUT: 6,
                Meter.IMAGE_OUTPUT: 1290,
                Meter.AUDIO_OUTPUT: 4,
            },
            id="kinds of input, cached and not, and of output",
        ),
    ],
)
def test_gemini_usage_becomes_disjoint_meters(usage: Mapping[str, object], expected: Mapping[Meter, int]) -> None:
    assert parse(Dialect.GEMINI, usage) == expected


MESSAGE_START = {
    "input_tokens": 472,
    "cache_creation_input_tokens": 30,
    "cache_read_input_tokens": 12,
    "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
    "output_tokens": 2,
}
STARTED = {Meter.INPUT: 472, Meter.CACHED_INPUT: 12, Meter.CACHE_WRITE_5M: 20, Meter.CACHE_WRITE_1H: 10}


@pytest.mark.parametrize(
    "message_delta",
    [
        pytest.param({"output_tokens": 89}, id="only what changed"),
        pytest.param(
            {
                "input_tokens": 472,
                "cache_creation_input_tokens": 30,
                "cache_read_input_tokens": 12,
                "output_tokens": 89,
            },
            id="running totals of everything",
        ),
        pytest.param(
            {
                "input_tokens": None,
                "cache_creation_input_tokens": None,
                "cache_read_input_tokens": None,
                "output_tokens": 89,
            },
            id="null for what did not change",
        ),
    ],
)
def test_a_message_delta_completes_what_the_message_start_began(message_delta: Mapping[str, object]) -> None:
    assert parse(Dialect.ANTHROPIC, MESSAGE_START, message_delta) == {**STARTED, Meter.OUTPUT: 89}


def test_the_last_running_total_of_a_chat_stream_wins() -> None:
    first = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    last = {"prompt_tokens": 5, "completion_tokens": 18, "total_tokens": 23}
    assert parse(Dialect.OPENAI, first, last) == {Meter.INPUT: 5, Meter.OUTPUT: 18}


def test_a_total_that_the_last_object_does_not_repeat_takes_nothing_away() -> None:
    first = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    assert parse(Dialect.OPENAI, first, {"completion_tokens": 18}) == {Meter.INPUT: 5, Meter.OUTPUT: 18}


def test_each_dialect_reads_only_its_own_names() -> None:
    with pytest.raises(InvalidUsageError, match="prompt_tokens"):
        parse(Dialect.OPENAI, {"input_tokens": 1, "output_tokens": 1})
    with pytest.raises(InvalidUsageError, match="input_tokens"):
        parse(Dialect.ANTHROPIC, {"prompt_tokens": 1, "completion_tokens": 1})


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "7", '"usage"', "{}", "[" * 100_000, '{"prompt_tokens": 1' + "0" * 5000 + "}"],
    ids=["empty", "cut", "null", "list", "number", "string", "nothing", "bottomless", "endless"],
)
def test_what_is_not_a_usage_object_is_invalid(text: str) -> None:
    with pytest.raises(InvalidUsageError):
        parse_usage(Dialect.OPENAI, text)


@pytest.mark.parametrize("count", [-1, 1.5, "1", True, [1], {"n": 1}, MAX_TOKENS + 1, float("nan")])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "total_tokens"])
def test_a_count_that_is_not_a_whole_number_in_range_is_invalid(name: str, count: object) -> None:
    with pytest.raises(InvalidUsageError, match=name):
        parse(Dialect.OPENAI, {"prompt_tokens": 1, "completion_tokens": 1, name: count})


@pytest.mark.parametrize(
    ("dialect", "usage"),
    [
        (Dialect.OPENAI, {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}}),
        (Dialect.OPENAI, {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 3}}),
        (Dialect.OPENAI, {"prompt_tokens": 5, "prompt_tokens_details": {"image_tokens": 3, "audio_tokens": 3}}),
        (Dialect.RESPONSES, {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 6}}),
        (Dialect.RESPONSES, {"input_tokens": 5, "output_tokens": 1, "output_tokens_details": {"image_tokens": 2}}),
        (Dialect.GEMINI, {"promptTokenCount": 5, "cachedContentTokenCount": 6}),
        (Dialect.GEMINI, {"promptTokenCount": 5, "candidatesTokenCount": 6, "totalTokenCount": 10}),
        (Dialect.GEMINI, {"promptTokenCount": 5, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 6}]}),
        (
            Dialect.OPENAI,
            {"prompt_tokens": 5, "completion_tokens": 5, "completion_tokens_details": {"audio_tokens": 6}},
        ),
        (
            Dialect.ANTHROPIC,
            {
                "input_tokens": 1,
                "cache_creation_input_tokens": 5,
                "cache_creation": {"ephemeral_1h_input_tokens": 6},
            },
        ),
    ],
)
def test_parts_larger_than_their_whole_are_invalid(dialect: Dialect, usage: Mapping[str, object]) -> None:
    with pytest.raises(InvalidUsageError, match="larger than its total"):
        parse(dialect, usage)


def test_details_that_are_not_an_object_are_invalid() -> None:
    with pytest.raises(InvalidUsageError, match="prompt_tokens_details is not an object"):
        parse(Dialect.OPENAI, {"prompt_tokens": 1, "prompt_tokens_details": [1]})


def test_a_complaint_never_quotes_the_usage() -> None:
    with pytest.raises(InvalidUsageError) as complaint:
        parse_usage(Dialect.OPENAI, '{"prompt_tokens": "what the model said"}')
    assert "what the model said" not in str(complaint.value)


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_openai_meters_sum_to_the_total_that_the_provider_names(
    text_in: int, cached: int, audio_in: int, text_out: int, reasoning: int, audio_out: int
) -> None:
    prompt, completion = text_in + cached + audio_in, text_out + reasoning + audio_out
    counts = parse(
        Dialect.OPENAI,
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": audio_in},
            "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": audio_out},
        },
    )
    assert sum(counts.values()) == prompt + completion
    assert counts.get(Meter.INPUT, 0) == text_in
    assert counts.get(Meter.OUTPUT, 0) == text_out
    assert 0 not in counts.values()


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_anthropic_meters_sum_to_everything_the_provider_counts(
    uncached: int, read: int, write_5m: int, write_1h: int, output: int
) -> None:
    usage = parse_usage(
        Dialect.ANTHROPIC,
        json.dumps(
            {
                "input_tokens": uncached,
                "cache_read_input_tokens": read,
                "cache_creation_input_tokens": write_5m + write_1h,
                "cache_creation": {"ephemeral_5m_input_tokens": write_5m, "ephemeral_1h_input_tokens": write_1h},
                "output_tokens": output,
            }
        ),
    )
    assert usage.total_tokens == uncached + read + write_5m + write_1h + output
    assert usage.counts.get(Meter.CACHE_WRITE_5M, 0) == write_5m


@given(st.text(max_size=50) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_whatever_a_provider_sends_is_usage_or_invalid_and_nothing_else(text: str) -> None:
    with contextlib.suppress(InvalidUsageError):
        assert isinstance(parse_usage(Dialect.ANTHROPIC, text), Usage)


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert parse(Dialect.OPENAI, {"prompt_tokens": 7.0}) == {Meter.INPUT: 7}


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 5, "completion_tokens": 400, "total_tokens": 705},
        {"prompt_tokens": 5, "completion_tokens": 200, "total_tokens": 205},
    ],
)
def test_reasoning_that_is_counted_beside_the_completion_is_counted_once(usage: dict[str, object]) -> None:
    counts = parse(Dialect.OPENAI, {**usage, "completion_tokens_details": {"reasoning_tokens": 300}})
    assert counts == {Meter.INPUT: 5, Meter.OUTPUT: usage["completion_tokens"], Meter.REASONING: 300}


@pytest.mark.parametrize(
    ("dialect", "usage"),
    [
        (Dialect.OPENAI, {"prompt_tokens": 1}),
        (Dialect.RESPONSES, {"input_tokens": 1}),
        (Dialect.ANTHROPIC, {"input_tokens": 1}),
        (Dialect.GEMINI, {"promptTokenCount": 1}),
    ],
)
@pytest.mark.parametrize(
    "unknown",
    [1, -1, 1.0, 10**30, {"deep": {"deeper": [0, {"n": 2}]}}, [0, 1]],
    ids=["number", "negative", "written with a point", "huge", "deep", "list"],
)
def test_a_count_that_nobody_knows_is_never_taken_for_nothing(
    dialect: Dialect, usage: Mapping[str, object], unknown: object
) -> None:
    with pytest.raises(UnknownUsageError, match="telepathy_tokens counts something that is not known"):
        parse(dialect, {**usage, "telepathy_tokens": unknown})


@pytest.mark.parametrize("depth", [1, 100, 900, 960, 990, 5000, 100_000])
def test_a_count_however_deep_is_not_taken_for_nothing_and_ends_no_process(depth: int) -> None:
    with pytest.raises((UnknownUsageError, InvalidUsageError)):
        parse_usage(Dialect.OPENAI, f'{{"prompt_tokens": 1, "x": {"[" * depth}7{"]" * depth}}}')


@pytest.mark.parametrize("harmless", [None, 0, 0.0, "", [], {}, {"n": 0, "m": None}, True, False, "some text", 0.25])
def test_what_counts_nothing_is_passed_over(harmless: object) -> None:
    assert parse(Dialect.OPENAI, {"prompt_tokens": 1, "telepathy": harmless}) == {Meter.INPUT: 1}


@pytest.mark.parametrize(
    ("dialect", "usage", "where"),
    [
        (Dialect.OPENAI, {"prompt_tokens": 5, "prompt_tokens_details": {"video_tokens": 1}}, "prompt_tokens_details"),
        (Dialect.OPENAI, {"prompt_tokens": 5, "input_tokens": 5}, "input_tokens"),
        (Dialect.ANTHROPIC, {"input_tokens": 5, "server_tool_use": {"drawings": 1}}, "server_tool_use.drawings"),
        (Dialect.ANTHROPIC, {"input_tokens": 5, "inference_geo": "us"}, "inference_geo"),
        (Dialect.ANTHROPIC, {"input_tokens": 5, "iterations": [{"type": "advisor_message"}]}, "iterations"),
        (
            Dialect.ANTHROPIC,
            {"input_tokens": 5, "iterations": [{"type": "compaction", "input_tokens": 1, "more": 1}]},
            "iterations.more",
        ),
        (
            Dialect.GEMINI,
            {"promptTokenCount": 5, "promptTokensDetails": [{"modality": "SMELL", "tokenCount": 1}]},
            "promptTokensDetails",
        ),
        (Dialect.GEMINI, {"promptTokenCount": 5, "totalTokenCount": 6}, "totalTokenCount"),
    ],
)
def test_what_may_have_a_price_of_its_own_is_named(dialect: Dialect, usage: Mapping[str, object], where: str) -> None:
    with pytest.raises(UnknownUsageError, match=where):
        parse(dialect, usage)


def test_a_name_that_is_no_name_is_not_quoted() -> None:
    with pytest.raises(UnknownUsageError, match=r"^a field counts something"):
        parse(Dialect.OPENAI, {"prompt_tokens": 1, "what the model said": 1})


@pytest.mark.parametrize(
    ("dialect", "usage", "beside", "tier"),
    [
        (Dialect.OPENAI, {"prompt_tokens": 1}, None, "standard"),
        (Dialect.OPENAI, {"prompt_tokens": 1}, "default", "standard"),
        (Dialect.RESPONSES, {"input_tokens": 1}, "flex", "flex"),
        (Dialect.ANTHROPIC, {"input_tokens": 1, "service_tier": "priority"}, None, "priority"),
        (Dialect.ANTHROPIC, {"input_tokens": 1, "service_tier": "batch"}, "priority", "batch"),
        (Dialect.ANTHROPIC, {"input_tokens": 1, "service_tier": "standard", "speed": "fast"}, None, "fast"),
        (Dialect.ANTHROPIC, {"input_tokens": 1, "service_tier": None}, None, "standard"),
        (Dialect.GEMINI, {"promptTokenCount": 1, "serviceTier": "FLEX"}, None, "flex"),
        (Dialect.GEMINI, {"promptTokenCount": 1, "trafficType": "ON_DEMAND_PRIORITY"}, None, "priority"),
        (Dialect.GEMINI, {"promptTokenCount": 1, "trafficType": "ON_DEMAND"}, None, "standard"),
    ],
)
def test_the_service_tier_is_read_where_the_dialect_has_it(
    dialect: Dialect, usage: Mapping[str, object], beside: str | None, tier: str
) -> None:
    assert parse_usage(dialect, json.dumps(usage), tier=beside).service_tier == tier


def test_a_service_tier_that_is_no_word_is_not_guessed_at() -> None:
    with pytest.raises(InvalidTierError):
        parse_usage(Dialect.ANTHROPIC, '{"input_tokens": 1, "service_tier": "the dear one"}')
    with pytest.raises(InvalidUsageError):
        parse_usage(Dialect.ANTHROPIC, '{"input_tokens": 1, "service_tier": 1}')


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_responses_meters_sum_to_the_total_that_the_provider_names(
    text_in: int, cached: int, written: int, written_12h: int, image_in: int, text_out: int, reasoning: int, image: int
) -> None:
    read, made = text_in + cached + written + written_12h + image_in, text_out + reasoning + image
    counts = parse(
        Dialect.RESPONSES,
        {
            "input_tokens": read,
            "output_tokens": made,
            "total_tokens": read + made,
            "input_tokens_details": {
                "cached_tokens": cached,
                "cache_write_tokens": written + written_12h,
                "cache_write_tokens_details": {"ttl_30m_tokens": written, "ttl_12h_tokens": written_12h},
                "image_tokens": image_in,
            },
            "output_tokens_details": {"reasoning_tokens": reasoning, "image_tokens": image},
        },
    )
    assert sum(counts.values()) == read + made
    assert counts.get(Meter.INPUT, 0) == text_in
    assert counts.get(Meter.OUTPUT, 0) == text_out


@given(COUNTS, COUNTS, COUNTS)
def test_openai_input_sums_to_the_prompt_however_caches_and_kinds_overlap(cached: int, audio: int, image: int) -> None:
    prompt = max(cached, audio + image)
    details = {"cached_tokens": cached, "audio_tokens": audio, "image_tokens": image}
    counts = parse(Dialect.OPENAI, {"prompt_tokens": prompt, "prompt_tokens_details": details})
    assert sum(counts.values()) == prompt
    assert counts.get(Meter.CACHED_INPUT, 0) == cached


@given(
    st.fixed_dictionaries(dict.fromkeys(("TEXT", "AUDIO", "IMAGE", "VIDEO", "DOCUMENT"), COUNTS)),
    st.fixed_dictionaries({kind: st.integers(0, 100) for kind in ("TEXT", "AUDIO", "IMAGE")}),
    st.fixed_dictionaries(dict.fromkeys(("TEXT", "AUDIO", "IMAGE"), COUNTS)),
    st.fixed_dictionaries(dict.fromkeys(("TEXT", "AUDIO"), COUNTS)),
    COUNTS,
    st.booleans(),
)
def test_gemini_meters_sum_to_the_total_that_the_provider_names(
    uncached: dict[str, int],
    cached: dict[str, int],
    made: dict[str, int],
    tools: dict[str, int],
    thoughts: int,
    with_details: bool,
) -> None:
    read = {kind: count + cached.get(kind, 0) for kind, count in uncached.items()}
    total = sum(map(sum, (read.values(), made.values(), tools.values()))) + thoughts
    usage: dict[str, object] = {
        "promptTokenCount": sum(read.values()),
        "cachedContentTokenCount": sum(cached.values()),
        "toolUsePromptTokenCount": sum(tools.values()),
        "candidatesTokenCount": sum(made.values()),
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": total,
        "promptTokensDetails": modalities(read),
        "candidatesTokensDetails": modalities(made),
    }
    if with_details:
        usage |= {"cacheTokensDetails": modalities(cached), "toolUsePromptTokensDetails": modalities(tools)}
    counts = parse(Dialect.GEMINI, usage)
    assert sum(counts.values()) == total
    if with_details:
        assert counts.get(Meter.AUDIO_INPUT, 0) == uncached["AUDIO"] + tools["AUDIO"]
        assert counts.get(Meter.CACHED_AUDIO_INPUT, 0) == cached["AUDIO"]


def modalities(counts: Mapping[str, int]) -> list[dict[str, object]]:
    return [{"modality": kind, "tokenCount": count} for kind, count in counts.items()]


@given(
    st.lists(st.tuples(st.sampled_from(["message", "compaction"]), COUNTS, COUNTS, COUNTS, COUNTS, COUNTS), max_size=4)
)
def test_anthropic_meters_sum_to_all_iterations(steps: list[tuple[str, int, int, int, int, int]]) -> None:
    def usage(uncached: int, read: int, write_5m: int, write_1h: int, output: int) -> dict[str, object]:
        return {
            "input_tokens": uncached,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": write_5m + write_1h,
            "cache_creation": {"ephemeral_5m_input_tokens": write_5m, "ephemeral_1h_input_tokens": write_1h},
            "output_tokens": output,
        }

    messages = [counts for kind, *counts in steps if kind == "message"]
    top = usage(*(sum(column) for column in zip(*messages, strict=True)) if messages else (0,) * 5)
    iterations = [{"type": kind, **usage(*counts)} for kind, *counts in steps]
    counted = parse(Dialect.ANTHROPIC, {**top, "iterations": iterations})
    assert sum(counted.values()) == sum(sum(counts) for _, *counts in steps)


def test_meters_by_name_say_of_which_kind_tokens_are() -> None:
    usage = '{"prompt_tokens": 10, "completion_tokens": 2, "tollgate_meters": {"input": 4, "cache_write_5m": 6, "output": 2}}'
    assert parse_usage(Dialect.OPENAI, usage).counts == {
        Meter.INPUT: 4,
        Meter.CACHE_WRITE_5M: 6,
        Meter.OUTPUT: 2,
    }


@pytest.mark.parametrize(
    ("meters", "error"),
    [
        ({"input": 9, "output": 2}, InvalidUsageError),
        ({"input": 8, "output": 4}, InvalidUsageError),
        ({"input": -1, "cached_input": 11, "output": 2}, InvalidUsageError),
        ({"input": 10, "output": 2, "request": 1}, UnknownUsageError),
        ({"input": 10, "output": 2, "future": 1}, UnknownUsageError),
        ([], InvalidUsageError),
    ],
)
def test_meters_by_name_cannot_say_how_many_tokens_there_are(meters: object, error: type[ValueError]) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "tollgate_meters": meters}
    with pytest.raises(error):
        parse_usage(Dialect.OPENAI, json.dumps(usage))


@pytest.mark.parametrize(
    ("dialect", "text", "expected"),
    [
        pytest.param(
            Dialect.IMAGES,
            {"input_tokens": 9, "output_tokens": 272, "total_tokens": 281, "input_tokens_details": {"image_tokens": 2}},
            {"input": 7, "image_input": 2, "image_output": 272},
            id="a picture, and nothing more is said of it",
        ),
        pytest.param(
            Dialect.IMAGES,
            {"input_tokens": 1, "output_tokens": 10, "output_tokens_details": {"image_tokens": 6, "text_tokens": 4}},
            {"input": 1, "image_output": 6, "output": 4},
            id="a picture, and text that was thought of it",
        ),
        pytest.param(
            Dialect.SPEECH,
            {"input_tokens": 4, "output_tokens": 80, "total_tokens": 84},
            {"input": 4, "audio_output": 80},
            id="speech",
        ),
        pytest.param(
            Dialect.TRANSCRIPTION,
            {
                "type": "tokens",
                "input_tokens": 14,
                "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
                "output_tokens": 5,
                "total_tokens": 19,
            },
            {"input": 4, "audio_input": 10, "output": 5},
            id="a transcription in tokens",
        ),
        pytest.param(
            Dialect.TRANSCRIPTION, {"type": "duration", "seconds": 61}, {"audio_second": 61}, id="one in seconds"
        ),
        pytest.param(Dialect.TRANSCRIPTION, {"seconds": 60.01}, {"audio_second": 61}, id="a second that has begun"),
        pytest.param(Dialect.TRANSCRIPTION, {"duration": 0.0}, {}, id="no sound at all"),
        pytest.param(
            Dialect.TRANSCRIPTION,
            {"input_tokens": 3, "output_tokens": 2, "seconds": 4},
            {"input": 3, "output": 2, "audio_second": 4},
            id="both, and neither is for nothing",
        ),
        pytest.param(
            Dialect.REALTIME,
            {
                "responses": 1,
                "transcriptions": 0,
                "usage": {
                    "total_tokens": 253,
                    "input_tokens": 132,
                    "output_tokens": 121,
                    "input_token_details": {
                        "text_tokens": 119,
                        "audio_tokens": 13,
                        "image_tokens": 0,
                        "cached_tokens": 64,
                        "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0, "image_tokens": 0},
                    },
                    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
                },
            },
            {"input": 55, "cached_input": 64, "audio_input": 13, "output": 30, "audio_output": 91},
            id="a session, in the numbers of OpenAI's guide to its costs",
        ),
        pytest.param(
            Dialect.REALTIME,
            {
                "usage": {
                    "input_tokens": 100,
                    "output_tokens": 0,
                    "input_token_details": {
                        "audio_tokens": 60,
                        "image_tokens": 10,
                        "cached_tokens": 50,
                        "cached_tokens_details": {"audio_tokens": 40, "image_tokens": 4, "text_tokens": 6},
                    },
                }
            },
            {"input": 24, "cached_input": 10, "audio_input": 20, "cached_audio_input": 40, "image_input": 6},
            id="a session whose cached tokens are of every kind",
        ),
        pytest.param(
            Dialect.REALTIME,
            {"usage": {"input_tokens": 9, "output_tokens": 1, "input_token_details": {"cached_tokens": 4}}},
            {"input": 5, "cached_input": 4, "output": 1},
            id="a session that does not say of which kind its cached tokens are",
        ),
        pytest.param(
            Dialect.REALTIME,
            {
                "transcriptions": 2,
                "transcribed": {
                    "input_tokens": 14,
                    "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
                    "output_tokens": 5,
                    "seconds": 2.5,
                },
            },
            {"input": 4, "audio_input": 10, "output": 5, "audio_second": 3},
            id="transcriptions of two kinds and no response",
        ),
        pytest.param(Dialect.REALTIME, {"responses": 1, "transcriptions": 0}, {}, id="a session that was of no use"),
        pytest.param(Dialect.RERANK, {"search_units": 2}, {"search_unit": 2}, id="Cohere"),
        pytest.param(Dialect.RERANK, {"total_tokens": 7, "prompt_tokens": 7}, {"input": 7}, id="Jina and Voyage"),
        pytest.param(Dialect.OPENAI, {"prompt_tokens": 3, "total_tokens": 3}, {"input": 3}, id="embeddings"),
    ],
)
def test_what_is_no_conversation_is_counted_by_what_it_is(
    dialect: Dialect, text: dict[str, object], expected: dict[str, int]
) -> None:
    found = parse_usage(dialect, json.dumps(text))
    assert {str(meter): count for meter, count in found.counts.items()} == expected


@pytest.mark.parametrize("seconds", ["-1", "-0.5", "NaN", "Infinity", "1e300", '"9"', "true", "null"])
def test_a_length_that_is_none_is_no_usage(seconds: str) -> None:
    with pytest.raises(InvalidUsageError):
        parse_usage(Dialect.TRANSCRIPTION, f'{{"seconds":{seconds}}}')


@pytest.mark.parametrize(
    ("usage", "problem"),
    [
        ({"input_tokens": 5, "output_tokens": 1, "moods": 2}, UnknownUsageError),
        ({"input_tokens": 5, "output_tokens": 1, "input_token_details": {"video_tokens": 2}}, UnknownUsageError),
        ({"output_tokens": 1}, InvalidUsageError),
        ({"input_tokens": 5, "input_token_details": {"audio_tokens": 6}}, InvalidUsageError),
        (
            {
                "input_tokens": 5,
                "input_token_details": {"audio_tokens": 1, "cached_tokens_details": {"audio_tokens": 2}},
            },
            InvalidUsageError,
        ),
    ],
)
def test_a_session_that_counts_what_is_not_known_or_contradicts_itself_is_set_aside(
    usage: dict[str, object], problem: type[Exception]
) -> None:
    with pytest.raises(problem):
        parse_usage(Dialect.REALTIME, json.dumps({"responses": 1, "usage": usage}))


def test_a_search_unit_beside_something_unknown_is_set_aside() -> None:
    with pytest.raises(UnknownUsageError, match="classifications"):
        parse_usage(Dialect.RERANK, json.dumps({"search_units": 1, "classifications": 3}))
