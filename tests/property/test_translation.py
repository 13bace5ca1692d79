"""What holds of every translation: no meter is lost, nothing is said twice or left out, and no bytes of a provider break it."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_core.endpoints import Dialect
from gateway_core.provider_usage import InvalidUsageError, UnknownUsageError, parse_usage
from gateway_core.usage import Usage
from tests.support.conversations import conversations
from translator.chat import request_reader as chat_reader
from translator.chat import request_writer as chat_writer
from translator.conversation import Conversation, merged
from translator.faults import Feature, UnreadableAnswerError
from translator.gemini import request_reader as gemini_reader
from translator.gemini import request_writer as gemini_writer
from translator.json_values import Json, JsonObject, parse_object
from translator.messages import request_reader as messages_reader
from translator.messages import request_writer as messages_writer
from translator.metering import chat_usage, gemini_usage, messages_usage, metered, responses_usage
from translator.reply import Unpriced
from translator.sse import EventReader
from translator.translation import CLIENT_SIDES, PROVIDER_SIDES, Answer, UntranslatableError, translate_request

WRITERS = {
    Dialect.OPENAI: chat_usage,
    Dialect.RESPONSES: responses_usage,
    Dialect.ANTHROPIC: messages_usage,
    Dialect.GEMINI: gemini_usage,
}
FOLDER = Path(__file__).parents[1] / "golden" / "translation" / "requests"
COUNTS = st.integers(0, 1_000_000)
PAIRS = [(client, provider) for client in CLIENT_SIDES for provider in PROVIDER_SIDES]


@st.composite
def openai_usages(draw: st.DrawFn) -> JsonObject:
    cached, written, written_12h, fresh = (draw(COUNTS) for _ in range(4))
    audio = draw(st.integers(0, fresh))
    image = draw(st.integers(0, fresh - audio))
    completion = draw(COUNTS)
    reasoning = draw(st.integers(0, completion))
    beside = draw(st.sampled_from([0, 0, 17]))
    prompt = cached + written + written_12h + fresh
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion + beside,
        "prompt_tokens_details": {
            "cached_tokens": cached,
            "cache_write_tokens": written + written_12h,
            "cache_write_tokens_details": {"ttl_12h_tokens": written_12h},
            "audio_tokens": audio,
            "image_tokens": image,
        },
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": draw(st.integers(0, completion - reasoning)),
        },
    }


def _compaction(tokens: int) -> Json:
    return {"type": "compaction", "input_tokens": tokens, "output_tokens": tokens}


@st.composite
def anthropic_usages(draw: st.DrawFn) -> JsonObject:
    write_5m, write_1h = draw(COUNTS), draw(COUNTS)
    return {
        "input_tokens": draw(COUNTS),
        "cache_read_input_tokens": draw(COUNTS),
        "cache_creation_input_tokens": write_5m + write_1h,
        "cache_creation": {"ephemeral_5m_input_tokens": write_5m, "ephemeral_1h_input_tokens": write_1h},
        "output_tokens": draw(COUNTS),
        "server_tool_use": {"web_search_requests": draw(st.integers(0, 9))},
        "service_tier": draw(st.sampled_from(["standard", "priority", "batch"])),
        "speed": draw(st.sampled_from([None, "fast"])),
        "iterations": draw(st.lists(st.builds(_compaction, COUNTS), max_size=2)),
    }


@st.composite
def gemini_usages(draw: st.DrawFn) -> JsonObject:
    prompt, tools, candidates, thoughts = (draw(COUNTS) for _ in range(4))
    cached = draw(st.integers(0, prompt))
    audio_cached = draw(st.integers(0, cached))
    audio = draw(st.integers(audio_cached, prompt))
    image_out = draw(st.integers(0, candidates))
    return {
        "promptTokenCount": prompt,
        "toolUsePromptTokenCount": tools,
        "cachedContentTokenCount": cached,
        "candidatesTokenCount": candidates,
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": prompt + tools + candidates + thoughts,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": audio}],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": audio_cached}],
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": image_out}],
        "trafficType": draw(st.sampled_from([None, "ON_DEMAND", "ON_DEMAND_PRIORITY"])),
    }


USAGES: Mapping[Dialect, st.SearchStrategy[JsonObject]] = {
    Dialect.OPENAI: openai_usages(),
    Dialect.ANTHROPIC: anthropic_usages(),
    Dialect.GEMINI: gemini_usages(),
}


@pytest.mark.parametrize("client", WRITERS)
@pytest.mark.parametrize("provider", USAGES)
@given(data=st.data())
def test_a_translated_usage_has_the_meters_and_the_tier_of_the_providers(
    provider: Dialect, client: Dialect, data: st.DataObject
) -> None:
    raw = data.draw(USAGES[provider])
    tier = data.draw(st.sampled_from([None, "default", "flex"])) if provider is Dialect.OPENAI else None
    meant = parse_usage(provider, json.dumps(raw), tier=tier)
    usage = metered(provider, raw, tier=tier)
    assert isinstance(usage, Usage)
    written = json.dumps(WRITERS[client](usage))
    beside = None if client in {Dialect.ANTHROPIC, Dialect.GEMINI} else usage.service_tier
    assert parse_usage(client, written, tier=beside) == meant
    if client is Dialect.ANTHROPIC:
        # As a stream is read, whose beginning has an estimate that the end overrules.
        assert parse_usage(client, '{"input_tokens": 7, "output_tokens": 1}', written) == meant


@pytest.mark.parametrize("client", WRITERS)
@given(raw=st.dictionaries(st.text(max_size=5), st.none() | st.text() | st.integers() | st.booleans(), max_size=4))
def test_a_usage_that_nobody_can_read_is_set_aside_and_never_taken_for_nothing(
    client: Dialect, raw: dict[str, Json]
) -> None:
    with pytest.raises(UnknownUsageError):
        parse_usage(client, json.dumps(WRITERS[client](Unpriced(raw))))


@given(raw=anthropic_usages(), lie=st.integers(1, 100))
def test_a_provider_cannot_say_by_meters_of_ours_that_there_were_other_numbers_of_tokens(
    raw: JsonObject, lie: int
) -> None:
    usage = metered(Dialect.ANTHROPIC, raw)
    assert isinstance(usage, Usage)
    written = chat_usage(usage)
    written["tollgate_meters"] = {**{str(name): n for name, n in usage.counts.items()}, "cached_audio_input": lie}
    with pytest.raises(InvalidUsageError):
        parse_usage(Dialect.OPENAI, json.dumps(written))


SIDES = (
    (Dialect.OPENAI, chat_reader, chat_writer),
    (Dialect.ANTHROPIC, messages_reader, messages_writer),
    (Dialect.GEMINI, gemini_reader, gemini_writer),
)


@pytest.mark.parametrize(("dialect", "reader", "writer"), SIDES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_is_written_in_a_dialect_is_read_back_as_it_was(
    dialect: Dialect, reader: ModuleType, writer: ModuleType, data: st.DataObject
) -> None:
    conversation = data.draw(conversations(dialect))
    lost: set[Feature] = set()
    written = writer.write_request(conversation, lost)
    if dialect is Dialect.GEMINI:
        written |= {"model": conversation.model, "stream": conversation.stream}
    found: Conversation = reader.read_request(written)
    # Chat has the results of tools in messages of their own.
    assert replace(found, turns=merged(list(found.turns))) == conversation
    assert not lost


@given(
    data=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1), max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_events_are_the_same_however_a_stream_is_cut(data: list[str], end: str, cuts: list[int]) -> None:
    stream = "".join(f": note{end}event: x{end}data: {each}{end}{end}" for each in data).encode()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = EventReader()
    found = [each for i, j in pairwise(edges) for each in reader.feed(stream[i:j])]
    assert [each.decode() for each in (*found, *reader.end())] == data


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["message_start", "content_block_delta", "text", "tool_use", "stop", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "message", "content", "delta", "choices", "usage", "error", "id", "model", "candidates"),
                    *(
                        "parts",
                        "text",
                        "content_block",
                        "input",
                        "name",
                        "tool_calls",
                        "function",
                        "arguments",
                        "index",
                    ),
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def answer(client: Dialect, provider: Dialect) -> Answer:
    said: JsonObject = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}], "input": "x"}
    if client is Dialect.RESPONSES:
        said = {"model": "m", "input": "x"}
    if client is Dialect.GEMINI:
        said = {"contents": [{"parts": [{"text": "x"}]}]}
    body = json.dumps(said).encode()
    return translate_request(body, "/?generate=m", client, provider, now_s=1, new_call_id=lambda: "call_1").answer


@pytest.mark.parametrize(("client", "provider"), PAIRS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(junk=st.lists(JUNK, max_size=4))
def test_whatever_a_provider_sends_as_a_stream_the_client_gets_one_end(
    client: Dialect, provider: Dialect, junk: list[Json]
) -> None:
    stream = answer(client, provider).stream()
    sent = stream.feed("".join(f"data: {json.dumps(each)}\n\n" for each in junk).encode()) + stream.end()
    events = [each for each in sent.split(b"\n\n") if each]
    last = events[-1].decode()
    ends = (
        "[DONE]",
        "finishReason",
        '"error"',
        "message_stop",
        "response.failed",
        "response.completed",
        "response.incomplete",
    )
    assert any(end in last for end in ends)
    assert stream.feed(b"data: {}\n\n") == stream.end() == b""


@pytest.mark.parametrize(("client", "provider"), PAIRS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(junk=JUNK)
def test_whatever_a_provider_sends_whole_is_translated_or_known_to_be_unreadable(
    client: Dialect, provider: Dialect, junk: Json
) -> None:
    made = answer(client, provider)
    body = json.dumps(junk).encode()
    with suppress(UnreadableAnswerError):
        parse_object(made.whole(body))
    assert "error" in parse_object(made.refusal(500, body))


REQUESTS = {
    name: [path.read_bytes() for path in sorted((FOLDER / name).iterdir())]
    for name in ("chat", "messages", "responses", "gemini")
}
CLIENTS = {
    "chat": Dialect.OPENAI,
    "messages": Dialect.ANTHROPIC,
    "responses": Dialect.RESPONSES,
    "gemini": Dialect.GEMINI,
}


def damaged(value: Json, draw: st.DataObject) -> Json:
    """A value with something else in the place of a part of it."""
    if isinstance(value, dict) and value and draw.draw(st.booleans()):
        name = draw.draw(st.sampled_from(sorted(value)))
        return {**value, name: damaged(value[name], draw)}
    if isinstance(value, list) and value and draw.draw(st.booleans()):
        place = draw.draw(st.integers(0, len(value) - 1))
        return [*value[:place], damaged(value[place], draw), *value[place + 1 :]]
    return draw.draw(JUNK)


@pytest.mark.parametrize("name", CLIENTS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_a_client_sends_is_translated_or_refused(name: str, data: st.DataObject) -> None:
    whole = parse_object(data.draw(st.sampled_from(REQUESTS[name])))
    field = data.draw(st.sampled_from(sorted(whole)))
    body = json.dumps({**whole, field: damaged(whole[field], data)}).encode()
    provider = data.draw(st.sampled_from(list(PROVIDER_SIDES)))
    try:
        answered = translate_request(
            body, "/?generate=m", CLIENTS[name], provider, now_s=1, new_call_id=lambda: "call_1"
        ).body
    except UntranslatableError as refused:
        answered = refused.body
    assert parse_object(answered)
