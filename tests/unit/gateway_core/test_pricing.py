import json
from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_core.ids import ModelName, PriceVersion, ProviderName
from gateway_core.money import NanoUsd
from gateway_core.pricing import (
    LIST_TERMS,
    Charge,
    OrgTerms,
    PriceRow,
    Rate,
    Terms,
    Tier,
    UnpricedError,
    UnpricedTierError,
    UnusablePriceError,
    billable,
    charge,
    worst_case,
)
from gateway_core.usage import (
    ASKED_METERS,
    INPUT_METERS,
    OUTPUT_METERS,
    PROVIDER_METERS,
    STANDARD,
    TOKEN_METERS,
    Meter,
    ServiceTier,
    Usage,
)

AMOUNTS = st.integers(0, 10**12)
RATES = st.builds(Rate, AMOUNTS, AMOUNTS)
COUNTS = st.dictionaries(st.sampled_from(PROVIDER_METERS), st.integers(1, 10**6))
SERVICE_TIERS = st.sampled_from([STANDARD, ServiceTier("flex"), ServiceTier("priority")])
TERMS = st.builds(Terms, st.integers(-1_000_000, 5_000_000), st.dictionaries(st.sampled_from(Meter), AMOUNTS))


@st.composite
def rows(draw: st.DrawFn) -> PriceRow:
    """A row with a rate for every meter, and up to three tiers that replace some; the same for some meters at two service tiers."""
    conditions: list[str] = []
    meters: list[Meter] = []
    for service_tier in (None, "flex", "priority"):
        named = {} if service_tier is None else {"service_tier": service_tier}
        own = draw(st.lists(st.sampled_from(Meter), unique=True, min_size=1)) if named else list(Meter)
        meters += own
        conditions += [json.dumps(named)] * len(own)
        for bound in draw(st.lists(st.integers(0, 10**6), max_size=3, unique=True)):
            others = draw(st.lists(st.sampled_from(own), unique=True))
            meters += others
            conditions += [json.dumps({**named, "input_tokens_above": bound})] * len(others)
    amounts = st.lists(AMOUNTS, min_size=len(meters), max_size=len(meters))
    return PriceRow.of(1, meters, conditions, draw(amounts), draw(amounts))


def row(**price_nano_usd_per_mtok: int) -> PriceRow:
    """Rates that cost us half of what the tenant pays."""
    return PriceRow(PriceVersion(1), rates(**price_nano_usd_per_mtok))


def rates(**price_nano_usd_per_mtok: int) -> Mapping[Meter, Rate]:
    return {Meter(name): Rate(price // 2, price) for name, price in price_nano_usd_per_mtok.items()}


def usage(**counts: int) -> Usage:
    return Usage({Meter(name): count for name, count in counts.items()})


def test_every_meter_is_charged_at_its_own_rate() -> None:
    prices = row(input=150_000_000, cached_input=75_000_000, output=600_000_000)
    charged = charge(usage(input=1000, cached_input=2000, output=500), prices, LIST_TERMS)
    assert charged == Charge(cost_nano_usd=NanoUsd(300_000), price_nano_usd=NanoUsd(600_000))


def test_nothing_used_costs_nothing() -> None:
    assert charge(usage(), row(input=1), LIST_TERMS) == Charge(NanoUsd(0), NanoUsd(0))


@pytest.mark.parametrize(("tokens", "expected"), [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_half_a_nano_dollar_goes_to_the_even_neighbour(tokens: int, expected: int) -> None:
    assert charge(usage(input=tokens), row(input=500_000), LIST_TERMS).price_nano_usd == expected


def test_a_charge_is_rounded_once_and_not_per_meter() -> None:
    # Each line is 0.4 nano-USD: rounded alone they vanish, together they are 1.2.
    prices = row(input=400_000, cached_input=400_000, output=400_000)
    assert charge(usage(input=1, cached_input=1, output=1), prices, LIST_TERMS).price_nano_usd == 1


def test_a_markup_is_not_rounded_before_the_sum_is() -> None:
    # 0.5 nano-USD and a tenth of it: rounded before the markup it would be nothing.
    assert charge(usage(input=1), row(input=500_000), Terms(markup_ppm=100_000)).price_nano_usd == 1


def test_amounts_beyond_the_precision_of_a_double_stay_exact() -> None:
    price = charge(usage(input=999_999_999), row(input=2**53 + 1), LIST_TERMS).price_nano_usd
    assert price == 9_007_199_245_733_793_745


def test_tokens_of_a_kind_without_a_rate_are_not_free() -> None:
    with pytest.raises(UnpricedError, match="no price for meter reasoning") as unpriced:
        charge(usage(input=1, reasoning=1), row(input=1), LIST_TERMS)
    assert unpriced.value.meter is Meter.REASONING


def test_an_organisations_own_price_does_not_stand_in_for_one_the_deployment_lacks() -> None:
    with pytest.raises(UnpricedError):
        charge(usage(reasoning=1), row(input=1), Terms(prices={Meter.REASONING: 1}))


def test_a_rate_of_zero_is_a_price() -> None:
    assert charge(usage(input=5), row(input=0), LIST_TERMS).price_nano_usd == 0


def test_every_meter_of_tokens_is_on_exactly_one_side_and_the_others_on_none() -> None:
    assert sorted(INPUT_METERS + OUTPUT_METERS) == sorted(TOKEN_METERS)
    assert set(Meter) - set(TOKEN_METERS) == {Meter.REQUEST, Meter.WEB_SEARCH, Meter.SEARCH_UNIT, *ASKED_METERS}


def test_a_request_that_has_a_price_is_counted_once_and_is_no_token() -> None:
    prices = row(input=0, request=4_000_000)
    counted = billable(usage(input=7), prices)
    assert counted == usage(input=7, request=1) == billable(counted, prices)
    assert counted.total_tokens == 7
    assert charge(usage(input=7), prices, LIST_TERMS) == Charge(NanoUsd(2), NanoUsd(4))
    assert charge(usage(), prices, LIST_TERMS).price_nano_usd == 4


def test_a_request_without_a_price_is_not_counted() -> None:
    assert billable(usage(input=7), row(input=1)) == usage(input=7)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        pytest.param({"input": 10, "output": 1}, 10 * 1 + 1 * 5, id="not above the bound"),
        pytest.param({"input": 11, "output": 1}, 11 * 2 + 1 * 5, id="above it: all of the input, and output as below"),
        pytest.param({"input": 6, "cached_input": 5}, 6 * 2 + 5 * 1, id="cached tokens are read too"),
        pytest.param({"input": 10, "output": 99}, 10 * 1 + 99 * 5, id="output does not count"),
        pytest.param({"input": 21, "output": 1}, 21 * 4 + 1 * 7, id="the highest bound"),
        pytest.param({"input": 21, "cached_input": 1}, 21 * 4 + 1, id="what no tier names costs what it does below"),
    ],
)
def test_a_tier_rates_all_of_a_request_that_reads_more_than_its_bound(tokens: dict[str, int], expected: int) -> None:
    prices = PriceRow.of(
        1,
        ["input", "output", "input", "output", "cached_input", "input"],
        [
            '{"input_tokens_above": 20}',
            '{"input_tokens_above": 20}',
            '{"input_tokens_above": 10}',
            *["{}"] * 3,
        ],
        [0] * 6,
        [each * 1_000_000 for each in (4, 7, 2, 5, 1, 1)],
    )
    assert charge(usage(**tokens), prices, LIST_TERMS).price_nano_usd == expected


def test_a_free_version_rates_every_token_at_nothing() -> None:
    prices = PriceRow.of(1, ["free"], ["{}"], [0], [0])
    every = Usage(dict.fromkeys(TOKEN_METERS, 1000))
    assert billable(every, prices) == every
    assert charge(every, prices, Terms(markup_ppm=500_000)) == Charge(NanoUsd(0), NanoUsd(0))
    assert worst_case(prices, LIST_TERMS, input_tokens_max=10**9).nano_usd(10**9) == 0
    assert charge(every, prices, Terms(prices={Meter.OUTPUT: 5_000_000})).price_nano_usd == 5000


@pytest.mark.parametrize(
    "condition",
    [
        '{"weekday": "sunday"}',
        '{"service_tier": 1}',
        '{"service_tier": null}',
        '{"input_tokens_above": 5, "batch": true}',
        '{"input_tokens_above": "5"}',
        '{"input_tokens_above": true}',
        '{"input_tokens_above": 5.5}',
        '{"input_tokens_above": null}',
    ],
)
def test_a_version_with_a_condition_that_is_not_known_here_is_of_no_use_for_anything(condition: str) -> None:
    prices = PriceRow.of(7, ["input", "input"], ["{}", condition], [0, 0], [1, 1])
    assert not prices.is_usable
    with pytest.raises(UnusablePriceError, match="price version 7"):
        charge(usage(input=1), prices, LIST_TERMS)
    with pytest.raises(UnusablePriceError):
        charge(usage(), prices, LIST_TERMS)
    with pytest.raises(UnusablePriceError):
        worst_case(prices, LIST_TERMS, input_tokens_max=1)


def test_a_markup_is_on_every_meter_and_leaves_our_cost_alone() -> None:
    prices = row(input=2_000_000, output=4_000_000, request=10_000_000)
    charged = charge(usage(input=5, output=5), prices, Terms(markup_ppm=500_000))
    assert charged == Charge(cost_nano_usd=NanoUsd(20), price_nano_usd=NanoUsd(60))
    assert charge(usage(input=5), prices, Terms(markup_ppm=-1_000_000)).price_nano_usd == 0


def test_an_organisations_own_price_beats_the_markup_in_every_tier() -> None:
    tiers = (Tier(10, rates(input=9_000_000, output=9_000_000)),)
    prices = PriceRow(PriceVersion(1), rates(input=2_000_000, output=4_000_000), tiers)
    terms = Terms(markup_ppm=1_000_000, prices={Meter.INPUT: 1_000_000})
    assert charge(usage(input=10, output=1), prices, terms).price_nano_usd == 10 + 8
    assert charge(usage(input=11, output=1), prices, terms).price_nano_usd == 11 + 18


def test_a_price_for_one_provider_beats_the_one_for_all_meter_by_meter() -> None:
    terms = OrgTerms.of(
        3,
        50,
        [
            ("m", None, "input", 1),
            ("m", None, "output", 2),
            ("m", "p", "output", 3),
            ("m", "p", "telepathy", 4),
            ("other", None, "input", 5),
        ],
    )
    model = ModelName("m")
    assert terms.at(model, ProviderName("p")) == Terms(50, {Meter.INPUT: 1, Meter.OUTPUT: 3})
    assert terms.at(model, ProviderName("q")) == Terms(50, {Meter.INPUT: 1, Meter.OUTPUT: 2})
    assert terms.at(ModelName("x"), ProviderName("p")) == Terms(50, {})
    assert OrgTerms.of(3, 50, [(None, None, None, None)]) == OrgTerms(PriceVersion(3), 50)


def test_the_worst_case_takes_the_dearest_rate_of_each_side_and_rounds_up() -> None:
    prices = row(input=3_000_000, cache_write_1h=6_000_000, output=15_000_001)
    assert worst_case(prices, LIST_TERMS, input_tokens_max=10).nano_usd(1) == 60 + 16


def test_the_worst_case_counts_the_request_itself() -> None:
    assert worst_case(row(request=7_000_000), LIST_TERMS, input_tokens_max=9).nano_usd(9) == 7


def test_the_worst_case_of_a_side_without_rates_is_nothing() -> None:
    assert worst_case(row(input=1_000_000), LIST_TERMS, input_tokens_max=2).nano_usd(10**9) == 2


def test_the_worst_case_is_in_the_dearest_tier_the_input_can_reach_even_if_a_higher_one_is_cheaper() -> None:
    tiers = (Tier(10, rates(input=5_000_000)), Tier(20, rates(input=1_000_000)))
    prices = PriceRow(PriceVersion(1), rates(input=2_000_000), tiers)

    def worst(input_tokens_max: int) -> int:
        return worst_case(prices, LIST_TERMS, input_tokens_max=input_tokens_max).nano_usd(0)

    assert [worst(10), worst(11), worst(30)] == [20, 55, 150]


@given(rows(), TERMS, COUNTS, SERVICE_TIERS, st.booleans(), st.integers(0, 5), st.integers(0, 5))
def test_no_usage_within_the_bounds_costs_more_than_the_worst_case(
    prices: PriceRow,
    terms: Terms,
    counts: Mapping[Meter, int],
    asked: ServiceTier,
    served_as_asked: bool,
    slack_in: int,
    slack_out: int,
) -> None:
    worst = worst_case(
        prices,
        terms,
        besides={meter: counts.get(meter, 0) for meter in (Meter.WEB_SEARCH, Meter.SEARCH_UNIT)},
        asked_tier=asked,
        input_tokens_max=sum(counts.get(meter, 0) for meter in INPUT_METERS) + slack_in,
    ).nano_usd(sum(counts.get(meter, 0) for meter in OUTPUT_METERS) + slack_out)
    served = asked if served_as_asked else STANDARD
    assert charge(Usage(counts, served), prices, terms).price_nano_usd <= worst


@given(rows(), TERMS, st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_worst_case_within_a_tier_is_reached_by_some_usage(
    prices: PriceRow, terms: Terms, tokens_in: int, tokens_out: int
) -> None:
    reached = PriceRow(PriceVersion(1), prices.rates_for(tokens_in))

    def dearest(side: tuple[Meter, ...], tokens: int) -> dict[Meter, int]:
        return {max(side, key=lambda meter: terms.price(meter, reached.rates[meter])): tokens} if tokens else {}

    used = Usage(dearest(INPUT_METERS, tokens_in) | dearest(OUTPUT_METERS, tokens_out))
    worst = worst_case(reached, terms, input_tokens_max=tokens_in).nano_usd(tokens_out)
    assert worst - charge(used, reached, terms).price_nano_usd in {0, 1}


@given(rows(), TERMS, st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**12))
def test_the_output_that_an_amount_is_enough_for_is_the_most_whose_worst_case_it_covers(
    prices: PriceRow, terms: Terms, tokens_in: int, tokens_out: int, more: int
) -> None:
    worst = worst_case(prices, terms, input_tokens_max=tokens_in)
    amount = NanoUsd(worst.nano_usd(0) + more)
    covered = worst.output_tokens(amount, at_most=tokens_out)
    assert 0 <= covered <= tokens_out
    assert worst.nano_usd(covered) <= amount
    assert covered == tokens_out or worst.nano_usd(covered + 1) > amount


@given(rows(), TERMS, COUNTS, SERVICE_TIERS)
def test_a_charge_is_the_exact_sum_rounded_once_half_to_even(
    prices: PriceRow, terms: Terms, counts: Mapping[Meter, int], served: ServiceTier
) -> None:
    used = Usage(counts, served)
    by_meter = prices.rates_for(used.input_tokens, served)

    def own(meter: Meter) -> Fraction:
        if meter in terms.prices:
            return Fraction(terms.prices[meter], 10**6)
        return Fraction(by_meter[meter].price_nano_usd_per_mtok, 10**6) * (1 + Fraction(terms.markup_ppm, 10**6))

    counted = {**counts, Meter.REQUEST: 1}
    charged = charge(used, prices, terms)
    assert charged.price_nano_usd == round(sum((count * own(meter) for meter, count in counted.items()), Fraction(0)))
    assert charged.cost_nano_usd == charge(used, prices, LIST_TERMS).cost_nano_usd


FLEX, PRIORITY = ServiceTier("flex"), ServiceTier("priority")
TIERED = PriceRow.of(
    1,
    ["input", "output", "input", "input", "output", "input", "web_search"],
    [
        "{}",
        "{}",
        '{"input_tokens_above": 10}',
        '{"service_tier": "priority"}',
        '{"service_tier": "priority"}',
        '{"service_tier": "flex"}',
        "{}",
    ],
    [0] * 7,
    [each * 1_000_000 for each in (2, 8, 4, 3, 16, 1, 100)],
)


@pytest.mark.parametrize(
    ("tokens", "served", "expected"),
    [
        pytest.param({"input": 5, "output": 1}, STANDARD, 5 * 2 + 8, id="no tier named"),
        pytest.param({"input": 5, "output": 1}, PRIORITY, 5 * 3 + 16, id="what the tier names"),
        pytest.param({"input": 11, "output": 1}, PRIORITY, 11 * 3 + 16, id="alone, however much is read"),
        pytest.param({"input": 5, "output": 1}, FLEX, 5 * 1 + 8, id="and what it does not name as without it"),
        pytest.param({"output": 1, "web_search": 2}, FLEX, 8 + 200, id="searches too"),
    ],
)
def test_a_meter_is_priced_by_its_service_tier_where_that_names_it(
    tokens: dict[str, int], served: ServiceTier, expected: int
) -> None:
    assert charge(Usage(usage(**tokens).counts, served), TIERED, LIST_TERMS).price_nano_usd == expected


def test_a_bound_within_a_service_tier_holds_there_alone() -> None:
    prices = PriceRow.of(
        1,
        ["input"] * 3 + ["output", "output"],
        [
            "{}",
            '{"service_tier": "flex"}',
            '{"service_tier": "flex", "input_tokens_above": 10}',
            "{}",
            '{"input_tokens_above": 10}',
        ],
        [0] * 5,
        [each * 1_000_000 for each in (5, 1, 2, 7, 9)],
    )
    read = usage(input=11, output=1).counts
    assert charge(Usage(read), prices, LIST_TERMS).price_nano_usd == 55 + 9
    assert charge(Usage(read, FLEX), prices, LIST_TERMS).price_nano_usd == 22 + 9


def test_a_tier_without_a_price_is_never_charged_at_another_ones() -> None:
    with pytest.raises(UnpricedTierError, match="no price for service tier batch"):
        charge(Usage({Meter.INPUT: 1}, ServiceTier("batch")), TIERED, LIST_TERMS)
    with pytest.raises(UnpricedTierError):
        worst_case(TIERED, LIST_TERMS, input_tokens_max=1, asked_tier=ServiceTier("batch"))


def test_a_free_version_is_free_at_every_tier() -> None:
    prices = PriceRow.of(1, ["free"], ["{}"], [0], [0])
    assert charge(Usage({Meter.WEB_SEARCH: 1}, FLEX), prices, LIST_TERMS).price_nano_usd == 0


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(STANDARD, 10 * 2 + 8, id="the standard tier and no other"),
        pytest.param(FLEX, 10 * 2 + 8, id="a cheaper one: it may be served at the standard one"),
        pytest.param(PRIORITY, 10 * 3 + 16, id="a dearer one"),
        pytest.param(None, 10 * 3 + 16, id="the provider's choice: any"),
    ],
)
def test_the_worst_case_is_in_the_dearest_service_tier_it_may_be_served_at(
    asked: ServiceTier | None, expected: int
) -> None:
    worst = worst_case(TIERED, LIST_TERMS, input_tokens_max=10, asked_tier=asked).nano_usd(1)
    assert worst == expected


def test_the_worst_case_counts_the_searches_it_may_make() -> None:
    assert worst_case(TIERED, LIST_TERMS, input_tokens_max=0, besides={Meter.WEB_SEARCH: 3}).nano_usd(0) == 300


@given(row=rows(), count=st.integers(1, 10), tier=SERVICE_TIERS, meter=st.sampled_from(PROVIDER_METERS))
def test_what_a_row_covers_can_be_charged_at_whatever_tier_it_is_served(
    row: PriceRow, count: int, tier: ServiceTier, meter: Meter
) -> None:
    assert row.covers(meter, tier)
    charge(Usage({meter: count}, tier), row, LIST_TERMS)
    without = PriceRow(row.version, {other: rate for other, rate in row.rates.items() if other is not meter})
    assert not without.covers(meter)
