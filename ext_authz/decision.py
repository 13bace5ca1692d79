"""May this request pass, and what has to be held for it. Pure: everything it depends on is an argument."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Self

from ext_authz.asked import Asked
from ext_authz.kept import Owned, place_of, place_of_all
from ext_authz.leases import Lease
from ext_authz.offers import Offer, Offers, PricedDeployment
from ext_authz.own_keys import NONE, OwnKeys
from ext_authz.reservations import OUTPUT_TOKENS, Expected, Reservation, Room
from gateway_core.api_keys import ApiKey
from gateway_core.contract import SessionField
from gateway_core.endpoints import FACTS, Facts
from gateway_core.errors import (
    ADDRESS_NOT_ALLOWED,
    API_KEY_ENDED,
    INVALID_API_KEY,
    MODEL_CHANGING,
    OWN_KEY_NOT_OFFERED,
    ApiError,
    endpoint_not_priced,
    endpoint_not_supported,
    feature_not_offered,
    kept_elsewhere,
    model_not_allowed,
    model_not_found,
    nothing_kept,
    service_tier_not_offered,
    stream_required,
)
from gateway_core.extent import answers, dearest, input_tokens, is_asked, output_tokens
from gateway_core.ids import ModelName, PriceVersion, ProviderName, SliceId
from gateway_core.limits import ScopedLimits
from gateway_core.mode import Mode
from gateway_core.money import MAX_NANO_USD, NanoUsd
from gateway_core.pricing import PPM, Terms, UnpricedTierError, WorstCase
from gateway_core.usage import INPUT_METERS, MAX_TOKENS, OUTPUT_METERS, Meter

FLOOR_TOKENS: Final = 256
"""An answer shorter than this is worth nothing to most who did not ask for so short a one."""


NOTHING_OWNED: Final[Owned] = {}
FEATURES: Final[Mapping[Meter, str]] = {
    Meter.WEB_SEARCH: "web search",
    Meter.AUDIO_INPUT: "audio input",
    Meter.AUDIO_OUTPUT: "audio output",
    Meter.IMAGE_OUTPUT: "image output",
}
"""What a client knows meters by that it can ask for; the front filter names no others."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It may not; `key` says whose request it was, when that is known.

    Attributes:
        reservation: what it counts as all the same, until Envoy says that it is over.
        room: what the limits have left, if they were asked.
    """

    error: ApiError
    key: ApiKey | None = None
    reservation: Reservation | None = None
    room: Room | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """What a request may cost by the length of its answers, and between which bounds that is ours to choose.

    Attributes:
        worst: with as much output in all answers together.
        choices: how many answers it asks for.
        tokens: of each answer, where there is the money.
        least_tokens: of each answer, below which it is refused.
        one: of a session: with one response only, for which there has to be the money.
    """

    worst: WorstCase
    choices: int
    tokens: int
    least_tokens: int
    one: WorstCase | None = None

    @property
    def nano_usd(self) -> NanoUsd:
        """What has to be held for it."""
        return self._nano_usd(self.tokens)

    @property
    def least_nano_usd(self) -> NanoUsd:
        """What has to be held for the shortest answers it is worth having."""
        if self.one is not None:
            return NanoUsd(min(self.one.nano_usd(self.tokens), MAX_NANO_USD))
        return self._nano_usd(self.least_tokens)

    def covered_by(self, held: NanoUsd) -> int:
        """The most tokens of each answer for which an amount is enough that is not below the least."""
        return self.worst.output_tokens(held, at_most=self.tokens * self.choices) // self.choices

    def _nano_usd(self, tokens: int) -> NanoUsd:
        return NanoUsd(min(self.worst.nano_usd(tokens * self.choices), MAX_NANO_USD))


@dataclass(frozen=True, slots=True)
class Session:
    """By what a session is told to end; see `gateway_core.contract.SessionField`.

    Attributes:
        response_nano_usd: what one response can cost.
        rates: the dearest, in nano-USD per million units and rounded up, of all meters that one of the names may stand for.
    """

    response_nano_usd: NanoUsd
    rates: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Admitted:
    """It may, once `hold_nano_usd` is held. All but the key are None on endpoints that cost nothing.

    Attributes:
        rated_as: of a test request: the provider whose prices it will be charged by.
        slice_id: what the amount is held by, once it is; None if by a hold of its own.
        tokens_max: what the model can read and write at once, whatever the request asks for.
        input_tokens_max: what is held for of input, if the request refers to what is not in it.
        output: how it can be admitted for less than that.
        max_tokens: what each answer is cut down to, once less is held; None if it is not.
        limits: those that it is under.
        reservation: what it counts as against those, once it does; None if there are none.
        keeper: the one provider that it goes to, since it is about what that one keeps, or is to.
        lease: what else may pass as this does; None if nothing may.
        own_keys: with which it is sent, of those that its organisation has.
        session: by what it is told to end, if it is one.
        expected_tokens: what it will use, if a provider that may serve it has a limit of tokens; None if none has.
    """

    key: ApiKey
    model: ModelName | None = None
    price_version: PriceVersion | None = None
    hold_nano_usd: NanoUsd | None = None
    rated_as: ProviderName | None = None
    slice_id: SliceId | None = None
    tokens_max: int | None = None
    input_tokens_max: int | None = None
    output: Output | None = None
    max_tokens: int | None = None
    limits: tuple[ScopedLimits, ...] = ()
    reservation: Reservation | None = None
    lease: Lease | None = None
    own_keys: OwnKeys = field(default_factory=lambda: NONE)
    keeper: ProviderName | None = None
    session: Session | None = None
    expected_tokens: int | None = None

    def holding(self, held: NanoUsd) -> Self:
        """The same once an amount is held for it, which may be less than was asked for, but not less than the least."""
        # A session ends when that is spent, however long its answers are.
        if self.output is None or self.session is not None or held >= self.output.nano_usd:
            return replace(self, hold_nano_usd=held)
        return replace(self, hold_nano_usd=held, max_tokens=self.output.covered_by(held))


def decide(
    asked: Asked, key: ApiKey | None, offers: Offers, owned: Owned = NOTHING_OWNED, *, now: datetime
) -> Admitted | Refused:
    """Everything but the balance: key, model, endpoint, and the worst case that has to be held.

    The worst case counts every byte of the body as an input token, since no tokenizer makes more of it, but no more than
    the model's whole context; if the body refers to something outside it, the whole context. Where a request brings many
    inputs, each may be as long as that, and a query is read anew with each document. It counts the full output of the model, for
    each answer or picture, unless the client asked for less; where that is more than can be held, answers are made shorter if the
    endpoint has a field for it. Where the request is charged by what it asks for, it counts that alone. The price is that of the organisation, at the dearest of all
    deployments that may serve it and of all service tiers it may be served at; where the organisation has a key of its own, what is
    charged for that.

    What names something that a provider keeps is for that provider alone, and for whom `owned` says it is.

    Who may know of a model is asked of the newest reading; what it is and costs, of the one that Envoy's route is of.
    """
    if key is None:
        return Refused(INVALID_API_KEY)
    if not key.is_valid(now):
        return Refused(API_KEY_ENDED, key)
    # The route was chosen by what the key looks like. If it is another one, neither ledger may pay for it.
    if key.mode is not asked.mode:
        return Refused(INVALID_API_KEY, key)
    if not key.may_come_from(asked.address):
        return Refused(ADDRESS_NOT_ALLOWED, key)
    facts = FACTS[asked.endpoint]
    if facts.is_of_what_is_kept:
        place = place_of(asked, key, offers, owned)
        if isinstance(place, ApiError):
            return Refused(place, key)
        if facts.keeps and key.mode is Mode.LIVE and place.provider in offers.own_keys.by_org.get(key.org_id, NONE):
            return Refused(OWN_KEY_NOT_OFFERED, key)
        return Admitted(key, keeper=place.provider, limits=key.limits)
    if facts.lists is not None:
        return Admitted(key, limits=key.limits)
    if not facts.is_of_a_model or asked.model is None:
        return Admitted(key)
    newest = offers
    offer = offers.by_model.get(asked.model)
    if offer is None or not offer.is_visible_to(key.org_id):
        return Refused(model_not_found(asked.model), key)
    if asked.offering is not None:
        # Envoy may be at another revision than this process. What is bought is what its route will serve.
        standing = offers.standing_for(asked.model, asked.endpoint, asked.offering, now)
        if standing is None:
            return Refused(MODEL_CHANGING, key)
        offer = standing.by_model[asked.model]
        if not offers.by_model.get(offer.model, offer).is_visible_to(key.org_id):
            return Refused(model_not_found(asked.model), key)
        offers = standing
    if not (key.may_use(asked.model) or key.may_use(offer.model)):
        return Refused(model_not_allowed(asked.model), key)
    own_keys = NONE
    if key.mode is Mode.LIVE:
        found = newest.own_keys.find(key.org_id, asked.own_keys_as_of, now)
        if found is None:
            return Refused(MODEL_CHANGING, key)
        own_keys = found
    prices = offer.prices.get(asked.endpoint)
    if not prices and facts.keeps is not None:
        return Refused(nothing_kept(asked.model), key)
    if not prices:
        return Refused(endpoint_not_supported(asked.model, (FACTS[each].path for each in offer.prices)), key)
    if any(each.provider in own_keys for each in prices) and (facts.is_session or facts.keeps or asked.named):
        return Refused(OWN_KEY_NOT_OFFERED, key)
    keeper = None
    if asked.named:
        place = place_of_all(asked.named, owned)
        if isinstance(place, ApiError):
            return Refused(place, key)
        keeper = place.provider
        if keeper is not None:
            prices = tuple(each for each in prices if each.provider == keeper)
        if not prices:
            return Refused(kept_elsewhere(asked.model), key)
    if not all(each.price.is_free or facts.is_priced(each.price.rates.keys()) for each in prices):
        return Refused(endpoint_not_priced(asked.model), key)
    if (
        facts.is_usage_in_stream_only
        and not asked.is_stream
        and not all(is_asked(each.price, facts) for each in prices)
    ):
        return Refused(stream_required(asked.model), key)
    output_max = output_tokens(asked, facts, offer.max_output_tokens)
    terms = {each.provider: offers.possible_terms(key.org_id, offer.model, each.provider, own_keys) for each in prices}
    try:
        for meter in sorted(asked.meters):
            if not all(each.price.covers(meter, asked.service_tier) for each in prices):
                return Refused(feature_not_offered(asked.model, FEATURES[meter]), key)
        worst = _worst(asked, facts, offer, prices, terms)
        # Of a session there has to be the money for one response, and is held for as many as there is.
        one = _worst(replace(asked, choices=1), facts, offer, prices, terms) if facts.is_session else None
    except UnpricedTierError:
        return Refused(service_tier_not_offered(asked.model), key)
    least_tokens = output_max
    if facts.output_bound is not None:
        least_tokens = min(output_max, max(FLOOR_TOKENS, asked.least_output_tokens))
    output = Output(worst, answers(asked, facts), output_max, least_tokens, one)
    rated_as = prices[0].provider if key.mode is Mode.TEST else None
    input_max = input_tokens(asked, facts, offer.context_tokens)
    counted = [most for each in prices if (most := newest.tokens_per_minute(each.provider)) is not None]
    return Admitted(
        key,
        offer.model,
        offers.version,
        output.nano_usd,
        rated_as,
        tokens_max=offer.context_tokens + offer.max_output_tokens
        if facts.is_session
        else max(offer.context_tokens, input_max) + offer.max_output_tokens * output.choices,
        input_tokens_max=input_max if asked.has_references else None,
        output=output,
        keeper=keeper,
        # Those of a model are about what its providers can take, and a test request asks none of them.
        limits=(*key.limits, *(() if key.mode is Mode.TEST else offer.limits)),
        session=_session(prices, terms, output) if facts.is_session else None,
        # No request takes more of a provider than it has in a minute: who asks for so much would else be in everybody's way for longer.
        expected_tokens=min(expected((), asked, output).tokens, *counted)
        if key.mode is Mode.LIVE and counted
        else None,
        own_keys=OwnKeys({each.provider: own_keys[each.provider] for each in prices if each.provider in own_keys}),
    )


def expected(limits: Iterable[ScopedLimits], asked: Asked, output: Output | None) -> Expected:
    """What a request counts as against limits. What is no model's counts as a request and as no token."""
    if output is None:
        return Expected(0, 0)
    per_choice = output.tokens if asked.max_output_tokens is not None else min(OUTPUT_TOKENS, output.tokens)
    return Expected.of(
        limits,
        body_bytes=asked.text_bytes,
        output_tokens=per_choice * output.choices,
        output_tokens_max=output.tokens * output.choices,
    )


def _worst(
    asked: Asked,
    facts: Facts,
    offer: Offer,
    prices: Sequence[PricedDeployment],
    terms: Mapping[ProviderName, Sequence[Terms]],
) -> WorstCase:
    return WorstCase.of_any(
        dearest(
            asked,
            facts,
            each.price,
            possible,
            context_tokens=offer.context_tokens,
            asked_tier=asked.service_tier,
        )
        for each in prices
        for possible in terms[each.provider]
    )


_METERS_OF_RATES: Final[Mapping[str, Sequence[Meter]]] = {
    SessionField.INPUT: INPUT_METERS,
    SessionField.CACHED_INPUT: (Meter.CACHED_INPUT, Meter.CACHED_AUDIO_INPUT),
    SessionField.OUTPUT: OUTPUT_METERS,
    SessionField.AUDIO_SECOND: (Meter.AUDIO_SECOND,),
}


def _session(
    prices: Sequence[PricedDeployment], terms: Mapping[ProviderName, Sequence[Terms]], output: Output
) -> Session:
    def dearest_of(meters: Sequence[Meter]) -> int:
        exact = (
            possible.price(meter, rates[meter])
            for each in prices
            for possible in terms[each.provider]
            for rates in each.price.rates_up_to(MAX_TOKENS, None)
            for meter in meters
            if meter in rates
        )
        return -(-max(exact, default=0) // PPM)

    return Session(output.least_nano_usd, {name: dearest_of(meters) for name, meters in _METERS_OF_RATES.items()})
