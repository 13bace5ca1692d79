"""LiteLLM's `model_prices_and_context_window.json`. Pure.

An object of entries by model, some of whose names begin with the provider's and a slash. Costs are US dollars per token. A
field that ends in `_above_<n>k_tokens` holds for requests with more input than that.

Source: the schema and the specimen entry that LiteLLM publishes beside the file.
"""

import re
from collections.abc import Iterator, Mapping
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

_NO_MODELS: Final = frozenset({"sample_spec", "fallback_generalizations"})

_METER_BY_FIELD: Final[Mapping[str, Meter]] = {
    "input_cost_per_token": Meter.INPUT,
    "cache_read_input_token_cost": Meter.CACHED_INPUT,
    "cache_creation_input_token_cost": Meter.CACHE_WRITE_5M,
    "cache_creation_input_token_cost_above_1hr": Meter.CACHE_WRITE_1H,
    "output_cost_per_token": Meter.OUTPUT,
    "output_cost_per_reasoning_token": Meter.REASONING,
    "input_cost_per_audio_token": Meter.AUDIO_INPUT,
    "output_cost_per_audio_token": Meter.AUDIO_OUTPUT,
    "input_cost_per_image_token": Meter.IMAGE_INPUT,
    "output_cost_per_image_token": Meter.IMAGE_OUTPUT,
}
_TIER: Final = re.compile(r"(?P<field>\w+)_above_(?P<thousands>[1-9][0-9]{0,5})k_tokens")
_CAPABILITY: Final = re.compile(r"supports_(?P<name>[a-z0-9][a-z0-9_]{0,39})")
_SERVED_MODE: Final = "chat"


def _entries(content: Json) -> Iterator[Entry | SkipError]:
    for name, fields in content.items():
        if name in _NO_MODELS:
            continue
        provider = fields.get("litellm_provider") if isinstance(fields, Mapping) else None
        if isinstance(fields, Mapping) and isinstance(provider, str) and provider:
            yield Entry((name,), provider, name.removeprefix(provider + "/"), fields)
        else:
            yield SkipError((name,), "names no provider")


def _read(entry: Entry) -> Listing:
    fields, notes = entry.fields, list[Skipped]()
    if fields.get("mode") != _SERVED_MODE:
        raise SkipError((*entry.steps, "mode"), "only models for chat are taken over")
    context_tokens = count(fields, "max_input_tokens", "max_tokens")
    max_output_tokens = count(fields, "max_output_tokens", "max_tokens")
    if context_tokens is None or max_output_tokens is None:
        raise SkipError(entry.steps, "does not say how many tokens it reads and writes")
    kind = next((kind for kind in ProviderKind if kind == entry.provider), None)
    supported = (_CAPABILITY.fullmatch(name) for name, value in fields.items() if value is True)
    return Listing(
        kind=kind or ProviderKind.OPENAI_COMPATIBLE,
        base_url=None if kind is None else TEMPLATES[kind].fixed_base_url,
        owned_by=entry.provider,
        context_tokens=context_tokens,
        max_output_tokens=max_output_tokens,
        capabilities=tuple(sorted(match["name"] for match in supported if match)),
        deprecated_at=date(fields, "deprecation_date", entry.steps, notes),
        rates=_rates(entry, notes),
        notes=notes,
    )


def _rates(entry: Entry, notes: list[Skipped]) -> Rates:
    rates: Rates = {}
    for name, value in entry.fields.items():
        tier = _TIER.fullmatch(name)
        meter = _METER_BY_FIELD.get(tier["field"] if tier else name)
        if value is None or ("cost" not in name and name != "tiered_pricing"):
            continue
        if meter is not None:
            bound = int(tier["thousands"]) * 1000 if tier else None
            rates[meter, bound] = exact_rate(value, (*entry.steps, name))
        elif value:
            notes.append(Skipped(pointer=pointer((*entry.steps, name)), reason="nothing is charged by it here"))
    for meter in (Meter.INPUT, Meter.OUTPUT):
        if (meter, None) not in rates:
            raise SkipError(entry.steps, f"has no price for {meter} tokens")
    for meter, bound in [key for key in rates if (key[0], None) not in rates]:
        notes.append(Skipped(pointer=pointer(entry.steps), reason=f"{meter} has a price above {bound} tokens only"))
        del rates[meter, bound]
    return rates


LITELLM: Final = PriceList(_entries, _read)
