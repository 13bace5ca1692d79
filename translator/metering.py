"""Usage from a provider's dialect to a client's, with every meter kept. Pure.

`gateway_core.provider_usage` is the one reader; here is what writes. Envoy's front filter takes the usage out of the translated
answer and billing_sink reads it in the client's dialect, so `parse_usage(client, written)` has to be what
`parse_usage(provider, raw)` was. A meter that the client's dialect has no field for stands in `tollgate_meters` beside the rest.
"""

from collections.abc import Mapping
from typing import Final

from gateway_core.endpoints import Dialect
from gateway_core.provider_usage import TRANSLATED_METERS, InvalidUsageError, UnknownUsageError, parse_usage
from gateway_core.usage import INPUT_METERS, OUTPUT_METERS, STANDARD, InvalidTierError, Meter, Usage
from translator.json_values import Json, JsonObject, compact
from translator.reply import Metered, Unpriced

UNREAD: Final = "provider_usage"
"""Where a usage stands that could not be read: as it came, so that billing_sink sets the request aside with its evidence."""

_OPENAI: Final = frozenset(
    {
        Meter.INPUT,
        Meter.CACHED_INPUT,
        Meter.CACHE_WRITE_30M,
        Meter.CACHE_WRITE_12H,
        Meter.AUDIO_INPUT,
        Meter.IMAGE_INPUT,
        Meter.OUTPUT,
        Meter.REASONING,
        Meter.AUDIO_OUTPUT,
        Meter.IMAGE_OUTPUT,
    }
)
_ANTHROPIC: Final = frozenset(
    {
        Meter.INPUT,
        Meter.CACHED_INPUT,
        Meter.CACHE_WRITE_5M,
        Meter.CACHE_WRITE_1H,
        Meter.OUTPUT,
        Meter.WEB_SEARCH,
    }
)
_GEMINI: Final = frozenset(
    {
        Meter.INPUT,
        Meter.CACHED_INPUT,
        Meter.CACHED_AUDIO_INPUT,
        Meter.AUDIO_INPUT,
        Meter.IMAGE_INPUT,
        Meter.OUTPUT,
        Meter.REASONING,
        Meter.AUDIO_OUTPUT,
        Meter.IMAGE_OUTPUT,
    }
)
_WRITES: Final = (Meter.CACHE_WRITE_5M, Meter.CACHE_WRITE_30M, Meter.CACHE_WRITE_1H, Meter.CACHE_WRITE_12H)
_CACHED: Final = (Meter.CACHED_INPUT, Meter.CACHED_AUDIO_INPUT)


def metered(
    dialect: Dialect, first: JsonObject | None, last: JsonObject | None = None, tier: str | None = None
) -> Metered:
    """What a provider's usage objects say; see `parse_usage`."""
    if first is None:
        return None
    try:
        return parse_usage(dialect, compact(first), None if last is None else compact(last), tier=tier)
    except (InvalidUsageError, UnknownUsageError, InvalidTierError):
        return Unpriced(first if last is None else {**first, **last})


def tier_of(usage: Metered) -> str | None:
    """The tier as it is named beside an OpenAI-shaped usage; None for the standard one."""
    return usage.service_tier if isinstance(usage, Usage) and usage.service_tier != STANDARD else None


def chat_usage(usage: Usage | Unpriced) -> JsonObject:
    """In the shape of chat completions."""
    return _openai(usage, "prompt_tokens", "completion_tokens")


def responses_usage(usage: Usage | Unpriced) -> JsonObject:
    """In the shape of the Responses API."""
    return _openai(usage, "input_tokens", "output_tokens")


def messages_usage(usage: Usage | Unpriced) -> JsonObject:
    """In the shape of Anthropic's messages, where cached tokens are beside the input."""
    if isinstance(usage, Unpriced):
        return {"input_tokens": 0, "output_tokens": 0, UNREAD: _unread(usage)}
    counts = usage.counts
    writes = _sum(counts, _WRITES)
    written_1h = _sum(counts, (Meter.CACHE_WRITE_1H, Meter.CACHE_WRITE_12H))
    cached = _sum(counts, _CACHED)
    searches = counts.get(Meter.WEB_SEARCH, 0)
    return {
        "input_tokens": _sum(counts, INPUT_METERS) - cached - writes,
        "cache_creation_input_tokens": writes,
        "cache_read_input_tokens": cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": writes - written_1h,
            "ephemeral_1h_input_tokens": written_1h,
        },
        "output_tokens": _sum(counts, OUTPUT_METERS),
        "service_tier": usage.service_tier,
        **({"server_tool_use": {"web_search_requests": searches}} if searches else {}),
        **_what_has_no_field(counts, _ANTHROPIC),
    }


def gemini_usage(usage: Usage | Unpriced) -> JsonObject:
    """In the shape of Gemini's generateContent, where thoughts are beside the rest of the output."""
    if isinstance(usage, Unpriced):
        return {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0, UNREAD: _unread(usage)}
    counts = usage.counts
    read, written = _sum(counts, INPUT_METERS), _sum(counts, OUTPUT_METERS)
    cached, thoughts = _sum(counts, _CACHED), counts.get(Meter.REASONING, 0)
    cached_audio = counts.get(Meter.CACHED_AUDIO_INPUT, 0)
    found: JsonObject = {
        "promptTokenCount": read,
        "candidatesTokenCount": written - thoughts,
        "totalTokenCount": read + written,
    }
    _put(found, "cachedContentTokenCount", cached)
    _put(found, "thoughtsTokenCount", thoughts)
    for name, audio, image in (
        ("promptTokensDetails", cached_audio + counts.get(Meter.AUDIO_INPUT, 0), counts.get(Meter.IMAGE_INPUT, 0)),
        ("cacheTokensDetails", cached_audio, 0),
        ("candidatesTokensDetails", counts.get(Meter.AUDIO_OUTPUT, 0), counts.get(Meter.IMAGE_OUTPUT, 0)),
    ):
        kinds: list[Json] = [
            {"modality": kind, "tokenCount": count} for kind, count in (("AUDIO", audio), ("IMAGE", image)) if count
        ]
        if kinds:
            found[name] = kinds
    tier: JsonObject = {} if usage.service_tier == STANDARD else {"serviceTier": usage.service_tier}
    return {**found, **tier, **_what_has_no_field(counts, _GEMINI)}


def _openai(usage: Usage | Unpriced, read_name: str, written_name: str) -> JsonObject:
    if isinstance(usage, Unpriced):
        return {
            read_name: 0,
            f"{read_name}_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            written_name: 0,
            f"{written_name}_details": {"reasoning_tokens": 0},
            "total_tokens": 0,
            UNREAD: _unread(usage),
        }
    counts = usage.counts
    read, written = _sum(counts, INPUT_METERS), _sum(counts, OUTPUT_METERS)
    writes, written_12h = _sum(counts, _WRITES), counts.get(Meter.CACHE_WRITE_12H, 0)
    details: JsonObject = {"cached_tokens": _sum(counts, _CACHED), "cache_write_tokens": writes}
    if written_12h:
        details["cache_write_tokens_details"] = {"ttl_12h_tokens": written_12h}
    _put(details, "audio_tokens", counts.get(Meter.AUDIO_INPUT, 0))
    _put(details, "image_tokens", counts.get(Meter.IMAGE_INPUT, 0))
    details_written: JsonObject = {"reasoning_tokens": counts.get(Meter.REASONING, 0)}
    _put(details_written, "audio_tokens", counts.get(Meter.AUDIO_OUTPUT, 0))
    _put(details_written, "image_tokens", counts.get(Meter.IMAGE_OUTPUT, 0))
    return {
        read_name: read,
        f"{read_name}_details": details,
        written_name: written,
        f"{written_name}_details": details_written,
        "total_tokens": read + written,
        **_what_has_no_field(counts, _OPENAI),
    }


def _unread(usage: Unpriced) -> JsonObject:
    # The count is one that no reader knows, so none takes the rest for nothing.
    return {"unread": 1, "raw": usage.raw}


def _sum(counts: Mapping[Meter, int], meters: tuple[Meter, ...]) -> int:
    return sum(counts.get(meter, 0) for meter in meters)


def _put(details: JsonObject, name: str, count: int) -> None:
    if count:
        details[name] = count


def _what_has_no_field(counts: Mapping[Meter, int], expressed: frozenset[Meter]) -> JsonObject:
    if counts.keys() <= expressed:
        return {}
    all_of_them: dict[str, Json] = {str(meter): count for meter, count in counts.items()}
    return {TRANSLATED_METERS: all_of_them}
