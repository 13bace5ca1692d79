"""What a request used, as disjoint meters, and the service tier it was served at. Nouns only; `provider_usage` reads them. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

MAX_TOKENS: Final = 1_000_000_000
"""A count above this is a fault of the provider, not a bill."""


BYTES_PER_TOKEN: Final = 4
"""Of a usual text, where nobody has counted."""

HTTP_OK: Final = range(200, 300)
"""Only an answer with such a status has used anything; see `gateway_core.endpoints.Facts.is_answered`."""

SWITCHED: Final = 101
"""The same of a session."""


class Meter(StrEnum):
    """Things that are counted and priced. Disjoint: no token is in two of them.

    A new one needs a line here and nothing else: prices, rows and ClickHouse keep meters by name.
    """

    INPUT = "input"
    CACHED_INPUT = "cached_input"
    CACHED_AUDIO_INPUT = "cached_audio_input"
    CACHE_WRITE_5M = "cache_write_5m"
    CACHE_WRITE_30M = "cache_write_30m"
    CACHE_WRITE_1H = "cache_write_1h"
    CACHE_WRITE_12H = "cache_write_12h"
    OUTPUT = "output"
    REASONING = "reasoning"
    AUDIO_INPUT = "audio_input"
    AUDIO_OUTPUT = "audio_output"
    IMAGE_INPUT = "image_input"
    IMAGE_OUTPUT = "image_output"
    WEB_SEARCH = "web_search"
    """Searches that the provider made for the request; no tokens."""
    IMAGE = "image"
    """Pictures that the request asks for."""
    CHARACTER = "character"
    """Characters of the text that the request wants to hear."""
    SEARCH_UNIT = "search_unit"
    """What providers of reranking count: a query with up to 100 documents, or parts of long ones."""
    AUDIO_SECOND = "audio_second"
    """Seconds of sound that the model heard, where it is not tokens of them that are counted."""
    REQUEST = "request"
    """The request itself: one, where a price is asked for it."""


INPUT_METERS: Final = (
    Meter.INPUT,
    Meter.CACHED_INPUT,
    Meter.CACHED_AUDIO_INPUT,
    Meter.CACHE_WRITE_5M,
    Meter.CACHE_WRITE_30M,
    Meter.CACHE_WRITE_1H,
    Meter.CACHE_WRITE_12H,
    Meter.AUDIO_INPUT,
    Meter.IMAGE_INPUT,
)
OUTPUT_METERS: Final = (Meter.OUTPUT, Meter.REASONING, Meter.AUDIO_OUTPUT, Meter.IMAGE_OUTPUT)
TOKEN_METERS: Final = tuple(meter for meter in Meter if meter in {*INPUT_METERS, *OUTPUT_METERS})
_INPUT: Final = frozenset(INPUT_METERS)
_TOKENS: Final = frozenset(TOKEN_METERS)
PROVIDER_METERS: Final = (*TOKEN_METERS, Meter.WEB_SEARCH, Meter.SEARCH_UNIT, Meter.AUDIO_SECOND)
"""What a provider counts; the request itself, and what it asks for, are counted here."""
ASKED_METERS: Final = (Meter.IMAGE, Meter.CHARACTER)
"""What a request asks for, counted before a provider hears of it."""

ServiceTier = NewType("ServiceTier", str)
"""How fast or how cheaply a provider serves a request, in its own word: `flex`, `priority`, `batch`, ..."""

STANDARD: Final = ServiceTier("standard")
"""The tier of prices that name none."""

BATCH: Final = ServiceTier("batch")
"""That of all lines of a batch, whatever the answers say."""

_AS_STANDARD: Final = frozenset({"", "auto", "default", "standard", "standard_only", "on_demand", "unspecified"})
_ALIASES: Final[Mapping[str, str]] = {"fast": "priority"}
"""Asked for by one word, served and priced under the other."""
_OPEN: Final = frozenset({"", "auto"})
_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


class InvalidTierError(ValueError):
    """What stands in the place of a service tier is no word that one could have. The message never quotes it."""


def service_tier(text: str | None) -> ServiceTier:
    """The tier that a provider's word stands for; the standard one where nothing is said.

    Raises:
        InvalidTierError: it is not a word.
    """
    word = (text or "").lower().removeprefix("on_demand_")
    if word in _AS_STANDARD:
        return STANDARD
    if not _WORD.fullmatch(word):
        raise InvalidTierError("the service tier is not a word")
    return ServiceTier(word)


def asked_service_tier(text: str | None) -> ServiceTier | None:
    """The tier that a request asks for; None if it leaves the choice to the provider.

    Raises:
        InvalidTierError: it is not a word.
    """
    word = (text or "").lower()
    return None if word in _OPEN else service_tier(_ALIASES.get(word, word))


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts per meter, each above zero; a meter that is absent counts zero."""

    counts: Mapping[Meter, int]
    service_tier: ServiceTier = STANDARD

    @property
    def total_tokens(self) -> int:
        """All tokens of all meters."""
        return sum(count for meter, count in self.counts.items() if meter in _TOKENS)

    @property
    def input_tokens(self) -> int:
        """All tokens the model read, from caches or not."""
        return sum(count for meter, count in self.counts.items() if meter in _INPUT)
