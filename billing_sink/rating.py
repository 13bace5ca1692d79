"""What a finished request was, and what it costs. Pure.

The rules, in order:
1. Not admitted: `refused`. Admitted without a price (a list of models), or answered from the cache: `free`.
2. Answered with 2xx, something delivered, and charged by what was asked, since that has a price (pictures, characters) or
   nothing else is counted (the request itself): `settled`, by what was asked.
3. Answered with 2xx and the provider's usage complete: `settled`, by that usage.
4. Answered with 2xx and something delivered, but no usage or only its beginning (the client left, the provider broke off):
   `estimated` - what was reported, and where nothing was: a token per 4 bytes of input that is text, or all the input that was held
   for where the request refers to what is not in it, or a search unit per 100 documents or a second of sound per 4000 bytes where
   these have a price; for the output, where the endpoint has any, a token per event of a stream, or per 4 bytes (256 of
   a picture or of speech) of what is left when 400 bytes of framing are taken off each event, whichever is more, where
   comments are no events, and of a response no bytes count but those of its deltas; never more output than the client asked
   for or was cut down to, and never more money than was held.
   An answer that was too large for Envoy to keep is one of these, with as much output as the model can write: the provider made it.
5. A session (answered with 101): by the sums of the usage of its responses and transcriptions, `settled`; `estimated` where one
   had begun to come and did not end, with what that comes to (`unfinished.py`) besides, and never more money than was held.
6. Everything else: `released`, nothing charged.

It is priced at the service tier that the answer names. One that names none was served at the tier that was asked for, and
where none was, at the standard one.

A request that was sent with its organisation's own key costs us nothing, and the organisation the provider's fee for such requests: that
share of the list prices at which it would else be charged.

A request with a test key is answered by the simulator and rated, in play money, by the prices of the provider that admission
named. One that somebody else answered, or a live one that the simulator did, is nobody's to pay.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from billing_sink.access_log import Asked, Grant, SpoolLine
from billing_sink.prices import PriceBook, UnknownPriceError
from billing_sink.unfinished import Unfinished
from gateway_core.clusters import Cluster, is_own_key_cluster, own_key_cluster, provider_of_cluster
from gateway_core.endpoints import FACTS, CountedBy, Dialect, Facts
from gateway_core.extent import DOCUMENTS_PER_SEARCH_UNIT
from gateway_core.ids import ProviderName
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd
from gateway_core.pricing import (
    Charge,
    PriceRow,
    UnpricedError,
    UnpricedTierError,
    UnusablePriceError,
    billable,
    charge,
)
from gateway_core.provider_usage import (
    InvalidUsageError,
    UnknownUsageError,
    answers_in_session,
    is_last_word,
    parse_usage,
)
from gateway_core.usage import (
    BYTES_PER_TOKEN,
    STANDARD,
    InvalidTierError,
    Meter,
    ServiceTier,
    Usage,
    asked_service_tier,
    service_tier,
)

FRAME_BYTES: Final = 400
"""What a provider wraps around the text of one event, or of an answer that is no stream; the dialects seen in tests take 150 to 350 bytes."""
MEDIA_BYTES_PER_TOKEN: Final = 256
"""Of pictures and speech in base64; those seen have more."""
SOUND_BYTES_PER_SECOND: Final = 4000
"""Speech as it is usually compressed to be sent: 32 kbit/s."""
SOUND_TOKENS_PER_SECOND: Final = 10
"""As OpenAI's models hear it."""
TOO_LARGE: Final = "response_payload_too_large"
"""Envoy's word for an answer with 2xx of which it kept as much as it can and sent nothing."""
ANSWERS_MAX: Final = 2
"""A model reads and writes no more than it can, once. Twice as much is let pass, since a catalogue may be behind the provider."""
ANSWERS_MAX_WITH_REFERENCES: Final = 20
"""Where the provider's own tools are at work, it reads everything anew for each of their results; ten times, as far as known."""
SEARCHES_MAX: Final = 1000
"""Nothing bounds the searches of one request but the time it may take."""
SECONDS_MAX: Final = 86_400
"""Of sound in one request: nobody offers to hear a day of it."""

NOTHING: Final = Charge(NanoUsd(0), NanoUsd(0))


class ImplausibleUsageError(ValueError):
    """Numbers that no model could cause: nobody is charged for them before a person has looked."""


class StrayRequestError(ValueError):
    """A request at a provider in test mode, at the simulator in live mode, or with a key that it was not admitted with.

    ext_authz and Envoy did not agree whose it was.
    """


UNRATEABLE: Final = (
    InvalidUsageError,
    UnknownUsageError,
    ImplausibleUsageError,
    InvalidTierError,
    UnpricedError,
    UnpricedTierError,
    UnusablePriceError,
    UnknownPriceError,
    StrayRequestError,
)
"""Why a request has no price; `rate` says what each means. Such a request is quarantined and never taken for free."""


class Outcome(StrEnum):
    """How a request ended, for the money."""

    SETTLED = "settled"
    RELEASED = "released"
    ESTIMATED = "estimated"
    REFUSED = "refused"
    FREE = "free"


class UsageSource(StrEnum):
    """Whose figures the meters are."""

    PROVIDER = "provider"
    REQUEST = "request"
    """What was asked for, or the request itself."""
    ESTIMATED = "estimated"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Rated:
    """A finished request with its outcome, meters and money."""

    line: SpoolLine
    outcome: Outcome
    provider: ProviderName | None
    mode: Mode = Mode.LIVE
    source: UsageSource = UsageSource.NONE
    meters: Mapping[Meter, int] | None = None
    charge: Charge = NOTHING
    service_tier: ServiceTier = STANDARD

    @property
    def has_own_key(self) -> bool:
        """Whether the provider charges the organisation for it, and not us."""
        return is_own_key_cluster(self.line.cluster or "")

    @property
    def is_estimated_with_references(self) -> bool:
        """Whether nobody knows what was read for it: whoever makes many of these may be after that."""
        return (
            self.outcome is Outcome.ESTIMATED
            and self.line.usage_first is None
            and self.line.request is not None
            and self.line.request.references
        )


def rate(line: SpoolLine, prices: PriceBook) -> Rated:
    """Decide the outcome of a finished request and price it.

    Raises:
        InvalidUsageError: the provider's usage contradicts itself.
        UnknownUsageError: it counts something that is not known here.
        ImplausibleUsageError: it is more than the model can have read and written.
        UnpricedError, UnpricedTierError, UnknownPriceError: something nobody priced.
        InvalidTierError: a service tier that is no word.
        UnusablePriceError: a price that this version of the code cannot read whole.
        StrayRequestError: it was not answered where its mode belongs.
        The caller quarantines all of them; the hold stays until a person decides.
    """
    grant, asked = line.granted, line.request
    if grant is None or grant.key_id is None or grant.error_code is not None:
        return Rated(line, Outcome.REFUSED, _served_by(line), _mode_of_refused(line))
    if line.is_cached:
        return Rated(line, Outcome.FREE, None, grant.mode)
    mode, provider = grant.mode, _provider(line, grant)
    model = line.model
    if asked is None or asked.endpoint is None or model is None or grant.price_version is None:
        return Rated(line, Outcome.FREE, provider, mode)
    facts = FACTS[asked.endpoint]
    if provider is None or not (facts.is_answered(line.status) or line.response_details == TOO_LARGE):
        return Rated(line, Outcome.RELEASED, provider, mode)
    price = prices.find(model, provider, grant.price_version)
    has_own_key = is_own_key_cluster(line.cluster or "")
    if has_own_key:
        terms = prices.own_key_terms(provider, grant.price_version)
    else:
        terms = prices.terms(grant.org_id, model, provider, grant.price_version)
    tokens, source = _usage(line, asked, grant, facts, price)
    if source is UsageSource.NONE:
        return Rated(line, Outcome.RELEASED, provider, mode)
    usage = billable(tokens, price)
    charged = charge(usage, price, terms)
    if has_own_key:
        charged = replace(charged, cost_nano_usd=NanoUsd(0))
    outcome = Outcome.SETTLED
    if source is UsageSource.PROVIDER:
        _refuse_implausible(usage, line, asked, grant)
    elif source is UsageSource.ESTIMATED:
        outcome, charged = Outcome.ESTIMATED, _at_most_held(charged, grant)
    return Rated(line, outcome, provider, mode, source, usage.counts, charged, usage.service_tier)


def _mode_of_refused(line: SpoolLine) -> Mode:
    """That of its key, or if there is no such key, what it looked like."""
    if line.granted is not None and line.granted.key_id is not None:
        return line.granted.mode
    return line.request.mode if line.request is not None else Mode.LIVE


def _provider(line: SpoolLine, grant: Grant) -> ProviderName | None:
    """Who answered; for a test request, in whose place the simulator did."""
    provider, by_simulator = _served_by(line), line.cluster == Cluster.SIMULATOR
    is_stray = by_simulator if grant.mode is Mode.LIVE else provider is not None
    if is_stray:
        raise StrayRequestError(f"a request of mode {grant.mode} went to cluster {line.cluster}")
    if provider is not None and not _may_ask(line.cluster or "", provider, grant):
        raise StrayRequestError(f"a request of organisation {grant.org_id} went to cluster {line.cluster}")
    return grant.rated_as if by_simulator else provider


def _may_ask(cluster: str, provider: ProviderName, grant: Grant) -> bool:
    """Whether what asked was our key, or one that the request was admitted with."""
    if not is_own_key_cluster(cluster):
        return True
    admitted = {name.removesuffix("+") for name in (grant.own_keys or "").split()}
    own = own_key_cluster(provider, grant.org_id or "")
    return provider in admitted and (cluster == own or "~" in cluster)


def _served_by(line: SpoolLine) -> ProviderName | None:
    name = provider_of_cluster(line.cluster or "")
    return ProviderName(name) if name else None


def _usage(line: SpoolLine, asked: Asked, grant: Grant, facts: Facts, price: PriceRow) -> tuple[Usage, UsageSource]:
    dialect = facts.dialect
    tier = line.service_tier or asked_service_tier(asked.service_tier)
    if facts.counted_by is CountedBy.REQUEST or price.counts(facts.asked):
        if not line.bytes_sent:
            return Usage({}), UsageSource.NONE
        return Usage(_asked_for(asked, facts, price), service_tier(tier)), UsageSource.REQUEST
    if facts.is_session:
        return _usage_of_session(line, dialect, tier)
    delivered = _delivered_tokens(line, facts)
    if line.usage_first is None:
        if not delivered:
            return Usage({}), UsageSource.NONE
        reported, served_at = _guessed_input(asked, grant, dialect, price), service_tier(tier)
    else:
        usage = parse_usage(dialect, line.usage_first, line.usage_last, tier=tier)
        reported, served_at = dict(usage.counts), usage.service_tier
        if is_last_word(dialect, stream=line.is_stream, last=line.usage_last):
            return usage, UsageSource.PROVIDER
    if facts.output is None or Meter.AUDIO_SECOND in reported:
        return Usage(reported, served_at), UsageSource.ESTIMATED
    if line.response_details == TOO_LARGE and grant.tokens_max is not None:
        delivered = max(1, grant.tokens_max - sum(reported.values()))
    output = max(reported.get(facts.output, 0), delivered)
    for bound in (asked.max_output_tokens, grant.max_tokens):
        if bound is not None:
            output = min(output, bound * max(1, asked.choices or 1))
    estimated = {**reported, facts.output: output}
    return Usage({meter: count for meter, count in estimated.items() if count}, served_at), UsageSource.ESTIMATED


def _usage_of_session(line: SpoolLine, dialect: Dialect, tier: str | None) -> tuple[Usage, UsageSource]:
    """Of the responses and transcriptions that have ended, and of those that have not, as far as they had come."""
    usage = (
        parse_usage(dialect, line.usage_first, tier=tier)
        if line.usage_first is not None
        else Usage({}, service_tier(tier))
    )
    # A line from before there was that says how many pieces had come, in the place of events.
    unfinished = line.unfinished or Unfinished(pieces=line.sse_events or 0)
    if not (more := unfinished.tokens):
        return usage, UsageSource.PROVIDER if usage.counts else UsageSource.NONE
    counts = {meter: usage.counts.get(meter, 0) + more.get(meter, 0) for meter in usage.counts.keys() | more.keys()}
    return Usage(counts, usage.service_tier), UsageSource.ESTIMATED


def _asked_for(asked: Asked, facts: Facts, price: PriceRow) -> dict[Meter, int]:
    """What the request asks for, but for the request itself, which `billable` counts."""
    if facts.asked is None:
        if not (price.is_free or facts.is_priced(price.rates.keys())):
            raise UnpricedError(Meter.REQUEST)
        return {}
    if asked.units is None:
        raise ImplausibleUsageError("a request that does not say how much it asks for")
    return {facts.asked: asked.units} if asked.units else {}


def _guessed_input(asked: Asked, grant: Grant, dialect: Dialect, price: PriceRow) -> dict[Meter, int]:
    if dialect is Dialect.RERANK and Meter.SEARCH_UNIT in price.rates:
        return {Meter.SEARCH_UNIT: max(1, -(-(asked.units or 0) // DOCUMENTS_PER_SEARCH_UNIT))}
    if asked.references and grant.input_tokens_max is not None:
        # Nobody here has seen what the provider read; guessed by the body, a book would be free for whoever leaves early.
        return {Meter.INPUT: grant.input_tokens_max}
    read = {Meter.INPUT: -(-(asked.body_bytes - asked.file_bytes) // BYTES_PER_TOKEN)}
    if dialect is not Dialect.TRANSCRIPTION:
        return read
    seconds = max(1, -(-asked.file_bytes // SOUND_BYTES_PER_SECOND))
    if Meter.AUDIO_SECOND in price.rates:
        return {Meter.AUDIO_SECOND: seconds}
    return {**read, Meter.AUDIO_INPUT: seconds * SOUND_TOKENS_PER_SECOND}


def _delivered_tokens(line: SpoolLine, facts: Facts) -> int:
    """A low guess at the output tokens that reached the client."""
    per_token = BYTES_PER_TOKEN if facts.output in {None, Meter.OUTPUT} else MEDIA_BYTES_PER_TOKEN
    if not line.is_stream:
        return max(1, (line.bytes_sent - FRAME_BYTES) // per_token) if line.bytes_sent else 0
    events = line.sse_events or 0
    output_bytes = line.bytes_sent - (line.sse_beside_bytes or 0)
    return max(events, (output_bytes - events * FRAME_BYTES) // per_token)


def _refuse_implausible(usage: Usage, line: SpoolLine, asked: Asked, grant: Grant) -> None:
    """What is merely beyond its hold is charged; this is about what cannot be."""
    if not usage.total_tokens and not usage.counts.keys() & {Meter.SEARCH_UNIT, Meter.AUDIO_SECOND}:
        raise ImplausibleUsageError("an answer of which nothing is counted")
    answers = ANSWERS_MAX_WITH_REFERENCES if asked.references else ANSWERS_MAX
    if asked.endpoint is not None and FACTS[asked.endpoint].is_session and line.usage_first is not None:
        answers *= answers_in_session(line.usage_first)
    if grant.tokens_max is not None and usage.total_tokens > answers * grant.tokens_max:
        raise ImplausibleUsageError("more tokens than the model can have read and written")
    if max(usage.counts.get(meter, 0) for meter in (Meter.WEB_SEARCH, Meter.SEARCH_UNIT)) > SEARCHES_MAX:
        raise ImplausibleUsageError("more searches than one request can have made")
    if usage.counts.get(Meter.AUDIO_SECOND, 0) > SECONDS_MAX:
        raise ImplausibleUsageError("more sound than one request can have brought")


def unrated(line: SpoolLine) -> Rated:
    """A finished request that nobody could price, for whoever decides about it: nothing is charged yet."""
    return Rated(line, Outcome.RELEASED, _served_by(line), line.granted.mode if line.granted else Mode.LIVE)


def _at_most_held(estimate: Charge, grant: Grant) -> Charge:
    held = NanoUsd(grant.hold_nano_usd or 0)
    return Charge(estimate.cost_nano_usd, min(estimate.price_nano_usd, held))
