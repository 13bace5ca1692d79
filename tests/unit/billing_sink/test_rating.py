"""What a finished request was and what it costs, rule by rule. Tokens cost 2 nano-USD each way, and us one."""

import json
from collections.abc import Mapping
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_sink.access_log import parse_line
from billing_sink.prices import PriceBook, UnknownPriceError
from billing_sink.rating import (
    NOTHING,
    SEARCHES_MAX,
    ImplausibleUsageError,
    Outcome,
    Rated,
    StrayRequestError,
    UsageSource,
    rate,
)
from gateway_core.ids import ModelName, OrgId, PriceVersion, ProviderName
from gateway_core.mode import Mode
from gateway_core.pricing import (
    OrgTerms,
    OwnKeyFee,
    PriceRow,
    Rate,
    Rates,
    UnpricedError,
    UnpricedTierError,
    UnusablePriceError,
)
from gateway_core.provider_usage import InvalidUsageError, UnknownUsageError
from gateway_core.usage import InvalidTierError, Meter, ServiceTier
from tests.support.spool_lines import (
    CHAT_USAGE,
    GRANT,
    MESSAGE_DELTA,
    MESSAGE_START,
    MESSAGES,
    REQUEST,
    Json,
    chat_stream,
    line,
    messages_stream,
    not_a_request,
    refused,
    render,
)

RATES = {meter: Rate(1_000_000, 2_000_000) for meter in (Meter.INPUT, Meter.CACHED_INPUT, Meter.OUTPUT)}
PRICES = PriceBook.of(
    PriceVersion(18),
    [
        ((ModelName(model), ProviderName(provider)), PriceRow(PriceVersion(10), RATES))
        for model, provider in [("gpt-4o-mini", "openai"), ("claude-sonnet-4-5", "anthropic")]
    ],
)
STREAMED = {**REQUEST, "stream": True}
STREAMED_MESSAGES = {**MESSAGES, "stream": True}


def rated(written: Json) -> Rated:
    return rate(parse_line(render(written)), PRICES)


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(refused(), id="refused by ext_authz, key known"),
        pytest.param(refused(code="invalid_api_key", grant={"error_code": "invalid_api_key"}), id="key unknown"),
        pytest.param(refused(grant=None, status=503), id="ext_authz did not answer"),
        pytest.param(refused(grant={}, status=503), id="an empty grant"),
        pytest.param(
            refused(grant=None, request={"error_code": "invalid_json"}, status=400), id="refused by front.lua"
        ),
        pytest.param(refused(status=200, usage_first=CHAT_USAGE), id="refused, whatever the status says"),
        pytest.param(refused(cache="hit"), id="refused, whatever the cache says"),
        pytest.param(not_a_request(), id="no request at all"),
    ],
)
def test_what_was_not_admitted_is_refused_and_costs_nothing(written: Json) -> None:
    found = rated(written)
    assert (found.outcome, found.source, found.meters, found.charge) == (
        Outcome.REFUSED,
        UsageSource.NONE,
        None,
        NOTHING,
    )


@pytest.mark.parametrize(
    "written",
    [
        line(cache="hit"),
        # Who left in the middle, and a route that had chosen a cluster.
        line(cache="hit", response_details="downstream_remote_disconnect", response_flags="DC"),
        chat_stream(cache="hit"),
        line(cache="hit", cluster="simulator"),
        line(cache="hit", cluster="provider/openai", attempts=0, usage_first='{"prompt_tokens": -1}'),
    ],
)
def test_what_was_kept_is_free_whatever_the_line_says_of_providers_and_usage(written: Json) -> None:
    found = rated(written)
    assert (found.outcome, found.charge, found.provider, found.meters) == (Outcome.FREE, NOTHING, None, None)


def test_what_was_to_be_kept_is_charged_as_ever() -> None:
    assert rated(line(cache="miss")).charge == rated(line()).charge != NOTHING


def test_a_list_of_models_is_free() -> None:
    grant = {name: value for name, value in GRANT.items() if name not in {"price_version", "hold_nano_usd"}}
    found = rated(line(request={"endpoint": "models"}, grant=grant, cluster="control_plane", usage_first=None))
    assert (found.outcome, found.provider, found.charge) == (Outcome.FREE, None, NOTHING)


@pytest.mark.parametrize(
    ("written", "meters", "price"),
    [
        pytest.param(line(), {Meter.INPUT: 5, Meter.OUTPUT: 18}, 46, id="chat"),
        pytest.param(chat_stream(), {Meter.INPUT: 5, Meter.OUTPUT: 18}, 46, id="chat stream"),
        pytest.param(
            chat_stream(usage_last={"prompt_tokens": 5, "completion_tokens": 20}),
            {Meter.INPUT: 5, Meter.OUTPUT: 20},
            50,
            id="chat stream with running totals",
        ),
        pytest.param(
            messages_stream(),
            {Meter.INPUT: 472, Meter.CACHED_INPUT: 12, Meter.OUTPUT: 89},
            1146,
            id="messages stream",
        ),
        pytest.param(
            messages_stream(
                request=MESSAGES,
                usage_first={"input_tokens": 10, "output_tokens": 3},
                usage_last=None,
                sse_events=None,
            ),
            {Meter.INPUT: 10, Meter.OUTPUT: 3},
            26,
            id="messages, not streamed: one usage object is all of it",
        ),
        pytest.param(
            line(usage_first={"prompt_tokens": 5, "completion_tokens": 8_000_000}),
            {Meter.INPUT: 5, Meter.OUTPUT: 8_000_000},
            16_000_010,
            id="more than was held: what the provider counted counts",
        ),
    ],
)
def test_a_complete_answer_is_settled_by_the_providers_own_figures(
    written: Json, meters: Mapping[Meter, int], price: int
) -> None:
    found = rated(written)
    assert (found.outcome, found.source) == (Outcome.SETTLED, UsageSource.PROVIDER)
    assert found.meters == meters
    assert (found.charge.price_nano_usd, found.charge.cost_nano_usd) == (price, price // 2)


@pytest.mark.parametrize(
    ("written", "meters"),
    [
        pytest.param(
            chat_stream(usage_first=None),
            {Meter.INPUT: 17, Meter.OUTPUT: 21},
            id="a token per delivered event, and one per 4 bytes of the body",
        ),
        pytest.param(
            chat_stream(usage_first=None, sse_events=3, bytes_sent=3 * 400 + 403),
            {Meter.INPUT: 17, Meter.OUTPUT: 100},
            id="few large events: a token per 4 bytes beyond their framing",
        ),
        pytest.param(
            chat_stream(usage_first=None, sse_events=3, bytes_sent=3 * 400 + 12),
            {Meter.INPUT: 17, Meter.OUTPUT: 3},
            id="small events: one token each",
        ),
        pytest.param(
            chat_stream(usage_first=None, request={**STREAMED, "body_bytes": 65}),
            {Meter.INPUT: 17, Meter.OUTPUT: 21},
            id="bytes are rounded up",
        ),
        pytest.param(
            chat_stream(usage_first=None, request={**STREAMED, "max_output_tokens": 8}),
            {Meter.INPUT: 17, Meter.OUTPUT: 8},
            id="never more output than was asked for",
        ),
        pytest.param(
            chat_stream(usage_first=None, request={**STREAMED, "max_output_tokens": 0}),
            {Meter.INPUT: 17},
            id="no output was asked for",
        ),
        pytest.param(
            chat_stream(usage_first=None, request=STREAMED, grant={**GRANT, "max_tokens": "9"}),
            {Meter.INPUT: 17, Meter.OUTPUT: 9},
            id="never more output than was held for",
        ),
        pytest.param(
            line(usage_first=None, bytes_sent=400 + 47),
            {Meter.INPUT: 17, Meter.OUTPUT: 11},
            id="not streamed: a token per 4 bytes of the answer beyond what is around its text",
        ),
        pytest.param(
            line(usage_first=None, bytes_sent=41),
            {Meter.INPUT: 17, Meter.OUTPUT: 1},
            id="not streamed and hardly anything: a token",
        ),
        pytest.param(
            messages_stream(usage_last=None),
            {Meter.INPUT: 472, Meter.CACHED_INPUT: 12, Meter.OUTPUT: 40},
            id="only the beginning: its input, and the events that were delivered",
        ),
        pytest.param(
            messages_stream(usage_last=None, sse_events=1, bytes_sent=300),
            {Meter.INPUT: 472, Meter.CACHED_INPUT: 12, Meter.OUTPUT: 2},
            id="only the beginning: at least the output it reported",
        ),
        pytest.param(
            messages_stream(usage_last=None, request={**STREAMED_MESSAGES, "max_output_tokens": 1}),
            {Meter.INPUT: 472, Meter.CACHED_INPUT: 12, Meter.OUTPUT: 1},
            id="only the beginning: never more than was asked for",
        ),
        pytest.param(
            messages_stream(usage_first=None, usage_last=None),
            {Meter.INPUT: 17, Meter.OUTPUT: 40},
            id="a stream without even a beginning",
        ),
    ],
)
def test_an_answer_that_broke_off_is_estimated(written: Json, meters: Mapping[Meter, int]) -> None:
    found = rated(written)
    assert (found.outcome, found.source) == (Outcome.ESTIMATED, UsageSource.ESTIMATED)
    assert found.meters == meters
    assert found.charge.price_nano_usd == 2 * sum(meters.values())


def test_an_estimate_never_charges_more_than_was_held_but_costs_us_what_it_costs() -> None:
    found = rated(chat_stream(usage_first=None, grant={**GRANT, "hold_nano_usd": "50"}))
    assert found.outcome is Outcome.ESTIMATED
    assert (found.charge.price_nano_usd, found.charge.cost_nano_usd) == (50, 17 + 21)


def test_an_estimate_without_a_hold_charges_nothing() -> None:
    grant = {name: value for name, value in GRANT.items() if name != "hold_nano_usd"}
    assert rated(chat_stream(usage_first=None, grant=grant)).charge.price_nano_usd == 0


@pytest.mark.parametrize(
    "written",
    [
        *(
            pytest.param(line(status=status, usage_first=None), id=f"status {status}")
            for status in (0, 199, 302, 400, 401, 429, 500, 502, 503, 504)
        ),
        pytest.param(line(status=500), id="an error with usage in it"),
        pytest.param(line(usage_first=None, bytes_sent=0), id="nothing delivered"),
        pytest.param(chat_stream(usage_first=None, sse_events=None, bytes_sent=0), id="a stream without an event"),
        pytest.param(chat_stream(usage_first=None, sse_events=0, bytes_sent=0), id="a stream with no events"),
        pytest.param(line(cluster=None, usage_first=None), id="no provider was reached"),
        pytest.param(line(cluster="control_plane"), id="answered by ourselves"),
        pytest.param(line(cluster="provider/"), id="a provider without a name"),
    ],
)
def test_everything_else_is_released(written: Json) -> None:
    found = rated(written)
    assert (found.outcome, found.source, found.meters, found.charge) == (
        Outcome.RELEASED,
        UsageSource.NONE,
        None,
        NOTHING,
    )


def test_the_provider_is_the_one_whose_cluster_answered() -> None:
    assert rated(line()).provider == "openai"
    assert rated(refused(cluster=None)).provider is None


@pytest.mark.parametrize(
    ("written", "trouble"),
    [
        pytest.param(line(usage_first={"prompt_tokens": -1}), InvalidUsageError, id="usage that is none"),
        pytest.param(line(usage_first="{"), InvalidUsageError, id="usage that is not JSON"),
        pytest.param(messages_stream(usage_last="[]"), InvalidUsageError, id="a last usage that is none"),
        pytest.param(
            line(usage_first={**CHAT_USAGE, "completion_tokens_details": {"reasoning_tokens": 1}}),
            UnpricedError,
            id="a meter nobody priced",
        ),
        pytest.param(line(usage_first={**CHAT_USAGE, "telepathy": 1}), UnknownUsageError, id="a count nobody knows"),
        pytest.param(line(service_tier="priority"), UnpricedTierError, id="a tier nobody priced"),
        pytest.param(
            chat_stream(usage_first=None, service_tier="priority"),
            UnpricedTierError,
            id="a tier nobody priced, cut off",
        ),
        pytest.param(line(service_tier="Two Words"), InvalidTierError, id="a tier that is no word"),
        pytest.param(
            messages_stream(usage_first={**MESSAGE_START, "server_tool_use": {"web_search_requests": 1}}),
            UnpricedError,
            id="a search nobody priced",
        ),
        pytest.param(line(grant={**GRANT, "price_version": 9}), UnknownPriceError, id="before the first price"),
        pytest.param(line(cluster="provider/other"), UnknownPriceError, id="a deployment nobody priced"),
        pytest.param(line(request={**REQUEST, "model": "gpt-99"}), UnknownPriceError, id="a model nobody priced"),
    ],
)
def test_what_cannot_be_priced_is_never_taken_for_free(written: Json, trouble: type[Exception]) -> None:
    with pytest.raises(trouble):
        rated(written)


def test_the_price_is_that_of_the_version_at_admission() -> None:
    key = (ModelName("gpt-4o-mini"), ProviderName("openai"))
    rows = [
        (key, PriceRow(PriceVersion(version), {m: Rate(0, nano * 1_000_000) for m in RATES}))
        for version, nano in [(10, 2), (19, 1000)]
    ]
    found = rate(parse_line(render(line())), PriceBook.of(PriceVersion(19), rows))
    assert found.charge.price_nano_usd == 46


KEY = (ModelName("gpt-4o-mini"), ProviderName("openai"))
WITH_FEE = PriceRow(PriceVersion(10), {**RATES, Meter.REQUEST: Rate(1_000_000, 3_000_000)})


def test_the_terms_are_those_of_the_organisation_at_the_version_of_admission() -> None:
    terms = [
        (OrgId("org_demo"), OrgTerms(PriceVersion(18), 500_000, {(KEY[0], None): {Meter.INPUT: 10_000_000}})),
        (OrgId("org_demo"), OrgTerms(PriceVersion(19), 9_000_000)),
        (OrgId("org_other"), OrgTerms(PriceVersion(1), 9_000_000)),
    ]
    found = rate(
        parse_line(render(line())), PriceBook.of(PriceVersion(19), [(KEY, PriceRow(PriceVersion(10), RATES))], terms)
    )
    assert (found.charge.price_nano_usd, found.charge.cost_nano_usd) == (5 * 10 + 18 * 3, 23)


def with_own_key(cluster: str, own_keys: str | None = "openai") -> Json:
    """A request that a cluster with an own key has answered, and what it was admitted with."""
    return line(cluster=cluster, grant={**GRANT, "own_keys": own_keys})


@pytest.mark.parametrize("cluster", ["provider/openai/org_demo", "provider/openai/own~anthropic"])
@pytest.mark.parametrize(("fee_ppm", "price"), [(None, 0), (0, 0), (500_000, 23), (1_000_000, 46)])
def test_an_own_key_costs_us_nothing_and_the_organisation_the_fee_at_admission_whatever_its_terms(
    cluster: str, fee_ppm: int | None, price: int
) -> None:
    terms = [(OrgId("org_demo"), OrgTerms(PriceVersion(1), 9_000_000))]
    fees = [(KEY[1], OwnKeyFee(PriceVersion(19), 777_777))]
    if fee_ppm is not None:
        fees.append((KEY[1], OwnKeyFee(PriceVersion(18), fee_ppm)))
    prices = PriceBook.of(PriceVersion(19), [(KEY, PriceRow(PriceVersion(10), RATES))], terms, fees)
    found = rate(parse_line(render(with_own_key(cluster))), prices)
    assert (found.provider, found.outcome, found.has_own_key) == ("openai", Outcome.SETTLED, True)
    assert (found.charge.cost_nano_usd, found.charge.price_nano_usd) == (0, price)
    assert found.meters == {Meter.INPUT: 5, Meter.OUTPUT: 18}


def test_our_key_behind_an_own_one_is_charged_as_ever() -> None:
    found = rated(with_own_key("provider/openai", "openai+"))
    assert (found.has_own_key, found.charge.cost_nano_usd, found.charge.price_nano_usd) == (False, 23, 46)


@pytest.mark.parametrize(
    "written",
    [
        with_own_key("provider/openai/org_other"),
        with_own_key("provider/openai/org_demo", None),
        with_own_key("provider/openai/org_demo", "anthropic openai-eu+"),
        with_own_key("provider/openai/own~anthropic", "anthropic"),
    ],
)
def test_a_key_that_a_request_was_not_admitted_with_is_for_a_person_to_look_at(written: Json) -> None:
    with pytest.raises(StrayRequestError):
        rated(written)


@pytest.mark.parametrize(
    ("written", "outcome", "meters", "price"),
    [
        pytest.param(
            line(), Outcome.SETTLED, {Meter.INPUT: 5, Meter.OUTPUT: 18, Meter.REQUEST: 1}, 46 + 3, id="settled"
        ),
        pytest.param(
            chat_stream(usage_first=None),
            Outcome.ESTIMATED,
            {Meter.INPUT: 17, Meter.OUTPUT: 21, Meter.REQUEST: 1},
            76 + 3,
            id="estimated",
        ),
        pytest.param(line(status=500, usage_first=None), Outcome.RELEASED, None, 0, id="nothing delivered, no fee"),
    ],
)
def test_a_price_per_request_is_charged_once_for_what_was_delivered(
    written: Json, outcome: Outcome, meters: Mapping[Meter, int] | None, price: int
) -> None:
    found = rate(parse_line(render(written)), PriceBook.of(PriceVersion(18), [(KEY, WITH_FEE)]))
    assert (found.outcome, found.meters, found.charge.price_nano_usd) == (outcome, meters, price)


def test_a_price_that_cannot_be_read_whole_is_not_used() -> None:
    unusable = PriceRow.of(10, ["input"], ['{"batch": true}'], [1], [1])
    with pytest.raises(UnusablePriceError):
        rate(parse_line(render(line())), PriceBook.of(PriceVersion(18), [(KEY, unusable)]))


@given(
    events=st.integers(0, 10**6),
    body_bytes=st.integers(0, 10**7),
    asked=st.none() | st.integers(0, 10**6),
    hold=st.integers(0, 10**9),
    begun=st.booleans(),
)
def test_an_estimate_stays_within_the_hold_and_the_bound_and_counts_nothing_as_zero(
    events: int, body_bytes: int, asked: int | None, hold: int, begun: bool
) -> None:
    found = rated(
        messages_stream(
            sse_events=events,
            request={**STREAMED_MESSAGES, "body_bytes": body_bytes, "max_output_tokens": asked},
            grant={**GRANT, "hold_nano_usd": str(hold)},
            usage_first=MESSAGE_START if begun else None,
            usage_last=None,
            bytes_sent=0,
        )
    )
    assert (found.outcome is Outcome.ESTIMATED) is (begun or events > 0)
    meters = found.meters or {}
    assert found.charge.price_nano_usd <= hold
    assert 0 not in meters.values()
    if asked is not None:
        assert meters.get(Meter.OUTPUT, 0) <= asked


@given(cut=st.booleans(), output=st.integers(0, 10**6))
def test_the_last_word_of_a_stream_settles_it_and_a_missing_one_does_not(cut: bool, output: int) -> None:
    found = rated(messages_stream(usage_last=None if cut else {**MESSAGE_DELTA, "output_tokens": output}))
    assert found.outcome is (Outcome.ESTIMATED if cut else Outcome.SETTLED)


def test_what_was_answered_as_a_stream_is_one_whatever_the_request_seemed_to_ask() -> None:
    found = rated(messages_stream(request=MESSAGES, usage_last=None, sse_events=900, bytes_sent=900 * 400))
    assert found.outcome is Outcome.ESTIMATED
    assert found.meters == {Meter.INPUT: 472, Meter.CACHED_INPUT: 12, Meter.OUTPUT: 900}


RESPONSES = {**STREAMED, "endpoint": "responses"}


def test_comments_and_what_a_response_says_again_are_no_output() -> None:
    found = rated(
        chat_stream(request=RESPONSES, usage_first=None, sse_events=3, bytes_sent=200_900, sse_beside_bytes=200_600)
    )
    assert (found.outcome, found.meters) == (Outcome.ESTIMATED, {Meter.INPUT: 17, Meter.OUTPUT: 3})
    only_comments = chat_stream(usage_first=None, sse_events=0, bytes_sent=9000, sse_beside_bytes=9000)
    assert rated(only_comments).outcome is Outcome.RELEASED


REFERRING = {**STREAMED, "references": True}


def test_what_was_read_beside_the_body_is_taken_for_all_that_was_held_for_it_unless_the_provider_says() -> None:
    grant = {**GRANT, "input_tokens_max": "128000"}
    cut = chat_stream(usage_first=None, request=REFERRING, grant=grant)
    assert rated(cut).meters == {Meter.INPUT: 128_000, Meter.OUTPUT: 21}
    assert rated(cut).charge.price_nano_usd == 2 * (128_000 + 21)
    poor = {**grant, "hold_nano_usd": "1000"}
    assert rated(chat_stream(usage_first=None, request=REFERRING, grant=poor)).charge.price_nano_usd == 1000
    told = messages_stream(request={**STREAMED_MESSAGES, "references": True}, grant=grant, usage_last=None)
    assert rated(told).meters == {Meter.INPUT: 472, Meter.CACHED_INPUT: 12, Meter.OUTPUT: 40}
    assert rated(chat_stream(request=REFERRING, grant=grant)).charge.price_nano_usd == 46
    assert rated(cut).is_estimated_with_references
    assert not rated(told).is_estimated_with_references
    assert not rated(chat_stream(usage_first=None)).is_estimated_with_references


def test_an_answer_too_large_for_us_was_made_and_is_charged_up_to_the_hold() -> None:
    lost: Json = {"status": 500, "response_details": "response_payload_too_large", "usage_first": None}
    grant = {**GRANT, "tokens_max": "1017", "hold_nano_usd": "1500"}
    found = rated(line("lost", grant=grant, **lost))
    assert (found.outcome, found.meters) == (Outcome.ESTIMATED, {Meter.INPUT: 17, Meter.OUTPUT: 1000})
    assert found.charge.price_nano_usd == 1500
    bounded = rated(line("lost", grant=grant, request={**REQUEST, "max_output_tokens": 30, "choices": 2}, **lost))
    assert bounded.meters == {Meter.INPUT: 17, Meter.OUTPUT: 60}
    assert rated(line("lost", **{**lost, "response_details": "via_upstream"})).outcome is Outcome.RELEASED
    assert rated(line("lost", **{**lost, "cluster": None})).outcome is Outcome.RELEASED


BOUNDED = {**GRANT, "tokens_max": "1000"}


@pytest.mark.parametrize(
    ("references", "tokens", "is_charged"),
    [(False, 2000, True), (False, 2001, False), (True, 20_000, True), (True, 20_001, False)],
)
def test_more_than_the_model_can_have_read_and_written_is_for_a_person_to_look_at(
    references: bool, tokens: int, is_charged: bool
) -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": tokens}
    written = line(usage_first=usage, grant=BOUNDED, request={**REQUEST, "references": references})
    if is_charged:
        assert rated(written).charge.price_nano_usd == 2 * tokens
    else:
        with pytest.raises(ImplausibleUsageError):
            rated(written)


def test_an_answer_of_which_nothing_is_counted_is_no_gift_and_for_a_person_to_look_at() -> None:
    with pytest.raises(ImplausibleUsageError):
        rated(line(usage_first={"prompt_tokens": 0, "completion_tokens": 0}))


@pytest.mark.parametrize("hold", ["0", "1", "1000"])
def test_what_is_merely_beyond_its_hold_is_charged(hold: str) -> None:
    grant = {**BOUNDED, "hold_nano_usd": hold}
    usage = {"prompt_tokens": 900, "completion_tokens": 900}
    found = rated(line(usage_first=usage, grant=grant))
    assert (found.outcome, found.charge.price_nano_usd) == (Outcome.SETTLED, 3600)


def test_more_searches_than_a_request_can_have_made_are_for_a_person_to_look_at() -> None:
    rates = {**RATES, Meter.WEB_SEARCH: Rate(0, 10**12)}
    key = (ModelName("claude-sonnet-4-5"), ProviderName("anthropic"))
    prices = PriceBook.of(PriceVersion(18), [(key, PriceRow(PriceVersion(10), rates))])

    def searching(times: int) -> Rated:
        start = {**MESSAGE_START, "server_tool_use": {"web_search_requests": times}}
        return rate(parse_line(render(messages_stream(usage_first=start))), prices)

    assert searching(SEARCHES_MAX).outcome is Outcome.SETTLED
    with pytest.raises(ImplausibleUsageError):
        searching(SEARCHES_MAX + 1)


def test_another_2xx_is_an_answer_like_200() -> None:
    assert rated(line(status=201)).outcome is Outcome.SETTLED


def test_events_that_carry_many_tokens_count_by_their_bytes() -> None:
    found = rated(chat_stream(usage_first=None, sse_events=10, bytes_sent=10 * 4400))
    assert found.meters is not None
    assert found.meters[Meter.OUTPUT] == 10 * 1000


def test_a_stream_whose_events_were_not_recognised_is_not_free() -> None:
    assert rated(chat_stream(usage_first=None, sse_events=None, bytes_sent=4000)).outcome is Outcome.ESTIMATED


def test_the_bound_of_an_estimate_is_per_choice() -> None:
    asked = {**REQUEST, "stream": True, "max_output_tokens": 20, "choices": 100}
    found = rated(chat_stream(usage_first=None, sse_events=2000, bytes_sent=0, request=asked))
    assert found.meters is not None
    assert found.meters[Meter.OUTPUT] == 2000


TEST_GRANT = {**GRANT, "mode": "test", "rated_as": "openai"}
TEST_REQUEST = {**REQUEST, "mode": "test"}


def test_a_test_request_is_rated_by_the_prices_that_admission_named() -> None:
    live = rated(line())
    play = rated(line(cluster="simulator", grant=TEST_GRANT, request=TEST_REQUEST))
    assert (play.mode, live.mode) == (Mode.TEST, Mode.LIVE)
    assert play.provider == "openai"
    assert (play.outcome, play.charge, play.meters) == (live.outcome, live.charge, live.meters)


def test_a_refused_request_is_of_the_mode_of_its_key_as_far_as_that_is_known() -> None:
    assert rated(refused(grant={**TEST_GRANT, "error_code": "insufficient_quota"})).mode is Mode.TEST
    assert rated(refused(grant=None, request=TEST_REQUEST)).mode is Mode.TEST
    # No such key: Envoy had chosen the route by its looks, and the grant is empty.
    made_up = refused(cluster="simulator", grant={"error_code": "invalid_api_key"}, request=TEST_REQUEST)
    assert (rated(made_up).outcome, rated(made_up).mode) == (Outcome.REFUSED, Mode.TEST)
    assert rated(not_a_request()).mode is Mode.LIVE


def test_a_list_of_models_with_a_test_key_costs_nothing_in_its_own_ledger() -> None:
    asked = {"endpoint": "models", "mode": "test"}
    found = rated(line(cluster="control_plane", grant={"key_id": "k", "mode": "test"}, request=asked))
    assert (found.outcome, found.mode) == (Outcome.FREE, Mode.TEST)


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(line(cluster="simulator"), id="live at the simulator"),
        pytest.param(line(grant=TEST_GRANT, request=TEST_REQUEST), id="test at a provider"),
        pytest.param(line(grant=TEST_GRANT, request=TEST_REQUEST, status=500), id="and refused there"),
    ],
)
def test_a_request_that_was_answered_where_its_mode_does_not_belong_is_nobodys_to_pay(written: Json) -> None:
    with pytest.raises(StrayRequestError):
        rated(written)


FLEX = Rates({meter: Rate(500_000, 1_000_000) for meter in RATES})
WITH_FLEX = PriceBook.of(
    PriceVersion(18),
    [
        ((ModelName(model), ProviderName(provider)), PriceRow(PriceVersion(10), RATES, (), {ServiceTier("flex"): FLEX}))
        for model, provider in [("gpt-4o-mini", "openai"), ("claude-sonnet-4-5", "anthropic")]
    ],
)


@pytest.mark.parametrize(
    ("written", "tier", "price"),
    [
        pytest.param(line(service_tier="default"), "standard", 46, id="served at the standard tier"),
        pytest.param(line(service_tier="flex"), "flex", 23, id="served at another one"),
        pytest.param(
            line(service_tier="default", request={**REQUEST, "service_tier": "flex"}),
            "standard",
            46,
            id="asked for another one, served at the standard one",
        ),
        pytest.param(line(request={**REQUEST, "service_tier": "flex"}), "flex", 23, id="nothing said: as asked"),
        pytest.param(line(request={**REQUEST, "service_tier": "auto"}), "standard", 46, id="nothing said or asked"),
        pytest.param(
            chat_stream(usage_first=None, service_tier="flex"), "flex", 17 + 21, id="cut off after its tier was known"
        ),
        pytest.param(
            messages_stream(usage_first={**MESSAGE_START, "service_tier": "standard"}),
            "standard",
            1146,
            id="named inside the usage",
        ),
    ],
)
def test_a_request_is_charged_at_the_tier_it_was_served_at(written: Json, tier: str, price: int) -> None:
    found = rate(parse_line(render(written)), WITH_FLEX)
    assert (found.service_tier, found.charge.price_nano_usd) == (tier, price)


def rated_on(
    endpoint: str,
    meters: Mapping[Meter, int],
    *,
    is_free: bool = False,
    units: int | None = None,
    asked: Json | None = None,
    **fields: object,
) -> Rated:
    """A request on an endpoint, rated by these prices per unit, in nano-USD."""
    rates = {meter: Rate(0, price * 1_000_000) for meter, price in meters.items()}
    row = PriceRow.of(10, ["free"], ["{}"], [0], [0]) if is_free else PriceRow(PriceVersion(10), rates)
    book = PriceBook.of(PriceVersion(18), [((ModelName("gpt-4o-mini"), ProviderName("openai")), row)])
    request = {**REQUEST, "endpoint": endpoint, **({} if units is None else {"units": units}), **(asked or {})}
    return rate(parse_line(render(line("one", request=request, **fields))), book)


@pytest.mark.parametrize(("endpoint", "meter"), [("images", Meter.IMAGE), ("speech", Meter.CHARACTER)])
def test_what_has_a_price_by_what_is_asked_is_charged_by_that_whatever_is_reported(endpoint: str, meter: Meter) -> None:
    for usage in (None, {"input_tokens": 5, "output_tokens": 900}):
        found = rated_on(endpoint, {meter: 7, Meter.INPUT: 1}, units=3, usage_first=usage)
        assert (found.outcome, found.source, found.meters) == (Outcome.SETTLED, UsageSource.REQUEST, {meter: 3})
        assert found.charge.price_nano_usd == 21
    assert rated_on(endpoint, {meter: 7}, units=3, usage_first=None, bytes_sent=0).outcome is Outcome.RELEASED
    assert rated_on(endpoint, {meter: 7}, units=3, usage_first=None, status=500).outcome is Outcome.RELEASED
    with pytest.raises(ImplausibleUsageError):
        rated_on(endpoint, {meter: 7}, usage_first=None)


FORM: Json = {"body_bytes": 9000, "file_bytes": 8001, "files": 1}


@pytest.mark.parametrize(
    ("meters", "expected"),
    [
        ({Meter.AUDIO_SECOND: 1}, {Meter.AUDIO_SECOND: 3}),
        (
            {Meter.INPUT: 1, Meter.AUDIO_INPUT: 1, Meter.OUTPUT: 1},
            {Meter.INPUT: 250, Meter.AUDIO_INPUT: 30, Meter.OUTPUT: 25},
        ),
    ],
)
def test_sound_of_whose_length_nothing_is_told_is_estimated_by_the_size_of_its_file(
    meters: Mapping[Meter, int], expected: Mapping[Meter, int]
) -> None:
    found = rated_on("transcriptions", meters, asked=FORM, usage_first=None, bytes_sent=400 + 4 * 25)
    assert (found.outcome, found.meters) == (Outcome.ESTIMATED, expected)
    assert rated_on("transcriptions", {}, is_free=True, asked=FORM, usage_first=None).charge.price_nano_usd == 0
    assert rated_on("transcriptions", meters, asked=FORM, usage_first=None, bytes_sent=0).outcome is Outcome.RELEASED


def test_sound_is_charged_by_the_second_beyond_its_hold_too_but_never_a_day_of_it() -> None:
    prices = {Meter.AUDIO_SECOND: 1_000_000}
    found = rated_on("translations", prices, asked=FORM, usage_first={"duration": 86_399.5})
    assert (found.outcome, found.charge.price_nano_usd) == (Outcome.SETTLED, 86_400_000_000)
    for seconds in (86_401, 0):
        with pytest.raises(ImplausibleUsageError):
            rated_on("translations", prices, asked=FORM, usage_first={"type": "duration", "seconds": seconds})


def test_a_moderation_is_charged_by_the_request_and_never_for_nothing_that_nobody_said() -> None:
    found = rated_on("moderations", {Meter.REQUEST: 5}, usage_first=None)
    assert (found.outcome, found.meters, found.charge.price_nano_usd) == (Outcome.SETTLED, {Meter.REQUEST: 1}, 5)
    assert rated_on("moderations", {}, is_free=True, usage_first=None).charge.price_nano_usd == 0
    with pytest.raises(UnpricedError):
        rated_on("moderations", {Meter.INPUT: 5}, usage_first=None)


def test_a_count_of_tokens_is_free_unless_each_request_has_a_price() -> None:
    found = rated_on("count_tokens", {Meter.INPUT: 5}, usage_first=None)
    assert (found.outcome, found.meters, found.charge.price_nano_usd) == (Outcome.SETTLED, {}, 0)
    assert rated_on("count_tokens", {Meter.INPUT: 5, Meter.REQUEST: 3}, usage_first=None).charge.price_nano_usd == 3


TALK = dict.fromkeys(
    (Meter.INPUT, Meter.CACHED_INPUT, Meter.AUDIO_INPUT, Meter.CACHED_AUDIO_INPUT, Meter.OUTPUT, Meter.AUDIO_OUTPUT), 1
)


def session(responses: int = 1, **usage: int) -> str:
    return json.dumps({"responses": responses, "transcriptions": 0, "usage": usage})


USED: Final = session(input_tokens=7, output_tokens=2)


@pytest.mark.parametrize(
    ("status", "usage", "unfinished", "outcome", "expected"),
    [
        (101, USED, None, Outcome.SETTLED, {Meter.INPUT: 7, Meter.OUTPUT: 2}),
        (101, USED, 0, Outcome.SETTLED, {Meter.INPUT: 7, Meter.OUTPUT: 2}),
        (101, USED, 5, Outcome.ESTIMATED, {Meter.INPUT: 7, Meter.OUTPUT: 7}),
        (101, None, 5, Outcome.ESTIMATED, {Meter.OUTPUT: 5}),
        (101, '{"responses": 1, "transcriptions": 0}', None, Outcome.RELEASED, None),
        (101, None, None, Outcome.RELEASED, None),
        (200, USED, None, Outcome.RELEASED, None),
    ],
)
def test_a_session_is_charged_by_what_was_counted_and_a_token_a_piece_of_what_had_begun(
    status: int, usage: str | None, unfinished: int | None, outcome: Outcome, expected: Mapping[Meter, int] | None
) -> None:
    found = rated_on("realtime", TALK, status=status, usage_first=usage, sse_events=unfinished)
    assert (found.outcome, found.meters or None) == (outcome, expected)


def test_what_a_session_has_delivered_and_nobody_counted_is_estimated_up_to_what_is_held() -> None:
    unfinished = json.dumps(
        {"responses": 1, "pieces": 3, "audio_bytes": 640_000, "text_bytes_sent": 40, "is_telephone": False}
    )
    found = rated_on("realtime", TALK, status=101, usage_first=USED, unfinished=unfinished)
    assert (found.outcome, found.source) == (Outcome.ESTIMATED, UsageSource.ESTIMATED)
    assert found.meters == {Meter.INPUT: 7 + 10, Meter.OUTPUT: 2 + 3, Meter.AUDIO_OUTPUT: 200}
    grant = {**GRANT, "hold_nano_usd": "100"}
    found = rated_on("realtime", TALK, status=101, usage_first=USED, unfinished=unfinished, grant=grant)
    assert found.charge.price_nano_usd == 100
    assert rated_on("realtime", TALK, status=101, usage_first=USED, unfinished="{}").outcome is Outcome.SETTLED


def test_as_many_tokens_are_plausible_as_there_were_responses() -> None:
    usage = {"input_tokens": 900, "output_tokens": 100}
    grant = {**GRANT, "tokens_max": "100"}
    assert (
        rated_on("realtime", TALK, status=101, usage_first=session(5, **usage), grant=grant).outcome is Outcome.SETTLED
    )
    with pytest.raises(ImplausibleUsageError):
        rated_on("realtime", TALK, status=101, usage_first=session(4, **usage), grant=grant)


@pytest.mark.parametrize(
    ("endpoint", "meters", "units", "expected"),
    [
        ("embeddings", {Meter.INPUT: 1}, 1, {Meter.INPUT: 17}),
        ("rerank", {Meter.INPUT: 1}, 150, {Meter.INPUT: 17}),
        ("rerank", {Meter.SEARCH_UNIT: 1}, 150, {Meter.SEARCH_UNIT: 2}),
        ("images", {Meter.INPUT: 1, Meter.IMAGE_OUTPUT: 1}, 2, {Meter.INPUT: 17, Meter.IMAGE_OUTPUT: 100}),
        ("speech", {Meter.INPUT: 1, Meter.AUDIO_OUTPUT: 1}, 2, {Meter.INPUT: 17, Meter.AUDIO_OUTPUT: 100}),
    ],
)
def test_what_came_without_its_usage_is_estimated_in_the_meters_of_its_endpoint(
    endpoint: str, meters: Mapping[Meter, int], units: int, expected: Mapping[Meter, int]
) -> None:
    found = rated_on(endpoint, meters, units=units, usage_first=None, bytes_sent=400 + 256 * 100)
    assert (found.outcome, found.source, found.meters) == (Outcome.ESTIMATED, UsageSource.ESTIMATED, expected)
