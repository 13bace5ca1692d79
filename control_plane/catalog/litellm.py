"""LiteLLM's `model_prices_and_context_window.json`. Pure.

An object of entries by model, some of whose names begin with the provider's and a slash. Costs are US dollars per token. A
field that ends in `_above_<n>k_tokens` holds for requests with more input than that.

Source: the schema and the specimen entry that LiteLLM publishes beside the file.
"""

import re
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
from gateway_core.endpoints import FACTS, SOLD_UNLESS_TOLD, Endpoint
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
_ENDPOINTS_BY_MODE: Final[Mapping[str, tuple[Endpoint, ...]]] = {
    "chat": SOLD_UNLESS_TOLD,
    "responses": (Endpoint.RESPONSES,),
    "completion": (Endpoint.COMPLETIONS,),
    "embedding": (Endpoint.EMBEDDINGS,),
    "moderation": (Endpoint.MODERATIONS,),
    "rerank": (Endpoint.RERANK,),
    "image_generation": (Endpoint.IMAGES,),
    "audio_speech": (Endpoint.SPEECH,),
}
_METERS_BY_ENDPOINT: Final[Mapping[Endpoint, Mapping[str, Meter]]] = {
    Endpoint.RERANK: {"input_cost_per_query": Meter.SEARCH_UNIT},
    # What a picture costs stands in one field or the other.
    Endpoint.IMAGES: {"input_cost_per_image": Meter.IMAGE, "output_cost_per_image": Meter.IMAGE},
    Endpoint.SPEECH: {"input_cost_per_character": Meter.CHARACTER},
}
_UNTOLD_CONTEXT_TOKENS: Final = 1_000_000
"""What reads no conversation is not bounded by how much it reads; the size of a request is."""
_UNTOLD_OUTPUT_TOKENS: Final[Mapping[Endpoint, int]] = {
    # The dearest picture for which OpenAI publishes a number of tokens.
    Endpoint.IMAGES: 6_240,
    # Of a quarter of an hour.
    Endpoint.SPEECH: 20_000,
    **dict.fromkeys((Endpoint.EMBEDDINGS, Endpoint.MODERATIONS, Endpoint.RERANK), 1),
}


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
    mode = fields.get("mode")
    if not isinstance(mode, str) or mode not in _ENDPOINTS_BY_MODE:
        raise SkipError((*entry.steps, "mode"), "there is no endpoint for it")
    endpoints = _ENDPOINTS_BY_MODE[mode]
    told = fields.get("supported_endpoints")
    if mode == "chat" and isinstance(told, list) and FACTS[Endpoint.RESPONSES].path in told:
        endpoints = (*endpoints, Endpoint.RESPONSES)
    first = endpoints[0]
    context_tokens = count(fields, "max_input_tokens", "max_tokens")
    max_output_tokens = _UNTOLD_OUTPUT_TOKENS.get(first) or count(fields, "max_output_tokens", "max_tokens")
    if context_tokens is None and first in _UNTOLD_OUTPUT_TOKENS:
        context_tokens = _UNTOLD_CONTEXT_TOKENS
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
        rates=_rates(entry, endpoints, notes),
        endpoints=endpoints,
        notes=notes,
    )


def _rates(entry: Entry, endpoints: Sequence[Endpoint], notes: list[Skipped]) -> Rates:
    rates: Rates = {}
    meters = {**_METER_BY_FIELD, **_METERS_BY_ENDPOINT.get(endpoints[0], {})}
    for name, value in entry.fields.items():
        tier = _TIER.fullmatch(name)
        meter = meters.get(tier["field"] if tier else name)
        if value is None or ("cost" not in name and name != "tiered_pricing"):
            continue
        if meter is not None:
            bound = int(tier["thousands"]) * 1000 if tier else None
            rates[meter, bound] = exact_rate(value, (*entry.steps, name))
        elif value:
            notes.append(Skipped(pointer=pointer((*entry.steps, name)), reason="nothing is charged by it here"))
    if Endpoint.MODERATIONS in endpoints and not any(rates.values()):
        # Counted by nothing but their number, and free.
        rates = {(Meter.REQUEST, None): 0}
    if (Meter.SEARCH_UNIT, None) in rates:
        # Tokens at nothing are how the list says that they are not what is charged.
        rates = {key: rate for key, rate in rates.items() if rate}
    if FACTS[endpoints[0]].output is Meter.OUTPUT:
        for meter in (Meter.INPUT, Meter.OUTPUT):
            if (meter, None) not in rates:
                raise SkipError(entry.steps, f"has no price for {meter} tokens")
    elif not FACTS[endpoints[0]].is_priced({meter for meter, bound in rates if bound is None}):
        raise SkipError(entry.steps, f"has no price that {endpoints[0]} can be charged by")
    for meter, bound in [key for key in rates if (key[0], None) not in rates]:
        notes.append(Skipped(pointer=pointer(entry.steps), reason=f"{meter} has a price above {bound} tokens only"))
        del rates[meter, bound]
    return rates


LITELLM: Final = PriceList(_entries, _read)
