"""Who may pass, and what is held for them."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_authz.asked import Asked
from ext_authz.decision import FLOOR_TOKENS, Admitted, Output, Refused, Session, decide
from ext_authz.offers import Offers
from gateway_core.api_keys import ApiKey
from gateway_core.endpoints import Endpoint
from gateway_core.extent import SEARCHES_HELD
from gateway_core.ids import ModelName, OrgId, PriceVersion, ProviderName
from gateway_core.limits import Limits
from gateway_core.mode import Mode
from gateway_core.money import MAX_NANO_USD, NanoUsd
from gateway_core.offering import Offering
from gateway_core.pricing import LIST_TERMS, UNITS_PER_PRICE, OrgTerms, PriceRow, Rate, Rates, charge
from gateway_core.usage import STANDARD, Meter, ServiceTier, Usage
from tests.support.admission import KEY, MODEL, PROVIDER, REQUEST_ID, VERSION, offers, price

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CHEAP, DEAR = price(input_=1, output=4), price(input_=2, output=3)
OFFERS = offers(chat=(CHEAP,))
TOKENS_MAX = 128_000 + 1000
ASKED = Asked(
    address="192.0.2.7",
    request_id=REQUEST_ID,
    credential="sk-tg-live-secret",
    mode=Mode.LIVE,
    endpoint=Endpoint.CHAT,
    model=ModelName("gpt-4o-mini"),
    body_bytes=100,
    has_references=False,
    max_output_tokens=None,
    choices=1,
)


def decided(asked: Asked = ASKED, key: ApiKey | None = KEY, offered: Offers = OFFERS) -> tuple[int, str] | Admitted:
    """Status and code of a refusal, or the admission."""
    decision = decide(asked, key, offered, now=NOW)
    return (decision.error.status, decision.error.code) if isinstance(decision, Refused) else decision


def without_output(decision: tuple[int, str] | Admitted) -> Admitted:
    """An admission, but for how its answer may be cut down."""
    assert isinstance(decision, Admitted)
    return replace(decision, output=None)


def held(asked: Asked = ASKED, offered: Offers = OFFERS) -> NanoUsd:
    decision = decided(asked, offered=offered)
    assert isinstance(decision, Admitted)
    assert decision.hold_nano_usd is not None
    return decision.hold_nano_usd


def test_a_good_key_and_a_model_on_offer_is_admitted_at_the_version_of_the_offers() -> None:
    assert without_output(decided()) == Admitted(KEY, MODEL, VERSION, held(), tokens_max=TOKENS_MAX)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(None, id="unknown"),
        pytest.param(replace(KEY, is_disabled=True), id="disabled"),
        pytest.param(replace(KEY, expires_at=NOW), id="expires this moment"),
        pytest.param(replace(KEY, expires_at=NOW - timedelta(days=1)), id="expired"),
    ],
)
@pytest.mark.parametrize("endpoint", Endpoint)
def test_a_key_that_is_not_good_is_refused_on_every_endpoint(key: ApiKey | None, endpoint: Endpoint) -> None:
    assert decided(replace(ASKED, endpoint=endpoint), key) == (401, "invalid_api_key")


def test_a_key_is_good_until_the_moment_it_expires() -> None:
    assert isinstance(decided(key=replace(KEY, expires_at=NOW + timedelta(microseconds=1))), Admitted)


def test_a_refusal_says_whose_request_it_was_when_that_is_known() -> None:
    disabled = replace(KEY, is_disabled=True)
    assert decide(ASKED, disabled, OFFERS, now=NOW).key == disabled
    assert decide(replace(ASKED, model=ModelName("x")), KEY, OFFERS, now=NOW).key == KEY


def test_a_list_of_models_costs_nothing() -> None:
    assert decided(replace(ASKED, endpoint=Endpoint.MODELS, model=None)) == Admitted(KEY)


def test_a_model_nobody_offers_is_not_found() -> None:
    assert decided(replace(ASKED, model=ModelName("gpt-99"))) == (404, "model_not_found")


@pytest.mark.parametrize("patterns", [("gpt-4o",), ("claude-*",), ("GPT-*",), ("",)])
def test_a_model_outside_of_the_keys_patterns_is_not_allowed(patterns: tuple[str, ...]) -> None:
    assert decided(key=replace(KEY, models_allowed=patterns)) == (403, "model_not_allowed")


@pytest.mark.parametrize("patterns", [(), ("gpt-4o-mini",), ("gpt-*",), ("claude-*", "*-mini"), ("*",)])
def test_a_model_that_one_of_the_patterns_fits_is_allowed(patterns: tuple[str, ...]) -> None:
    assert isinstance(decided(key=replace(KEY, models_allowed=patterns)), Admitted)


def test_an_endpoint_the_model_is_not_served_on_names_those_it_is() -> None:
    decision = decide(replace(ASKED, endpoint=Endpoint.MESSAGES), KEY, OFFERS, now=NOW)
    assert isinstance(decision, Refused)
    assert (decision.error.status, decision.error.code) == (400, "endpoint_not_supported")
    assert "/v1/chat/completions" in decision.error.message


def test_endpoints_that_share_a_path_are_named_once() -> None:
    both = offers(responses=(price(input_=1, output=1),) * 2, stored_responses=(price(input_=1, output=1),))
    decision = decide(ASKED, KEY, both, now=NOW)
    assert isinstance(decision, Refused)
    assert decision.error.message.endswith("it is served on /v1/responses.")


def test_the_hold_counts_every_byte_as_a_token_and_all_the_output_there_can_be() -> None:
    assert held() == 100 * 1 + 1000 * 4


def test_the_hold_counts_no_more_input_than_the_model_can_read() -> None:
    assert held(replace(ASKED, body_bytes=10**9)) == 128_000 * 1 + 1000 * 4


def test_what_the_body_refers_to_may_be_as_long_as_the_model_can_read() -> None:
    assert held(replace(ASKED, has_references=True)) == 128_000 * 1 + 1000 * 4


def test_asking_for_less_output_lowers_the_hold() -> None:
    assert held(replace(ASKED, max_output_tokens=10)) == 100 + 10 * 4
    assert held(replace(ASKED, max_output_tokens=0)) == 100


def test_asking_for_more_output_than_the_model_has_does_not_raise_it() -> None:
    assert held(replace(ASKED, max_output_tokens=10**9)) == held()


def test_every_choice_has_its_own_output_but_the_input_counts_once() -> None:
    assert held(replace(ASKED, choices=3, max_output_tokens=10)) == 100 + 3 * 10 * 4


def test_the_hold_is_that_of_the_dearest_deployment_for_this_request() -> None:
    both = offers(chat=(CHEAP, DEAR))
    assert held(replace(ASKED, max_output_tokens=10), both) == 100 * 2 + 10 * 3
    assert held(replace(ASKED, max_output_tokens=1000), both) == 100 * 1 + 1000 * 4


def test_the_hold_is_at_the_organisations_own_terms_for_each_deployment() -> None:
    terms = OrgTerms(VERSION, 500_000, {(MODEL, ProviderName("p1")): {Meter.OUTPUT: 50_000_000}})
    agreed = replace(offers(chat=(CHEAP, DEAR)), org_terms={KEY.org_id: terms})
    asked = replace(ASKED, max_output_tokens=10)
    assert held(asked, agreed) == 100 * 3 + 10 * 50
    assert held(replace(asked, max_output_tokens=0), agreed) == 100 * 3
    others = replace(agreed, org_terms={OrgId("org_2"): terms})
    assert held(asked, others) == held(asked, offers(chat=(CHEAP, DEAR)))


def test_a_model_that_a_route_keeps_from_an_organisation_does_not_exist_for_it() -> None:
    kept = replace(OFFERS.by_model[MODEL], orgs_allowed=frozenset({OrgId("org_2")}))
    assert decided(offered=replace(OFFERS, by_model={MODEL: kept})) == (404, "model_not_found")
    shown = replace(kept, orgs_allowed=frozenset({OrgId("org_2"), KEY.org_id}))
    assert isinstance(decided(offered=replace(OFFERS, by_model={MODEL: shown})), Admitted)


@pytest.mark.parametrize("patterns", [(), ("mini",), ("gpt-*",)])
def test_an_alias_is_admitted_as_its_model_whichever_of_the_two_the_key_allows(patterns: tuple[str, ...]) -> None:
    alias = ModelName("mini")
    offered = replace(OFFERS, by_model={alias: OFFERS.by_model[MODEL]})
    asked = replace(ASKED, model=alias)
    decision = decide(asked, replace(KEY, models_allowed=patterns), offered, now=NOW)
    assert isinstance(decision, Admitted)
    assert decision.model == MODEL
    refused = decide(asked, replace(KEY, models_allowed=("claude-*",)), offered, now=NOW)
    assert isinstance(refused, Refused)
    assert refused.error.code == "model_not_allowed"


def test_the_grant_says_how_much_the_model_can_do_at_once_whatever_is_asked_of_it() -> None:
    decision = decided(replace(ASKED, choices=3, max_output_tokens=1))
    assert isinstance(decision, Admitted)
    assert decision.tokens_max == 128_000 + 3 * 1000


def test_a_hold_is_never_more_than_a_bigint() -> None:
    assert held(replace(ASKED, choices=10**9), offers(chat=(price(output=10**12),))) == MAX_NANO_USD


def test_a_model_that_is_free_is_held_at_nothing_and_still_held() -> None:
    assert without_output(decided(offered=offers(chat=(price(),)))) == Admitted(
        KEY, MODEL, VERSION, held(offered=offers(chat=(price(),))), tokens_max=TOKENS_MAX
    )
    assert held(offered=offers(chat=(price(),))) == 0


@given(
    body_bytes=st.integers(1, 10**6),
    choices=st.integers(1, 8),
    tokens_max=st.none() | st.integers(0, 5000),
    data=st.data(),
)
def test_no_answer_within_what_was_asked_for_costs_more_than_was_held(
    body_bytes: int, choices: int, tokens_max: int | None, data: st.DataObject
) -> None:
    rows = tuple(
        price(input_=data.draw(st.integers(0, 1000)), output=data.draw(st.integers(0, 1000)))
        for _ in range(data.draw(st.integers(1, 3)))
    )
    asked = replace(ASKED, body_bytes=body_bytes, choices=choices, max_output_tokens=tokens_max)
    output_max = choices * min(1000, 1000 if tokens_max is None else tokens_max)
    input_max = min(body_bytes, 128_000)
    usage = Usage(
        {Meter.INPUT: data.draw(st.integers(0, input_max)), Meter.OUTPUT: data.draw(st.integers(0, output_max))}
    )
    served_by = data.draw(st.sampled_from(rows))
    assert charge(usage, served_by, LIST_TERMS).price_nano_usd <= held(asked, offers(chat=rows))


FULL, FLOOR = 100 + 1000 * 4, 100 + FLOOR_TOKENS * 4


def output_of(asked: Asked = ASKED, offered: Offers = OFFERS) -> Output:
    decision = decided(asked, offered=offered)
    assert isinstance(decision, Admitted)
    assert decision.output is not None
    return decision.output


def test_an_answer_may_be_cut_down_to_the_floor_and_one_that_is_asked_for_shorter_not_at_all() -> None:
    assert (output_of().nano_usd, output_of().least_nano_usd) == (FULL, FLOOR)
    short = output_of(replace(ASKED, max_output_tokens=10))
    assert short.nano_usd == short.least_nano_usd == 100 + 10 * 4
    three = output_of(replace(ASKED, choices=3))
    assert (three.nano_usd, three.least_nano_usd) == (100 + 3 * 1000 * 4, 100 + 3 * FLOOR_TOKENS * 4)


def test_the_floor_is_what_the_provider_takes_where_that_is_more() -> None:
    assert output_of(replace(ASKED, least_output_tokens=701)).least_nano_usd == 100 + 701 * 4
    assert output_of(replace(ASKED, least_output_tokens=10)).least_nano_usd == FLOOR
    assert output_of(replace(ASKED, least_output_tokens=10**9)).least_nano_usd == FULL


@pytest.mark.parametrize(
    ("amount", "max_tokens"), [(FULL + 1, None), (FULL, None), (FULL - 1, 999), (FLOOR + 3, 256), (FLOOR, 256)]
)
def test_what_is_held_says_what_the_answer_is_cut_down_to(amount: int, max_tokens: int | None) -> None:
    decision = decided()
    assert isinstance(decision, Admitted)
    holding = decision.holding(NanoUsd(amount))
    assert (holding.hold_nano_usd, holding.max_tokens) == (amount, max_tokens)
    assert replace(holding, hold_nano_usd=decision.hold_nano_usd, max_tokens=None) == decision


@given(
    body_bytes=st.integers(1, 10**6),
    choices=st.integers(1, 8),
    tokens_max=st.none() | st.integers(1, 5000),
    least=st.integers(0, 1500),
    data=st.data(),
)
def test_nothing_that_a_cut_down_request_can_get_costs_more_than_is_held(
    body_bytes: int, choices: int, tokens_max: int | None, least: int, data: st.DataObject
) -> None:
    rates = st.integers(0, 1000)
    rows = tuple(
        replace(
            price(input_=data.draw(rates), output=data.draw(rates)),
            service_tiers={PRIORITY: Rates(price(input_=data.draw(rates), output=data.draw(rates)).rates)},
        )
        for _ in range(data.draw(st.integers(1, 3)))
    )
    tier = data.draw(st.sampled_from([None, STANDARD, PRIORITY]))
    asked = replace(
        ASKED,
        body_bytes=body_bytes,
        choices=choices,
        max_output_tokens=tokens_max,
        least_output_tokens=least,
        service_tier=tier,
    )
    decision = decided(asked, offered=offers(chat=rows))
    assert isinstance(decision, Admitted)
    assert decision.output is not None
    full = min(1000, 1000 if tokens_max is None else tokens_max)
    held_ = NanoUsd(data.draw(st.integers(decision.output.least_nano_usd, decision.output.nano_usd)))
    cut = decision.holding(held_).max_tokens
    assert (cut is None) == (held_ == decision.output.nano_usd)
    tokens = full if cut is None else cut
    assert min(full, max(FLOOR_TOKENS, least)) <= tokens <= full
    usage = Usage(
        {
            Meter.INPUT: data.draw(st.integers(0, min(body_bytes, 128_000))),
            Meter.OUTPUT: data.draw(st.integers(0, choices * tokens)),
        },
        data.draw(st.sampled_from([STANDARD, tier or PRIORITY])),
    )
    assert charge(usage, data.draw(st.sampled_from(rows)), LIST_TERMS).price_nano_usd <= held_


def test_a_key_with_networks_is_refused_from_elsewhere_before_anything_is_said_about_models() -> None:
    key = replace(KEY, ip_allowed=(ip_network("192.0.2.0/24"),))
    assert isinstance(decided(key=key), Admitted)
    elsewhere = replace(ASKED, address="198.51.100.1", model=ModelName("unknown"))
    assert decided(elsewhere, key) == (403, "address_not_allowed")


@pytest.mark.parametrize("endpoint", Endpoint)
@pytest.mark.parametrize(("key_mode", "route_mode"), [(Mode.TEST, Mode.LIVE), (Mode.LIVE, Mode.TEST)])
def test_a_key_whose_route_was_chosen_for_the_other_mode_is_refused_everywhere(
    endpoint: Endpoint, key_mode: Mode, route_mode: Mode
) -> None:
    asked = replace(ASKED, endpoint=endpoint, mode=route_mode)
    assert decided(asked, replace(KEY, mode=key_mode)) == (401, "invalid_api_key")


def test_a_test_request_is_held_like_a_live_one_and_rated_by_who_would_be_asked_first() -> None:
    key, asked = replace(KEY, mode=Mode.TEST), replace(ASKED, mode=Mode.TEST)
    assert without_output(decided(asked, key)) == Admitted(key, MODEL, VERSION, held(), PROVIDER, tokens_max=TOKENS_MAX)
    assert decided(replace(asked, model=ModelName("gpt-99")), key) == (404, "model_not_found")
    assert decided(asked, replace(key, models_allowed=("claude-*",))) == (403, "model_not_allowed")
    assert decided(replace(asked, endpoint=Endpoint.MESSAGES), key) == (400, "endpoint_not_supported")


PRIORITY = ServiceTier("priority")
DEARER = Rates({Meter.INPUT: Rate(0, 10_000_000), Meter.OUTPUT: Rate(0, 40_000_000)})
WITH_PRIORITY = replace(CHEAP, service_tiers={PRIORITY: DEARER})


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        pytest.param(STANDARD, 100 * 1 + 1000 * 4, id="the standard tier"),
        pytest.param(PRIORITY, 100 * 10 + 1000 * 40, id="a dearer one"),
        pytest.param(None, 100 * 10 + 1000 * 40, id="no tier: the provider may choose the dearer one"),
    ],
)
def test_what_is_held_covers_every_service_tier_the_request_may_be_served_at(
    tier: ServiceTier | None, expected: int
) -> None:
    assert held(replace(ASKED, service_tier=tier), offers(chat=(WITH_PRIORITY,))) == expected


def test_a_tier_that_some_provider_of_the_chain_has_no_price_for_is_refused() -> None:
    asked = replace(ASKED, service_tier=PRIORITY)
    assert decided(asked) == (400, "service_tier_not_offered")
    assert decided(asked, offered=offers(chat=(WITH_PRIORITY, CHEAP))) == (400, "service_tier_not_offered")


def test_searches_are_held_for_where_they_have_a_price() -> None:
    searching = replace(ASKED, may_search=True)
    with_searches = PriceRow(VERSION, {**CHEAP.rates, Meter.WEB_SEARCH: Rate(0, 10**13)})
    assert held(searching) == held()
    assert held(searching, offers(chat=(with_searches,))) == held() + SEARCHES_HELD * 10**7
    assert held(offered=offers(chat=(with_searches,))) == held()


@pytest.mark.parametrize(
    ("meter", "named"),
    [
        (Meter.WEB_SEARCH, "web search"),
        (Meter.AUDIO_INPUT, "audio input"),
        (Meter.AUDIO_OUTPUT, "audio output"),
        (Meter.IMAGE_OUTPUT, "image output"),
    ],
)
def test_what_would_be_counted_needs_a_price_at_every_provider(meter: Meter, named: str) -> None:
    asking = replace(ASKED, meters=frozenset({meter}))
    refused = decide(asking, KEY, OFFERS, now=NOW)
    assert isinstance(refused, Refused)
    assert (refused.error.status, refused.error.code) == (400, "feature_not_offered")
    assert named in refused.error.message
    with_it = PriceRow(VERSION, {**CHEAP.rates, meter: Rate(0, 1)})
    assert isinstance(decided(asking, offered=offers(chat=(with_it,))), Admitted)
    assert decided(asking, offered=offers(chat=(with_it, CHEAP))) == (400, "feature_not_offered")
    free = PriceRow.of(VERSION, ["free"], ["{}"], [0], [0])
    assert isinstance(decided(asking, offered=offers(chat=(free,))), Admitted)


ALIAS = ModelName("mini")
NEWER = PriceVersion(VERSION + 1)
AS_BEFORE = Offering(MODEL, {PROVIDER: "up/0"})
DEARER_MODEL = replace(offers(chat=(DEAR,)).by_model[MODEL], model=ModelName("gpt-9"))
MOVED = Offers(NEWER, {ALIAS: DEARER_MODEL}, {}).after(replace(OFFERS, by_model={ALIAS: OFFERS.by_model[MODEL]}), NOW)
"""The alias stood for one model, and stands for another one now."""


def test_what_is_held_and_priced_is_what_the_route_stands_for_whichever_revision_is_newer() -> None:
    asked = replace(ASKED, model=ALIAS, offering=AS_BEFORE)
    assert without_output(decided(asked, offered=MOVED)) == Admitted(KEY, MODEL, VERSION, held(), tokens_max=TOKENS_MAX)
    asked = replace(asked, offering=Offering(DEARER_MODEL.model, {PROVIDER: "up/0"}))
    assert without_output(decided(asked, offered=MOVED)) == Admitted(
        KEY, DEARER_MODEL.model, NEWER, held(offered=offers(chat=(DEAR,))), tokens_max=TOKENS_MAX
    )


def test_a_route_that_stands_for_what_was_never_read_is_refused_as_changing() -> None:
    for unknown in (Offering(ModelName("gpt-10"), {PROVIDER: "up/0"}), Offering(MODEL, {PROVIDER: "up/new"})):
        assert decided(replace(ASKED, offering=unknown)) == (503, "model_changing")


def test_who_may_know_of_a_model_is_asked_of_the_newest_reading() -> None:
    asked = replace(ASKED, model=ALIAS, offering=AS_BEFORE)
    hidden = replace(OFFERS.by_model[MODEL], orgs_allowed=frozenset({OrgId("org_2")}))
    assert decided(asked, offered=replace(MOVED, by_model={})) == (404, "model_not_found")
    assert decided(asked, offered=replace(MOVED, by_model={**MOVED.by_model, MODEL: hidden})) == (
        404,
        "model_not_found",
    )
    assert decided(asked, replace(KEY, models_allowed=(str(DEARER_MODEL.model),)), MOVED) == (
        403,
        "model_not_allowed",
    )


def row(**prices: int) -> PriceRow:
    return PriceRow(VERSION, {Meter(name): Rate(0, each * 1_000_000) for name, each in prices.items()})


TALK = row(input=1, cached_input=1, audio_input=3, cached_audio_input=2, output=4, audio_output=5)


def held_on(endpoint: Endpoint, price_row: PriceRow, **fields: object) -> NanoUsd:
    asked = replace(ASKED, endpoint=endpoint, **fields)  # type: ignore[arg-type]
    return held(asked, offers(**{str(endpoint): (price_row,)}))


@pytest.mark.parametrize(
    ("endpoint", "price_row", "fields", "expected"),
    [
        (Endpoint.IMAGES, row(image=5), {"units": 3}, 15),
        # The dearer way is not held for: the price has decided.
        (Endpoint.IMAGES, row(image=5, input=9, image_output=9), {"units": 3}, 15),
        (Endpoint.IMAGES, row(input=1, image_output=2), {"units": 3}, 100 + 3 * 1000 * 2),
        (Endpoint.SPEECH, row(character=2), {"units": 12}, 24),
        (Endpoint.SPEECH, row(input=1, audio_output=2), {"units": 12, "is_stream": True}, 100 + 1000 * 2),
        (Endpoint.TRANSCRIPTIONS, row(audio_second=2), {"body_bytes": 750_001, "file_bytes": 750_000}, 2 * 1001),
        (
            Endpoint.TRANSLATIONS,
            row(input=1, audio_input=3, output=2),
            {"body_bytes": 90, "file_bytes": 9},
            128_000 * 3 + 1000 * 2,
        ),
        (
            Endpoint.IMAGE_EDITS,
            row(input=1, image_input=3, image_output=2),
            {"body_bytes": 9_000_050, "file_bytes": 9_000_000, "files": 2, "units": 3},
            (50 + 2 * 10_000) * 3 + 3 * 1000 * 2,
        ),
        (Endpoint.IMAGE_EDITS, row(image=5), {"files": 2, "units": 3}, 15),
        (Endpoint.EMBEDDINGS, row(input=2), {"body_bytes": 500_000}, 1_000_000),
        (Endpoint.EMBEDDINGS, row(input=1), {"units": 3, "has_references": True}, 3 * 128_000 + 100),
        (Endpoint.RERANK, row(search_unit=7), {"units": 101}, 14),
        (Endpoint.RERANK, row(search_unit=7), {"units": 1, "body_bytes": 50_000}, 21),
        (Endpoint.RERANK, row(input=1), {"units": 300, "body_bytes": 10_000, "query_bytes": 8000}, 10_000 + 300 * 8000),
        (Endpoint.RERANK, row(input=1), {"units": 2, "body_bytes": 200_000, "query_bytes": 190_000}, 456_000),
        (Endpoint.REALTIME, TALK, {"choices": 3, "body_bytes": 0}, 3 * (128_000 * 3 + 1000 * 5)),
        (Endpoint.MODERATIONS, row(request=4), {}, 4),
        (Endpoint.COUNT_TOKENS, row(input=4, output=4), {"may_search": True}, 0),
        (Endpoint.RESPONSES, row(input=1, output=2), {"max_output_tokens": 10}, 120),
        (Endpoint.COMPLETIONS, row(input=1, output=2), {"choices": 4, "max_output_tokens": 10}, 180),
    ],
)
def test_what_each_endpoint_can_cost_is_held(
    endpoint: Endpoint, price_row: PriceRow, fields: dict[str, object], expected: int
) -> None:
    assert held_on(endpoint, price_row, **fields) == expected


@pytest.mark.parametrize("endpoint", [Endpoint.IMAGES, Endpoint.SPEECH, Endpoint.EMBEDDINGS, Endpoint.RERANK])
def test_what_cannot_be_made_shorter_is_held_for_whole_or_not_at_all(endpoint: Endpoint) -> None:
    prices = row(input=1, image_output=2, audio_output=2)
    decision = decided(
        replace(ASKED, endpoint=endpoint, units=2, is_stream=True), offered=offers(**{str(endpoint): (prices,)})
    )
    assert isinstance(decision, Admitted)
    assert decision.output is not None
    assert decision.output.least_nano_usd == decision.output.nano_usd


def test_a_session_is_worth_having_with_one_response_and_is_told_by_what_it_is_counted_down() -> None:
    asked = replace(ASKED, endpoint=Endpoint.REALTIME, choices=3, body_bytes=0)
    decision = decided(asked, offered=offers(realtime=(TALK,)))
    assert isinstance(decision, Admitted)
    assert decision.output is not None
    one = 128_000 * 3 + 1000 * 5
    assert (decision.output.nano_usd, decision.output.least_nano_usd) == (3 * one, one)
    assert decision.session == Session(
        NanoUsd(one),
        {
            "input": 3 * UNITS_PER_PRICE,
            "cached_input": 2 * UNITS_PER_PRICE,
            "output": 5 * UNITS_PER_PRICE,
            "audio_second": 0,
        },
    )
    assert decision.tokens_max == 128_000 + 1000
    short = decision.holding(NanoUsd(one))
    assert (short.hold_nano_usd, short.max_tokens) == (one, None)


@pytest.mark.parametrize(
    ("endpoint", "price_row", "code"),
    [
        (Endpoint.REALTIME, row(input=1, audio_input=1, output=1, audio_output=1), "endpoint_not_priced"),
        (Endpoint.EMBEDDINGS, row(output=1), "endpoint_not_priced"),
        (Endpoint.MODERATIONS, row(input=1), "endpoint_not_priced"),
        (Endpoint.IMAGES, row(input=1, output=1), "endpoint_not_priced"),
        (Endpoint.SPEECH, row(input=1, audio_output=1), "stream_required"),
    ],
)
def test_what_nobody_could_be_charged_for_is_refused(endpoint: Endpoint, price_row: PriceRow, code: str) -> None:
    asked = replace(ASKED, endpoint=endpoint, units=1)
    assert decided(asked, offered=offers(**{str(endpoint): (price_row,)})) == (400, code)


def test_a_lease_is_for_what_admission_sees_as_equal_but_for_its_bounds() -> None:
    others: dict[str, Any] = {
        "mode": Mode.TEST,
        "endpoint": Endpoint.MESSAGES,
        "model": ModelName("another"),
        "has_references": True,
        "choices": 2,
        "files": 1,
        "file_bytes": 1,
        "units": 1,
        "query_bytes": 1,
        "is_stream": True,
        "least_output_tokens": 1,
        "service_tier": ServiceTier("flex"),
        "may_search": True,
        "meters": frozenset({Meter.WEB_SEARCH}),
        "offering": Offering(MODEL, {PROVIDER: "up/0"}),
    }
    bounded = {"body_bytes", "max_output_tokens"}
    of_this_question = {"request_id", "address", "credential", "is_lease_wanted", "unspent", "own_keys_as_of"}
    never_lent = {"named", "provider"}
    assert {each.name for each in fields(ASKED)} == {*others} | bounded | of_this_question | never_lent
    shapes = {replace(ASKED, **{name: value}).shape for name, value in others.items()} | {ASKED.shape}
    assert len(shapes) == len(others) + 1


def test_a_request_is_expected_to_take_no_more_than_a_minute_of_a_provider() -> None:
    found = offers(chat=(price(input_=1, output=1), price(input_=1, output=1)))
    limited = replace(
        found,
        provider_limits={
            ProviderName("p0"): Limits(tokens_per_minute=700),
            ProviderName("p1"): Limits(tokens_per_minute=500),
        },
    )
    asked = replace(ASKED, choices=1000, max_output_tokens=1000)
    for offered, expected in ((found, None), (limited, 500)):
        decision = decide(asked, KEY, offered, now=NOW)
        assert isinstance(decision, Admitted)
        assert decision.expected_tokens == expected
