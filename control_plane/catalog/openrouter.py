"""OpenRouter's answer to `GET /api/v1/models`. Pure.

Prices are US dollars per unit, as decimal strings. What is not billed apart is there as zero, so only `prompt` and
`completion` can mean that something is free. An entry of `overrides` holds from its `min_prompt_tokens` on; later ones win.

Source: OpenRouter's API reference, `Model` and `Pricing`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from control_plane.catalog.kinds import TEMPLATES
from control_plane.catalog.price_list import (
    Entry,
    Json,
    Listing,
    PriceList,
    Rates,
    SkipError,
    Skipped,
    count,
    date,
    exact_rate,
)
from control_plane.errors import pointer
from gateway_core.providers import ProviderKind
from gateway_core.usage import Meter

PROVIDER: Final = "openrouter"

_REQUIRED: Final[Mapping[str, Meter]] = {"prompt": Meter.INPUT, "completion": Meter.OUTPUT}
_METER_BY_FIELD: Final[Mapping[str, Meter]] = {
    **_REQUIRED,
    "input_cache_read": Meter.CACHED_INPUT,
    "input_cache_write": Meter.CACHE_WRITE_5M,
    "input_cache_write_1h": Meter.CACHE_WRITE_1H,
    "internal_reasoning": Meter.REASONING,
    "audio": Meter.AUDIO_INPUT,
    "audio_output": Meter.AUDIO_OUTPUT,
    "image_token": Meter.IMAGE_INPUT,
    "request": Meter.REQUEST,
}
_OVERRIDES: Final = "overrides"
_FROM_TOKENS: Final = "min_prompt_tokens"
_ZEROES: Final = (None, 0, "", "0")

_CAPABILITY_BY_PARAMETER: Final = {
    "tools": "function_calling",
    "structured_outputs": "response_schema",
    "reasoning": "reasoning",
}
_CAPABILITY_BY_INPUT: Final = {"image": "vision", "audio": "audio_input", "video": "video_input", "file": "pdf_input"}


def _entries(content: Json) -> Iterator[Entry | SkipError]:
    models = content.get("data")
    if not isinstance(models, list):
        raise SkipError(("data",), "must be the list of models")
    for number, fields in enumerate(models):
        steps = ("data", number)
        name = fields.get("id") if isinstance(fields, Mapping) else None
        if isinstance(fields, Mapping) and isinstance(name, str) and name:
            yield Entry(steps, PROVIDER, name, fields)
        else:
            yield SkipError(steps, "has no id")


def _read(entry: Entry) -> Listing:
    fields, notes = entry.fields, list[Skipped]()
    architecture = _object(fields, "architecture")
    if "text" not in (_texts(architecture, "output_modalities") or ["text"]):
        raise SkipError((*entry.steps, "architecture", "output_modalities"), "writes no text")
    context_tokens = count(fields, "context_length")
    if context_tokens is None:
        raise SkipError(entry.steps, "does not say how many tokens it reads")
    return Listing(
        kind=ProviderKind.OPENROUTER,
        base_url=TEMPLATES[ProviderKind.OPENROUTER].fixed_base_url,
        owned_by=entry.model.partition("/")[0],
        context_tokens=context_tokens,
        max_output_tokens=count(_object(fields, "top_provider"), "max_completion_tokens") or context_tokens,
        capabilities=_capabilities(fields, architecture),
        deprecated_at=date(fields, "expiration_date", entry.steps, notes),
        rates=_rates(_object(fields, "pricing"), (*entry.steps, "pricing"), notes),
        notes=notes,
    )


def _capabilities(fields: Json, architecture: Json) -> tuple[str, ...]:
    found = {_CAPABILITY_BY_PARAMETER.get(name) for name in _texts(fields, "supported_parameters")}
    found |= {_CAPABILITY_BY_INPUT.get(name) for name in _texts(architecture, "input_modalities")}
    return tuple(sorted(name for name in found if name is not None))


def _rates(pricing: Json, steps: tuple[str | int, ...], notes: list[Skipped]) -> Rates:
    for name in _REQUIRED:
        if name not in pricing:
            raise SkipError(steps, f"has no price for {_REQUIRED[name]} tokens")
    rates = _rates_from(pricing, None, steps, notes)
    overrides = pricing.get(_OVERRIDES) or ()
    for number, override in enumerate(overrides if isinstance(overrides, list) else ()):
        place = (*steps, _OVERRIDES, number)
        bound = count(override, _FROM_TOKENS) if isinstance(override, Mapping) else None
        if bound is None or bound < 2 or not set(override) <= {_FROM_TOKENS, *_METER_BY_FIELD}:  # noqa: PLR2004 - see below
            notes.append(Skipped(pointer=pointer(place), reason="a condition that is not known here"))
            continue
        # From 200,000 on is above 199,999.
        tier = _rates_from({name: override[name] for name in override if name != _FROM_TOKENS}, bound - 1, place, notes)
        rates |= {(meter, above): rate for (meter, above), rate in tier.items() if (meter, None) in rates}
    return rates


def _rates_from(pricing: Json, bound: int | None, steps: tuple[str | int, ...], notes: list[Skipped]) -> Rates:
    rates: Rates = {}
    for name, value in pricing.items():
        meter = _METER_BY_FIELD.get(name)
        if meter is not None and (name in _REQUIRED or value not in _ZEROES):
            rate = exact_rate(value, (*steps, name))
            if rate or name in _REQUIRED:
                rates[meter, bound] = rate
        elif meter is None and name != _OVERRIDES and value not in _ZEROES:
            notes.append(Skipped(pointer=pointer((*steps, name)), reason="nothing is charged by it here"))
    return rates


def _object(fields: Json, name: str) -> Json:
    found = fields.get(name)
    return found if isinstance(found, Mapping) else {}


def _texts(fields: Json, name: str) -> Sequence[str]:
    found = fields.get(name)
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


OPENROUTER: Final = PriceList(_entries, _read)
