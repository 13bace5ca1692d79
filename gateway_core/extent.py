"""How much a request can come to, by what is known of it before it is sent: what is held for it covers that. Pure."""

from typing import Final, Protocol

from gateway_core.endpoints import CountedBy, Dialect, Facts
from gateway_core.pricing import PriceRow, Terms, WorstCase, worst_case
from gateway_core.usage import Meter, ServiceTier

SEARCHES_HELD: Final = 10
"""A request that may search can do so without a bound of ours: so many are held for, and those beyond pay from what is free."""

DOCUMENTS_PER_SEARCH_UNIT: Final = 100
BYTES_PER_DOCUMENT: Final = 250
"""A long document is counted once for each of its parts; none is shorter than this, whatever the query takes of it."""

SOUND_BITS_PER_SECOND: Final = 6000
"""Speech takes no less in any format that is in use: this is what Opus is made for at the least. Whoever sends hours of silence, which take
next to nothing, is charged for them beyond the hold, like all that a provider counts beyond one."""
TOKENS_PER_PICTURE: Final = 10_000
"""Of one that is to be edited. OpenAI publishes 6,240 for the closest look it takes, beside 194 to 452 for the first one."""


class Extent(Protocol):
    """What is known of a request."""

    @property
    def body_bytes(self) -> int:
        """Length of the body; no tokenizer makes more tokens than bytes of it."""

    @property
    def has_references(self) -> bool:
        """Whether the body names images, files or documents that are not in it."""

    @property
    def max_output_tokens(self) -> int | None:
        """What the client asks for per choice, at most; None if it says nothing."""

    @property
    def choices(self) -> int:
        """How many answers it asks for, at least 1; of a session: how many responses are held for."""

    @property
    def files(self) -> int:
        """How many a form brings."""

    @property
    def file_bytes(self) -> int:
        """Of the body; all else is text."""

    @property
    def units(self) -> int:
        """How many pictures, characters or inputs; 0 where there is nothing of it."""

    @property
    def query_bytes(self) -> int:
        """Length of the query that is read with each document of a reranking."""

    @property
    def may_search(self) -> bool:
        """Whether the provider may make searches for it."""


def is_asked(price: PriceRow, facts: Facts) -> bool:
    """Whether a request is charged by what it asks for."""
    return price.counts(facts.asked)


def answers(extent: Extent, facts: Facts) -> int:
    """How many there may be, each of the output below."""
    return max(1, extent.units) if facts.output is Meter.IMAGE_OUTPUT else extent.choices


def output_tokens(extent: Extent, facts: Facts, model_max: int) -> int:
    """Of each answer, at most."""
    if facts.output is None:
        return 0
    return model_max if extent.max_output_tokens is None else min(model_max, extent.max_output_tokens)


def input_tokens(extent: Extent, facts: Facts, context_tokens: int) -> int:
    """That may be read, at most."""
    if facts.is_session:
        # Each response may read all that was said.
        return context_tokens * extent.choices
    if facts.dialect is Dialect.TRANSCRIPTION:
        # How many tokens a second of sound has is each model's own.
        return context_tokens
    if facts.is_form:
        text_bytes = extent.body_bytes - extent.file_bytes
        return min(text_bytes + extent.files * TOKENS_PER_PICTURE, context_tokens)
    if not facts.has_many_inputs:
        return context_tokens if extent.has_references else min(extent.body_bytes, context_tokens)
    beside = context_tokens if extent.has_references else 0
    query = min(extent.query_bytes, context_tokens)
    return extent.body_bytes + (beside + query) * max(1, extent.units)


def dearest(
    extent: Extent,
    facts: Facts,
    price: PriceRow,
    terms: Terms,
    *,
    context_tokens: int,
    asked_tier: ServiceTier | None,
) -> WorstCase:
    """The most it can cost at one deployment.

    Raises:
        UnpricedTierError: the tier it asks for has no price.
        UnusablePriceError: nobody knows.
    """
    if facts.counted_by is CountedBy.REQUEST or is_asked(price, facts):
        return worst_case(
            price,
            terms,
            input_tokens_max=0,
            besides={} if facts.asked is None else {facts.asked: extent.units},
            has_output=False,
            asked_tier=asked_tier,
        )
    seconds = -(-extent.body_bytes * 8 // SOUND_BITS_PER_SECOND)
    documents = extent.units + extent.body_bytes // BYTES_PER_DOCUMENT
    return worst_case(
        price,
        terms,
        input_tokens_max=input_tokens(extent, facts, context_tokens),
        besides={
            Meter.WEB_SEARCH: SEARCHES_HELD if extent.may_search else 0,
            Meter.SEARCH_UNIT: -(-documents // DOCUMENTS_PER_SEARCH_UNIT) if facts.dialect is Dialect.RERANK else 0,
            Meter.AUDIO_SECOND: seconds if facts.dialect is Dialect.TRANSCRIPTION else 0,
        },
        asked_tier=asked_tier,
    )
