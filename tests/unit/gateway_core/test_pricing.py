from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_core.ids import PriceVersion
from gateway_core.money import NanoUsd
from gateway_core.pricing import (
    INPUT_METERS,
    OUTPUT_METERS,
    Charge,
    PriceRow,
    Rate,
    UnpricedError,
    charge,
    worst_case_nano_usd,
)
from gateway_core.usage import Meter, Usage

RATES = st.builds(Rate, st.integers(0, 10**12), st.integers(0, 10**12))
ROWS = st.dictionaries(st.sampled_from(Meter), RATES, min_size=1).map(lambda rates: PriceRow(PriceVersion(1), rates))


def row(**price_nano_usd_per_mtok: int) -> PriceRow:
    """Rates that cost us half of what the tenant pays."""
    return PriceRow(
        PriceVersion(1), {Meter(name): Rate(price // 2, price) for name, price in price_nano_usd_per_mtok.items()}
    )


def usage(**counts: int) -> Usage:
    return Usage({Meter(name): count for name, count in counts.items()})


def test_every_meter_is_charged_at_its_own_rate() -> None:
    prices = row(input=150_000_000, cached_input=75_000_000, output=600_000_000)
    charged = charge(usage(input=1000, cached_input=2000, output=500), prices)
    assert charged == Charge(cost_nano_usd=NanoUsd(300_000), price_nano_usd=NanoUsd(600_000))


def test_nothing_used_costs_nothing() -> None:
    assert charge(usage(), row(input=1)) == Charge(NanoUsd(0), NanoUsd(0))


@pytest.mark.parametrize(("tokens", "expected"), [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_half_a_nano_dollar_goes_to_the_even_neighbour(tokens: int, expected: int) -> None:
    assert charge(usage(input=tokens), row(input=500_000)).price_nano_usd == expected


def test_a_charge_is_rounded_once_and_not_per_meter() -> None:
    # Each line is 0.4 nano-USD: rounded alone they vanish, together they are 1.2.
    prices = row(input=400_000, cached_input=400_000, output=400_000)
    assert charge(usage(input=1, cached_input=1, output=1), prices).price_nano_usd == 1


def test_amounts_beyond_the_precision_of_a_double_stay_exact() -> None:
    price = charge(usage(input=999_999_999), row(input=2**53 + 1)).price_nano_usd
    assert price == 9_007_199_245_733_793_745


def test_tokens_of_a_kind_without_a_rate_are_not_free() -> None:
    with pytest.raises(UnpricedError, match="no price for meter reasoning") as unpriced:
        charge(usage(input=1, reasoning=1), row(input=1))
    assert unpriced.value.meter is Meter.REASONING


def test_a_rate_of_zero_is_a_price() -> None:
    assert charge(usage(input=5), row(input=0)).price_nano_usd == 0


def test_every_meter_is_on_exactly_one_side() -> None:
    assert sorted(INPUT_METERS + OUTPUT_METERS) == sorted(Meter)


def test_the_worst_case_takes_the_dearest_rate_of_each_side_and_rounds_up() -> None:
    prices = row(input=3_000_000, cache_write_1h=6_000_000, output=15_000_001)
    assert worst_case_nano_usd(prices, input_tokens_max=10, output_tokens_max=1) == 60 + 16


def test_the_worst_case_of_a_side_without_rates_is_nothing() -> None:
    assert worst_case_nano_usd(row(input=1_000_000), input_tokens_max=2, output_tokens_max=10**9) == 2


@given(ROWS, st.data())
def test_no_usage_within_the_bounds_costs_more_than_the_worst_case(prices: PriceRow, data: st.DataObject) -> None:
    counts: Mapping[Meter, int] = data.draw(
        st.dictionaries(st.sampled_from(sorted(prices.rates)), st.integers(1, 10**6))
    )
    slack = st.integers(0, 5)
    worst = worst_case_nano_usd(
        prices,
        input_tokens_max=sum(counts.get(meter, 0) for meter in INPUT_METERS) + data.draw(slack),
        output_tokens_max=sum(counts.get(meter, 0) for meter in OUTPUT_METERS) + data.draw(slack),
    )
    assert charge(Usage(counts), prices).price_nano_usd <= worst


@given(ROWS, st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_worst_case_is_reached_by_some_usage(prices: PriceRow, tokens_in: int, tokens_out: int) -> None:
    def dearest(side: tuple[Meter, ...], tokens: int) -> dict[Meter, int]:
        priced = [meter for meter in side if meter in prices.rates]
        if not priced or not tokens:
            return {}
        return {max(priced, key=lambda meter: prices.rates[meter].price_nano_usd_per_mtok): tokens}

    used = Usage(dearest(INPUT_METERS, tokens_in) | dearest(OUTPUT_METERS, tokens_out))
    worst = worst_case_nano_usd(prices, input_tokens_max=tokens_in, output_tokens_max=tokens_out)
    assert worst - charge(used, prices).price_nano_usd in {0, 1}
