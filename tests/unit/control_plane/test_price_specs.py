"""Prices as operators write them: exact or refused, and the same again when they are shown."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from control_plane.catalog.percentages import percent_of, ppm_of
from control_plane.catalog.price_specs import (
    UNITS_BY_METER,
    InexactAmountError,
    MeterPrice,
    PriceSpec,
    TermsSpec,
    Unit,
    amount_per,
    nano_usd_per_million,
)
from gateway_core.money import MAX_NANO_USD
from gateway_core.pricing import PriceRow
from gateway_core.usage import Meter

INPUT = {"meter": "input", "unit": "1M tokens", "cost": "0.15"}


def read(model: type[BaseModel], **fields: object) -> BaseModel:
    return model.model_validate_json(json.dumps(fields), strict=True)


def refused(model: type[BaseModel], **fields: object) -> list[tuple[str | int, ...]]:
    """Where the faults are."""
    with pytest.raises(ValidationError) as caught:
        read(model, **fields)
    return [each["loc"] for each in caught.value.errors()]


@pytest.mark.parametrize(
    ("amount", "unit", "kept"),
    [
        ("0.15", Unit.MILLION_TOKENS, 150_000_000),
        ("0.00015", Unit.THOUSAND_TOKENS, 150_000_000),
        ("0.00000015", Unit.TOKEN, 150_000_000),
        ("0.000000000000001", Unit.TOKEN, 1),
        ("0.04", Unit.REQUEST, 40_000_000_000_000),
        ("1000", Unit.MILLION_REQUESTS, 1_000_000_000_000),
        ("0", Unit.TOKEN, 0),
    ],
)
def test_an_amount_is_kept_per_million_whatever_it_was_written_per(amount: str, unit: Unit, kept: int) -> None:
    assert nano_usd_per_million(amount, unit) == kept
    assert Fraction(amount_per(kept, unit)) == Fraction(amount)


@pytest.mark.parametrize(
    ("amount", "unit"),
    [
        pytest.param("0.0000000001", Unit.MILLION_TOKENS, id="a tenth of a nano-USD"),
        pytest.param("0.0000000000001", Unit.THOUSAND_TOKENS, id="a tenth of a nano-USD per million"),
        pytest.param("9999999999", Unit.TOKEN, id="more than a BIGINT"),
    ],
)
def test_an_amount_that_cannot_be_kept_exactly_is_refused(amount: str, unit: Unit) -> None:
    with pytest.raises(InexactAmountError):
        nano_usd_per_million(amount, unit)


@given(st.integers(0, MAX_NANO_USD), st.sampled_from(Unit))
def test_what_is_shown_is_what_is_kept(kept: int, unit: Unit) -> None:
    assert nano_usd_per_million(amount_per(kept, unit), unit) == kept


@given(st.integers(-1_000_000, 99_999_999))
def test_a_percentage_is_exact(ppm: int) -> None:
    assert ppm_of(percent_of(ppm)) == ppm


@pytest.mark.parametrize(
    ("ppm", "shown"), [(0, "0"), (100_000, "10"), (125_000, "12.5"), (-5, "-0.0005"), (-1_000_000, "-100")]
)
def test_a_percentage_is_shown_without_needless_zeros(ppm: int, shown: str) -> None:
    assert percent_of(ppm) == shown


@pytest.mark.parametrize("amount", ["-1", "1e3", "+1", ".5", "1.", "", "1,5", "NaN", "0x1", "٣", "1.0000000000000001"])
def test_only_plain_decimals_are_amounts(amount: str) -> None:
    assert refused(MeterPrice, **INPUT | {"cost": amount}) == [("cost",)]


def test_a_number_is_not_an_amount() -> None:
    assert refused(MeterPrice, **INPUT | {"cost": 0.15}) == [("cost",)]


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"unit": "request"}, ("unit",)),
        ({"meter": "request"}, ("unit",)),
        ({"unit": "1M words"}, ("unit",)),
        ({"meter": "telepathy"}, ("meter",)),
        ({"meter": "free"}, ("meter",)),
        ({"cost": "0.0000000001"}, ("cost",)),
        ({"price": "0.0000000001"}, ("price",)),
        ({"condition": {"weekday": "sunday"}}, ("condition", "weekday")),
        *(
            ({"condition": {"service_tier": tier}}, ("condition", "service_tier"))
            for tier in ("standard", "default", "auto", "Flex", "", "on_demand_flex")
        ),
        ({"meter": "web_search"}, ("unit",)),
        ({"condition": {"input_tokens_above": 0}}, ("condition", "input_tokens_above")),
        ({"condition": {"input_tokens_above": "9"}}, ("condition", "input_tokens_above")),
        ({"currency": "EUR"}, ("currency",)),
    ],
)
def test_a_fault_is_reported_where_it_is(fields: dict[str, object], where: tuple[str | int, ...]) -> None:
    assert refused(MeterPrice, **INPUT | fields) == [where]


def test_every_meter_has_units() -> None:
    assert set(UNITS_BY_METER) == set(Meter)


@pytest.mark.parametrize(("unit", "cost"), [("second", "0.0001"), ("minute", "0.006"), ("hour", "0.36")])
def test_sound_is_priced_by_the_second_the_minute_or_the_hour(unit: str, cost: str) -> None:
    price = MeterPrice.model_validate({"meter": "audio_second", "unit": unit, "cost": cost})
    assert price.row()["cost_nano_usd_per_mtok"] == 100_000_000_000
    assert amount_per(100_000_000_000, Unit(unit)).rstrip("0") == cost


def test_the_price_is_the_cost_if_only_the_cost_is_known() -> None:
    row = MeterPrice.model_validate(INPUT).row()
    assert row["cost_nano_usd_per_mtok"] == row["price_nano_usd_per_mtok"] == 150_000_000
    assert MeterPrice.model_validate(INPUT | {"price": "0"}).row()["price_nano_usd_per_mtok"] == 0


@pytest.mark.parametrize(
    ("spec", "pointers"),
    [
        pytest.param({}, ["/prices"], id="nothing"),
        pytest.param({"free": True, "prices": [INPUT]}, ["/prices"], id="free and priced"),
        pytest.param({"free": True}, [], id="free"),
        pytest.param({"prices": [INPUT, INPUT | {"cost": "1"}]}, ["/prices/1"], id="twice"),
        pytest.param(
            {"prices": [INPUT, INPUT | {"condition": {"input_tokens_above": 5}}]}, [], id="once more under a condition"
        ),
        pytest.param(
            {"prices": [INPUT, INPUT | {"meter": "output", "condition": {"input_tokens_above": 5}}]},
            ["/prices/1/condition"],
            id="only under a condition",
        ),
        pytest.param(
            {"prices": [INPUT, INPUT | {"condition": {"input_tokens_above": None}}]}, ["/prices/1"], id="null is always"
        ),
        pytest.param(
            {"prices": [INPUT, INPUT | {"condition": {"service_tier": "flex"}}]}, [], id="at a service tier as well"
        ),
        pytest.param(
            {"prices": [INPUT, INPUT | {"condition": {"service_tier": "flex", "input_tokens_above": 5}}]},
            ["/prices/1/condition"],
            id="at a service tier only above a bound",
        ),
        pytest.param(
            {"prices": [INPUT | {"condition": {"service_tier": "flex"}}]},
            ["/prices/0/condition"],
            id="only at a service tier",
        ),
    ],
)
def test_the_parts_of_a_version_must_fit_together(spec: dict[str, object], pointers: list[str]) -> None:
    assert [fault.pointer for fault in PriceSpec.model_validate(spec).faults()] == pointers


def test_a_version_is_shown_as_it_was_written() -> None:
    written = {"free": False, "prices": [INPUT | {"price": "0.20", "condition": {"input_tokens_above": 5}}]}
    assert json.loads(PriceSpec.model_validate(written).model_dump_json()) == written
    plain = PriceSpec.model_validate({"prices": [INPUT]}).model_dump_json()
    assert json.loads(plain)["prices"][0]["condition"] == {}


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"markup_percent": "-100.0001"}, ("markup_percent",)),
        ({"markup_percent": "0.00001"}, ("markup_percent",)),
        ({"markup_percent": 10}, ("markup_percent",)),
        ({"overrides": [{"model": "m", "meter": "input", "unit": "request", "price": "1"}]}, ("overrides", 0, "unit")),
        ({"overrides": [{"model": "m", "meter": "input", "unit": "token"}]}, ("overrides", 0, "price")),
    ],
)
def test_terms_with_a_fault_are_refused(fields: dict[str, object], where: tuple[str | int, ...]) -> None:
    assert refused(TermsSpec, **fields) == [where]


def test_what_the_api_accepts_pricing_can_use() -> None:
    tiered = [
        INPUT,
        INPUT | {"condition": {"input_tokens_above": 200_000}},
        INPUT | {"condition": {"service_tier": "batch"}},
        INPUT | {"condition": {"service_tier": "batch", "input_tokens_above": 200_000}},
        INPUT | {"meter": "web_search", "unit": "1K searches"},
        INPUT | {"meter": "request", "unit": "request"},
    ]
    for spec in (PriceSpec(free=True), PriceSpec.model_validate({"prices": tiered})):
        rows = spec.rows()
        usable = PriceRow.of(
            1,
            [str(row["meter"]) for row in rows],
            [json.dumps(row["condition"]) for row in rows],
            [0] * len(rows),
            [0] * len(rows),
        )
        assert usable.is_usable
        assert Meter.INPUT in usable.rates
