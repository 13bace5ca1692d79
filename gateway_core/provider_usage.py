"""The one normaliser: a provider's raw usage object becomes disjoint meters, whichever dialect it is written in. Pure.

Each dialect counts in its own way. OpenAI counts cached tokens inside the prompt and reasoning inside the completion, Anthropic
counts cached tokens beside the input, Gemini counts thoughts and the results of tools beside everything. Pictures and speech are counted
as OpenAI counts the Responses API, and say of their output that it is one or the other only if it is not all.

What is in a usage object and not known here:
- A whole number other than zero, at any depth, may be money: `UnknownUsageError`, and the request is set aside.
- Nothing (null, zero, an empty text, list or object), text, a truth value, and a number with a fraction (a time, or a cost
  that somebody has worked out) count nothing and are passed over.
- Text that is known to change the price is read: the service tier, Anthropic's `speed` and `inference_geo`.

Sources: the API references of OpenAI (chat completions, responses), Anthropic (messages) and Gemini (generateContent), and the
types of the official SDKs, which also say what is inside what.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Final, assert_never

from gateway_core.endpoints import Dialect
from gateway_core.usage import INPUT_METERS, MAX_TOKENS, OUTPUT_METERS, PROVIDER_METERS, Meter, Usage, service_tier

TRANSLATED_METERS: Final = "tollgate_meters"
"""All meters of an answer that the translator has made, by name, where its dialect has no field for one of them."""


class InvalidUsageError(ValueError):
    """A usage object that contradicts itself or is not of the dialect's shape. The message never quotes it."""


class UnknownUsageError(ValueError):
    """Something is counted, or was done, that may cost money and that nobody here can price. The message names the field."""


def parse_usage(dialect: Dialect, first: str, last: str | None = None, *, tier: str | None = None) -> Usage:
    """Read a provider's raw usage objects.

    Args:
        dialect: the dialect of the answer, which is the dialect of the endpoint.
        first: JSON text of the first usage object of the answer.
        last: JSON text of the last one, when there were several. It wins field by field, because later objects of a
            stream are running totals; Anthropic's last one names only what changed, or has null for what did not.
        tier: the service tier as it is named beside the usage, where the dialect does not name it inside.

    Returns:
        Disjoint counts whose tokens sum to the provider's own total, and the tier the request was served at.

    Raises:
        InvalidUsageError: not an object of integers >= 0, or parts larger than their whole.
        UnknownUsageError: the object counts something that is not known here.
        InvalidTierError: its service tier is not a word.
    """
    changed = _object(last) if last is not None else {}
    merged = _object(first) | {name: value for name, value in changed.items() if value is not None}
    told = _nested(merged, TRANSLATED_METERS)
    merged.pop(TRANSLATED_METERS, None)
    match dialect:
        case Dialect.OPENAI:
            counts, served_at = _openai(merged, "prompt_tokens", "completion_tokens"), tier
            _refuse_unknown(merged, _OPENAI)
        case Dialect.RESPONSES:
            counts, served_at = _openai(merged, "input_tokens", "output_tokens"), tier
            _refuse_unknown(merged, _RESPONSES)
        case Dialect.IMAGES:
            counts, served_at = _media(merged, Meter.IMAGE_OUTPUT), tier
            _refuse_unknown(merged, _RESPONSES)
        case Dialect.SPEECH:
            counts, served_at = _media(merged, Meter.AUDIO_OUTPUT), tier
            _refuse_unknown(merged, _RESPONSES)
        case Dialect.TRANSCRIPTION:
            counts, served_at = _transcription(merged), tier
            _refuse_unknown(merged, _TRANSCRIPTION)
        case Dialect.REALTIME:
            counts, served_at = _realtime(merged), tier
            _refuse_unknown(merged, _REALTIME)
        case Dialect.RERANK:
            counts, served_at = _rerank(merged), tier
            _refuse_unknown(merged, _RERANK)
        case Dialect.ANTHROPIC:
            counts, served_at = _anthropic(merged), _anthropic_tier(merged) or tier
            _refuse_unknown(merged, _ANTHROPIC)
        case Dialect.GEMINI:
            counts, served_at = _gemini(merged), _text(merged, "serviceTier") or _text(merged, "trafficType") or tier
            _refuse_unknown(merged, _GEMINI)
        case _:
            assert_never(dialect)
    if told:
        counts = _told(told, counts)
    return Usage({meter: count for meter, count in counts.items() if count}, service_tier(served_at))


def _told(told: Mapping[str, object], counts: Mapping[Meter, int]) -> dict[Meter, int]:
    """The meters by name. A provider can write that too, so it may say of which kind tokens are, and not how many there are."""
    if unknown := sorted(told.keys() - set(PROVIDER_METERS)):
        raise UnknownUsageError(f"{TRANSLATED_METERS}.{_quotable(unknown[0])} is not a meter")
    found = {meter: _count(told, meter) for meter in PROVIDER_METERS}
    for meters in (INPUT_METERS, OUTPUT_METERS):
        if sum(found[meter] for meter in meters) != sum(counts.get(meter, 0) for meter in meters):
            raise InvalidUsageError(f"{TRANSLATED_METERS}: not the tokens that are counted beside it")
    return found


def is_last_word(dialect: Dialect, *, stream: bool, last: str | None) -> bool:
    """Whether a usage is all that an answer used. Anthropic reports the input when a stream begins and the output when it ends."""
    return not (dialect is Dialect.ANTHROPIC and stream and last is None)


Fields = Mapping[str, "Fields | None"]
"""What is known of an object: fields that are read or known to be inside another one, and objects with such fields."""

_OPENAI_INPUT: Final[Fields] = {
    "cached_tokens": None,
    "cache_write_tokens": None,
    "cache_write_tokens_details": {"ttl_30m_tokens": None, "ttl_12h_tokens": None},
    "audio_tokens": None,
    "image_tokens": None,
    "text_tokens": None,
}
_OPENAI_OUTPUT: Final[Fields] = {
    "reasoning_tokens": None,
    "audio_tokens": None,
    "image_tokens": None,
    "text_tokens": None,
    # Both are part of the completion: what was predicted wrongly is charged like what was not predicted.
    "accepted_prediction_tokens": None,
    "rejected_prediction_tokens": None,
}
_OPENAI: Final[Fields] = {
    "prompt_tokens": None,
    "completion_tokens": None,
    "total_tokens": None,
    "prompt_tokens_details": _OPENAI_INPUT,
    "completion_tokens_details": _OPENAI_OUTPUT,
    # DeepSeek's words for the cached part of the prompt and the rest of it.
    "prompt_cache_hit_tokens": None,
    "prompt_cache_miss_tokens": None,
}
_RESPONSES: Final[Fields] = {
    "input_tokens": None,
    "output_tokens": None,
    "total_tokens": None,
    "input_tokens_details": _OPENAI_INPUT,
    "output_tokens_details": _OPENAI_OUTPUT,
}


def _openai(usage: Mapping[str, object], prompt_name: str, completion_name: str) -> dict[Meter, int]:
    read, written = _nested(usage, f"{prompt_name}_details"), _nested(usage, f"{completion_name}_details")
    prompt = _count(usage, prompt_name, required=True)
    completion = _count(usage, completion_name)
    cached = max(_count(read, "cached_tokens"), _count(usage, "prompt_cache_hit_tokens"))
    cache_write = _count(read, "cache_write_tokens")
    cache_write_12h = _count(_nested(read, "cache_write_tokens_details"), "ttl_12h_tokens")
    audio_in, image_in = _kinds(_rest(prompt, cached + cache_write), prompt, read)
    reasoning = _count(written, "reasoning_tokens")
    # Some count reasoning inside the completion, as OpenAI does; some beside it; and Gemini's compatible endpoint counts it in
    # the total only. A total below the sum is one of an earlier chunk.
    surplus = max(0, _count(usage, "total_tokens") - prompt - completion)
    is_beside = reasoning > completion or (reasoning > 0 and reasoning == surplus)
    audio_out, image_out = _count(written, "audio_tokens"), _count(written, "image_tokens")
    return {
        Meter.INPUT: prompt - cached - cache_write - audio_in - image_in,
        Meter.CACHED_INPUT: cached,
        Meter.CACHE_WRITE_30M: _rest(cache_write, cache_write_12h),
        Meter.CACHE_WRITE_12H: cache_write_12h,
        Meter.AUDIO_INPUT: audio_in,
        Meter.IMAGE_INPUT: image_in,
        Meter.OUTPUT: _rest(completion, (0 if is_beside else reasoning) + audio_out + image_out),
        Meter.REASONING: max(reasoning, surplus) if is_beside else reasoning + surplus,
        Meter.AUDIO_OUTPUT: audio_out,
        Meter.IMAGE_OUTPUT: image_out,
    }


def _media(usage: Mapping[str, object], written: Meter) -> dict[Meter, int]:
    """As Responses; what is written is of the given kind, but for what is said to be text."""
    counts = _openai(usage, "input_tokens", "output_tokens")
    text = min(_count(_nested(usage, "output_tokens_details"), "text_tokens"), counts[Meter.OUTPUT])
    return {**counts, Meter.OUTPUT: text, written: counts[written] + counts[Meter.OUTPUT] - text}


_TRANSCRIPTION: Final[Fields] = {
    "input_tokens": None,
    "output_tokens": None,
    "total_tokens": None,
    "input_token_details": _OPENAI_INPUT,
    "output_token_details": _OPENAI_OUTPUT,
    "seconds": None,
    # Told beside the text and not as a usage, which response.lua puts in the place of one.
    "duration": None,
}


def _transcription(usage: Mapping[str, object]) -> dict[Meter, int]:
    """Seconds of sound, in either of their two names, or tokens, whose details have names of their own."""
    seconds = max(_begun(usage, "seconds"), _begun(usage, "duration"))
    is_told = any(usage.get(name) is not None for name in ("seconds", "duration"))
    if is_told and usage.get("input_tokens") is None:
        return {Meter.AUDIO_SECOND: seconds}
    details = {f"{side}_tokens_details": usage.get(f"{side}_token_details") for side in ("input", "output")}
    return {**_openai({**usage, **details}, "input_tokens", "output_tokens"), Meter.AUDIO_SECOND: seconds}


_REALTIME: Final[Fields] = {
    # How many there were of each, for whoever has to judge the sums.
    "responses": None,
    "transcriptions": None,
    "usage": {
        "input_tokens": None,
        "output_tokens": None,
        "total_tokens": None,
        "input_token_details": {
            **_OPENAI_INPUT,
            "cached_tokens_details": {"audio_tokens": None, "image_tokens": None, "text_tokens": None},
        },
        "output_token_details": _OPENAI_OUTPUT,
    },
    "transcribed": _TRANSCRIPTION,
}


def _realtime(session: Mapping[str, object]) -> dict[Meter, int]:
    """The sums of a session, as websocket.lua makes them: what its responses used, and the transcriptions of what was heard."""
    counts: dict[Meter, int] = {}
    if session.get("usage") is not None:
        counts = _responses_of_session(_nested(session, "usage"))
    if session.get("transcribed") is not None:
        for meter, count in _transcription(_nested(session, "transcribed")).items():
            counts[meter] = counts.get(meter, 0) + count
    return counts


def _responses_of_session(usage: Mapping[str, object]) -> dict[Meter, int]:
    """As Responses, but for the names of the details; and these say of which kind cached tokens are."""
    read = _nested(usage, "input_token_details")
    cached = _nested(read, "cached_tokens_details")
    cached_audio = _count(cached, "audio_tokens")
    uncached = {kind: _rest(_count(read, kind), _count(cached, kind)) for kind in ("audio_tokens", "image_tokens")}
    counts = _openai(
        {
            **usage,
            "input_tokens_details": {**read, **uncached},
            "output_tokens_details": usage.get("output_token_details"),
        },
        "input_tokens",
        "output_tokens",
    )
    return {
        **counts,
        Meter.CACHED_INPUT: _rest(counts[Meter.CACHED_INPUT], cached_audio),
        Meter.CACHED_AUDIO_INPUT: cached_audio,
    }


def answers_in_session(text: str) -> int:
    """How many responses and transcriptions the sums of a session are of.

    Raises:
        InvalidUsageError: not such sums.
    """
    session = _object(text)
    return _count(session, "responses") + _count(session, "transcriptions")


_RERANK: Final[Fields] = {"search_units": None, "input_tokens": None, "prompt_tokens": None, "total_tokens": None}


def _rerank(usage: Mapping[str, object]) -> dict[Meter, int]:
    """Cohere bills search units; others the tokens that are read, and name them in one way or another."""
    read = [_count(usage, name) for name in ("input_tokens", "prompt_tokens", "total_tokens")]
    return {Meter.INPUT: max(read), Meter.SEARCH_UNIT: _count(usage, "search_units")}


def _kinds(uncached: int, prompt: int, details: Mapping[str, object]) -> tuple[int, int]:
    """Tokens of audio and of images that came from no cache.

    A cached token is cached, whatever it stands for, and nobody says what it does: the dearer kinds are taken for uncached, as
    far as there is anything uncached.
    """
    audio, image = _count(details, "audio_tokens"), _count(details, "image_tokens")
    _rest(prompt, audio + image)
    audio = min(audio, uncached)
    return audio, min(image, uncached - audio)


_ANTHROPIC_CACHE: Final[Fields] = {"ephemeral_5m_input_tokens": None, "ephemeral_1h_input_tokens": None}
_ANTHROPIC_TOKENS: Final[Fields] = {
    "input_tokens": None,
    "cache_read_input_tokens": None,
    "cache_creation_input_tokens": None,
    "cache_creation": _ANTHROPIC_CACHE,
    "output_tokens": None,
    # A part of the output, charged like the rest of it.
    "output_tokens_details": {"thinking_tokens": None},
}
_ANTHROPIC: Final[Fields] = {
    **_ANTHROPIC_TOKENS,
    # Pages that were fetched cost the tokens they bring, which are in the input.
    "server_tool_use": {"web_search_requests": None, "web_fetch_requests": None},
    "iterations": None,
}
_GEO_AT_LIST_PRICE: Final = frozenset({None, "", "global", "not_available"})


def _anthropic(usage: Mapping[str, object]) -> dict[Meter, int]:
    geo = _text(usage, "inference_geo")
    if geo not in _GEO_AT_LIST_PRICE:
        raise UnknownUsageError("inference_geo: a place that has a price of its own")
    counts = _anthropic_tokens(usage)
    for each in _anthropic_compactions(usage):
        counts = {meter: count + counts[meter] for meter, count in _anthropic_tokens(each).items()}
    return {**counts, Meter.WEB_SEARCH: _count(_nested(usage, "server_tool_use"), "web_search_requests")}


def _anthropic_tokens(usage: Mapping[str, object]) -> dict[Meter, int]:
    by_lifetime = _nested(usage, "cache_creation")
    write_5m = _count(by_lifetime, "ephemeral_5m_input_tokens")
    write_1h = _count(by_lifetime, "ephemeral_1h_input_tokens")
    # The lifetime of what only the sum names is the shorter one, which is the default.
    write = write_5m + write_1h
    if usage.get("cache_creation_input_tokens") is not None:
        write += _rest(_count(usage, "cache_creation_input_tokens"), write)
    return {
        Meter.INPUT: _count(usage, "input_tokens", required=True),
        Meter.CACHED_INPUT: _count(usage, "cache_read_input_tokens"),
        Meter.CACHE_WRITE_5M: write - write_1h,
        Meter.CACHE_WRITE_1H: write_1h,
        Meter.OUTPUT: _count(usage, "output_tokens"),
    }


def _anthropic_compactions(usage: Mapping[str, object]) -> Iterable[Mapping[str, object]]:
    """What the model was asked besides: those iterations that the counts at the top do not include.

    They include iterations of type `message`. Others may be another model's, at prices of its own.
    """
    for each in _objects(usage, "iterations"):
        kind = each.get("type")
        if kind == "compaction":
            _refuse_unknown(each, _ANTHROPIC_TOKENS, "iterations.")
            yield each
        elif kind != "message":
            raise UnknownUsageError("iterations: one that is neither a message nor a compaction")


def _anthropic_tier(usage: Mapping[str, object]) -> str | None:
    """Fast mode has prices of its own, like a tier, and goes with none."""
    return "fast" if _text(usage, "speed") == "fast" else _text(usage, "service_tier")


_GEMINI: Final[Fields] = {
    "promptTokenCount": None,
    "cachedContentTokenCount": None,
    "toolUsePromptTokenCount": None,
    "candidatesTokenCount": None,
    "thoughtsTokenCount": None,
    "totalTokenCount": None,
    "promptTokensDetails": None,
    "cacheTokensDetails": None,
    "toolUsePromptTokensDetails": None,
    "candidatesTokensDetails": None,
}
_GEMINI_TEXT: Final = frozenset({"TEXT", "DOCUMENT"})
_GEMINI_IMAGE: Final = frozenset({"IMAGE", "VIDEO"})
"""A video is read as its frames."""


def _gemini(usage: Mapping[str, object]) -> dict[Meter, int]:
    prompt = _count(usage, "promptTokenCount", required=True)
    cached = _count(usage, "cachedContentTokenCount")
    tools = _count(usage, "toolUsePromptTokenCount")
    candidates = _count(usage, "candidatesTokenCount")
    thoughts = _count(usage, "thoughtsTokenCount")
    total = _count(usage, "totalTokenCount")
    parts = prompt + tools + candidates + thoughts
    if total > parts:
        raise UnknownUsageError("totalTokenCount: more than what is counted beside it")
    if total and total < parts:
        raise InvalidUsageError("the details of the usage are larger than its total")
    audio_read, image_read = _gemini_kinds(usage, "promptTokensDetails", prompt)
    audio_cached, image_cached = _gemini_kinds(usage, "cacheTokensDetails", cached)
    audio_tools, image_tools = _gemini_kinds(usage, "toolUsePromptTokensDetails", tools)
    audio_out, image_out = _gemini_kinds(usage, "candidatesTokensDetails", candidates)
    uncached = _rest(prompt, cached) + tools
    audio_in = min(_rest(audio_read, audio_cached) + audio_tools, uncached)
    image_in = min(_rest(image_read, image_cached) + image_tools, uncached - audio_in)
    return {
        Meter.INPUT: uncached - audio_in - image_in,
        Meter.CACHED_INPUT: cached - audio_cached,
        Meter.CACHED_AUDIO_INPUT: audio_cached,
        Meter.AUDIO_INPUT: audio_in,
        Meter.IMAGE_INPUT: image_in,
        Meter.OUTPUT: candidates - audio_out - image_out,
        Meter.REASONING: thoughts,
        Meter.AUDIO_OUTPUT: audio_out,
        Meter.IMAGE_OUTPUT: image_out,
    }


def _gemini_kinds(usage: Mapping[str, object], name: str, whole: int) -> tuple[int, int]:
    """Tokens of audio and of images in a list of counts by modality."""
    audio = image = 0
    for each in _objects(usage, name):
        count, modality = _count(each, "tokenCount"), each.get("modality")
        if modality == "AUDIO":
            audio += count
        elif modality in _GEMINI_IMAGE:
            image += count
        elif count and modality not in _GEMINI_TEXT:
            raise UnknownUsageError(f"{name}: a modality that is not known")
    _rest(whole, audio + image)
    return audio, image


def _refuse_unknown(found: Mapping[str, object], known: Fields, within: str = "") -> None:
    for name, value in found.items():
        if name not in known:
            if _is_deep_or_money(value):
                raise UnknownUsageError(f"{within}{_quotable(name)} counts something that is not known")
        elif (fields := known[name]) is not None and isinstance(value, dict):
            _refuse_unknown(value, fields, f"{name}.")


def _is_deep_or_money(value: object) -> bool:
    try:
        return _may_be_money(value)
    except RecursionError:
        return True


def _may_be_money(value: object) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return value != 0
    if isinstance(value, float):
        return value != 0 and value.is_integer()
    if isinstance(value, dict):
        return any(map(_may_be_money, value.values()))
    return isinstance(value, list) and any(map(_may_be_money, value))


_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,60}")


def _quotable(name: str) -> str:
    """The name of a field is the provider's text: told only if it looks like one."""
    return name if _NAME.fullmatch(name) else "a field"


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidUsageError("usage is not JSON") from error
    if not isinstance(value, dict):
        raise InvalidUsageError("usage is not a JSON object")
    return value


def _objects(usage: Mapping[str, object], name: str) -> Iterable[Mapping[str, object]]:
    found = usage.get(name)
    if found is None:
        return
    if not isinstance(found, list):
        raise InvalidUsageError(f"{name} is not a list")
    for each in found:
        if not isinstance(each, dict):
            raise InvalidUsageError(f"{name} is not a list of objects")
        yield each


def _nested(usage: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = usage.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidUsageError(f"{name} is not an object")
    return value


def _text(usage: Mapping[str, object], name: str) -> str | None:
    value = usage.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidUsageError(f"{name} is not a text")
    return value


def _count(usage: Mapping[str, object], name: str, *, required: bool = False) -> int:
    value = usage.get(name)
    if value is None and not required:
        return 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_TOKENS:
        raise InvalidUsageError(f"{name} is not a whole number from 0 to {MAX_TOKENS}")
    return value


def _begun(usage: Mapping[str, object], name: str) -> int:
    """A number with or without a fraction, rounded up."""
    value = usage.get(name)
    if isinstance(value, float) and 0 <= value <= MAX_TOKENS:
        value = math.ceil(value)
    return _count({name: value}, name)


def _rest(whole: int, parts: int) -> int:
    if parts > whole:
        raise InvalidUsageError("the details of the usage are larger than its total")
    return whole - parts
