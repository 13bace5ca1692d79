"""How a provider's usage becomes disjoint meters. The examples are those of the providers' API references."""

import contextlib
import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_core.endpoints import Dialect
from gateway_core.usage import MAX_TOKENS, InvalidUsageError, Meter, Usage, parse_usage

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
    ],
)
def test_anthropic_usage_becomes_disjoint_meters(usage: Mapping[str, object], expected: Mapping[Meter, int]) -> None:
    assert parse(Dialect.ANTHROPIC, usage) == expected


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
        (Dialect.OPENAI, {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 3}}),
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
