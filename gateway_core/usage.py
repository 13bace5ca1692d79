"""What a provider says was used, as disjoint meters.

The one place that knows how each dialect counts: OpenAI counts cached tokens inside the prompt and reasoning inside the
completion, Anthropic counts cached tokens beside the input. Pure.

Sources: the usage objects in the API references of OpenAI (chat completions) and Anthropic (messages).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway_core.endpoints import Dialect

MAX_TOKENS: Final = 1_000_000_000
"""A count above this is a fault of the provider, not a bill."""


class Meter(StrEnum):
    """Things that are counted and priced. Disjoint: no token is in two of them.

    All count tokens but `request`, which is the request itself: one, where a price is asked for it.
    """

    INPUT = "input"
    CACHED_INPUT = "cached_input"
    CACHE_WRITE_5M = "cache_write_5m"
    CACHE_WRITE_1H = "cache_write_1h"
    OUTPUT = "output"
    REASONING = "reasoning"
    AUDIO_INPUT = "audio_input"
    AUDIO_OUTPUT = "audio_output"
    IMAGE_INPUT = "image_input"
    IMAGE_OUTPUT = "image_output"
    REQUEST = "request"


INPUT_METERS: Final = (
    Meter.INPUT,
    Meter.CACHED_INPUT,
    Meter.CACHE_WRITE_5M,
    Meter.CACHE_WRITE_1H,
    Meter.AUDIO_INPUT,
    Meter.IMAGE_INPUT,
)
OUTPUT_METERS: Final = (Meter.OUTPUT, Meter.REASONING, Meter.AUDIO_OUTPUT, Meter.IMAGE_OUTPUT)
TOKEN_METERS: Final = tuple(meter for meter in Meter if meter in {*INPUT_METERS, *OUTPUT_METERS})


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts per meter, each above zero; a meter that is absent counts zero."""

    counts: Mapping[Meter, int]

    @property
    def total_tokens(self) -> int:
        """All tokens of all meters."""
        return sum(self.counts.get(meter, 0) for meter in TOKEN_METERS)

    @property
    def input_tokens(self) -> int:
        """All tokens the model read, from caches or not."""
        return sum(self.counts.get(meter, 0) for meter in INPUT_METERS)


class InvalidUsageError(ValueError):
    """A usage object that contradicts itself or is not of the dialect's shape. The message never quotes it."""


def parse_usage(dialect: Dialect, first: str, last: str | None = None) -> Usage:
    """Read a provider's raw usage objects.

    Args:
        dialect: the dialect of the answer, which is the dialect of the endpoint.
        first: JSON text of the first usage object of the answer.
        last: JSON text of the last one, when there were several. It wins field by field, because later objects of a
            stream are running totals; Anthropic's last one names only what changed, or has null for what did not.

    Returns:
        Disjoint counts whose sum is the provider's own total.

    Raises:
        InvalidUsageError: not an object of integers >= 0, or parts larger than their whole.
    """
    changed = _object(last) if last is not None else {}
    merged = _object(first) | {name: value for name, value in changed.items() if value is not None}
    counts = _openai(merged) if dialect is Dialect.OPENAI else _anthropic(merged)
    return Usage({meter: count for meter, count in counts.items() if count})


def _openai(usage: Mapping[str, object]) -> dict[Meter, int]:
    prompt_details = _nested(usage, "prompt_tokens_details")
    completion_details = _nested(usage, "completion_tokens_details")
    cached = _count(prompt_details, "cached_tokens")
    audio_in = _count(prompt_details, "audio_tokens")
    reasoning = _count(completion_details, "reasoning_tokens")
    audio_out = _count(completion_details, "audio_tokens")
    prompt = _count(usage, "prompt_tokens", required=True)
    completion = _count(usage, "completion_tokens")
    # Some count reasoning inside the completion, as OpenAI does; some beside it; and Gemini's compatible endpoint counts it in
    # the total only. A total below the sum is one of an earlier chunk.
    surplus = max(0, _count(usage, "total_tokens") - prompt - completion)
    is_beside = reasoning > completion or (reasoning > 0 and reasoning == surplus)
    inside = 0 if is_beside else reasoning
    return {
        Meter.INPUT: _rest(prompt, cached + audio_in),
        Meter.CACHED_INPUT: cached,
        Meter.AUDIO_INPUT: audio_in,
        Meter.OUTPUT: _rest(completion, inside + audio_out),
        Meter.REASONING: max(reasoning, surplus) if is_beside else reasoning + surplus,
        Meter.AUDIO_OUTPUT: audio_out,
    }


def _anthropic(usage: Mapping[str, object]) -> dict[Meter, int]:
    cache_write = _count(usage, "cache_creation_input_tokens")
    write_1h = _count(_nested(usage, "cache_creation"), "ephemeral_1h_input_tokens")
    return {
        Meter.INPUT: _count(usage, "input_tokens", required=True),
        Meter.CACHED_INPUT: _count(usage, "cache_read_input_tokens"),
        Meter.CACHE_WRITE_5M: _rest(cache_write, write_1h),
        Meter.CACHE_WRITE_1H: write_1h,
        Meter.OUTPUT: _count(usage, "output_tokens"),
    }


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidUsageError("usage is not JSON") from error
    if not isinstance(value, dict):
        raise InvalidUsageError("usage is not a JSON object")
    return value


def _nested(usage: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = usage.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidUsageError(f"{name} is not an object")
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


def _rest(whole: int, parts: int) -> int:
    if parts > whole:
        raise InvalidUsageError("the details of the usage are larger than its total")
    return whole - parts
