from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_core.money import MAX_NANO_USD, InvalidAmountError, NanoUsd, format_usd, parse_usd, round_half_even

AMOUNTS = st.integers(-MAX_NANO_USD, MAX_NANO_USD).map(NanoUsd)


@pytest.mark.parametrize(
    ("text", "nano_usd"),
    [
        ("0", 0),
        ("-0", 0),
        ("1.25", 1_250_000_000),
        ("0.000000001", 1),
        ("-0.5", -500_000_000),
        ("0000000001.10", 1_100_000_000),
        ("9223372036.854775807", MAX_NANO_USD),
        ("-9223372036.854775807", -MAX_NANO_USD),
    ],
)
def test_a_decimal_string_is_read_exactly(text: str, nano_usd: int) -> None:
    assert parse_usd(text) == nano_usd


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        ".5",
        "5.",
        "+1",
        " 1",
        "1\n",
        "1,50",
        "1e3",
        "0x10",
        "NaN",
        "Infinity",
        "1.0000000001",
        "--1",
        "1.2.3",
        "12345678901",
        "\u0661",  # a digit, but not one of ours
    ],
)
def test_anything_but_plain_digits_with_nine_decimals_is_refused(text: str) -> None:
    with pytest.raises(InvalidAmountError):
        parse_usd(text)


@pytest.mark.parametrize("text", ["9223372036.854775808", "-9223372036.854775808", "9999999999"])
def test_more_than_a_bigint_holds_is_refused(text: str) -> None:
    with pytest.raises(InvalidAmountError, match="too large"):
        parse_usd(text)


def test_a_refusal_quotes_only_the_beginning_of_a_long_text() -> None:
    with pytest.raises(InvalidAmountError) as refusal:
        parse_usd("x" * 10_000)
    assert len(str(refusal.value)) < 120


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [(0, "0.00"), (1, "0.000000001"), (1_500_000_000, "1.50"), (-500_000_000, "-0.50"), (1_234_567_000, "1.234567")],
)
def test_an_amount_is_written_with_at_least_two_decimals_and_no_zeros_beyond(nano_usd: int, text: str) -> None:
    assert format_usd(NanoUsd(nano_usd)) == text


@given(AMOUNTS)
def test_what_is_written_is_read_back_as_the_same_amount(amount: NanoUsd) -> None:
    assert parse_usd(format_usd(amount)) == amount


@given(
    st.integers(0, 9_000_000_000), st.integers(0, 9).flatmap(lambda n: st.text("0123456789", min_size=n, max_size=n))
)
def test_reading_agrees_with_exact_arithmetic(whole: int, decimals: str) -> None:
    text = f"{whole}.{decimals}" if decimals else str(whole)
    assert parse_usd(text) == Fraction(text) * 1_000_000_000


@pytest.mark.parametrize(("numerator", "rounded"), [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2)])
def test_half_a_nano_dollar_goes_to_the_even_neighbour(numerator: int, rounded: int) -> None:
    assert round_half_even(Fraction(numerator, 2)) == rounded


@given(st.fractions())
def test_rounding_never_moves_an_amount_by_more_than_half(exact: Fraction) -> None:
    assert abs(round_half_even(exact) - exact) <= Fraction(1, 2)
