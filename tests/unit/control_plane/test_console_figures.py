"""What pages show: figures, bars over days, differences."""

from datetime import date
from decimal import Decimal

import pytest

from control_plane.console.charts import OTHERS, SERIES_MAX, Measured, chart
from control_plane.console.differences import Side, difference
from control_plane.console.figures import count, moment, usd, words

FIRST = date(2026, 3, 1)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0.00", "$0.00"),
        ("1234.5", "$1,234.50"),
        ("0.00003705", "$0.00003705"),
        ("-3.10", "-$3.10"),
        ("100", "$100.00"),
        (None, "—"),
    ],
)
def test_an_amount_has_cents_and_every_decimal_that_it_has(amount: str | None, text: str) -> None:
    assert usd(amount) == text


def test_numbers_moments_and_names_are_as_people_read_them() -> None:
    assert (count(1234567), count(0), count(None)) == ("1,234,567", "0", "—")
    assert (moment("2026-03-01T10:20:30.123Z"), moment(None)) == ("2026-03-01 10:20:30", "—")
    assert words("rolled_back") == "rolled back"


def _bars(*amounts: tuple[int, str, str], days: int = 7) -> list[list[tuple[int, str]]]:
    measured = [Measured(date(2026, 3, day), series, Decimal(amount)) for day, series, amount in amounts]
    drawn = chart(measured, first=FIRST, days=days, said=str, least=Decimal(1))
    return [[(part.series, part.said) for part in bar.parts] for bar in drawn.bars]


def test_each_day_has_a_bar_and_what_there_is_most_of_comes_first() -> None:
    bars = _bars((2, "small", "1"), (2, "large", "3"), (4, "small", "1"))
    assert bars == [
        [],
        [(0, "Mar 02, large: 3"), (1, "Mar 02, small: 1")],
        [],
        [(1, "Mar 04, small: 1")],
        *([],) * 3,
    ]


def test_what_comes_behind_the_largest_is_one_colour() -> None:
    amounts = [(1, f"model-{number}", str(100 - number)) for number in range(SERIES_MAX + 2)]
    drawn = chart(
        [Measured(FIRST, series, Decimal(amount)) for _, series, amount in amounts],
        first=FIRST,
        days=1,
        said=str,
        least=Decimal(1),
    )
    assert drawn.series == (*(f"model-{number}" for number in range(SERIES_MAX - 1)), OTHERS)
    assert drawn.bars[0].parts[-1].said == f"Mar 01, {OTHERS}: {95 + 94 + 93}"


@pytest.mark.parametrize(
    ("highest", "lines"),
    [
        ("0", ["0", "1", "2", "3", "4"]),
        ("3", ["0", "1", "2", "3", "4"]),
        ("37", ["0", "10", "20", "30", "40"]),
        ("41", ["0", "20", "40", "60", "80"]),
        ("399", ["0", "100", "200", "300", "400"]),
    ],
)
def test_lines_across_read_well_and_no_bar_is_higher_than_the_last(highest: str, lines: list[str]) -> None:
    drawn = chart(
        [Measured(FIRST, "a", Decimal(highest))], first=FIRST, days=1, said=lambda n: f"{n:.0f}", least=Decimal(1)
    )
    assert [tick.label for tick in drawn.ticks] == lines
    assert all(part.y >= drawn.ticks[-1].y for bar in drawn.bars for part in bar.parts)


def test_parts_of_a_bar_stand_on_each_other_and_on_the_ground() -> None:
    amounts = [Measured(FIRST, name, Decimal(3)) for name in ("a", "b", "c")]
    [bar] = chart(amounts, first=FIRST, days=1, said=str, least=Decimal(1)).bars
    ground = Decimal(chart(amounts, first=FIRST, days=1, said=str, least=Decimal(1)).bottom)
    for part in bar.parts:
        assert abs(part.y + part.height - ground) <= Decimal("0.02")
        ground = part.y


def test_a_difference_has_every_line_with_where_it_stands() -> None:
    lines = difference({"a": 1, "b": 2}, {"a": 1, "b": 3})
    assert [(line.side, line.text.strip()) for line in lines] == [
        (Side.BOTH, "{"),
        (Side.BOTH, '"a": 1,'),
        (Side.BEFORE, '"b": 2'),
        (Side.AFTER, '"b": 3'),
        (Side.BOTH, "}"),
    ]
    assert [line.mark for line in lines] == [" ", " ", "-", "+", " "]


def test_what_is_the_same_has_no_difference_and_what_is_new_is_all_of_it() -> None:
    assert difference({"a": [1]}, {"a": [1]}) == []
    assert {line.side for line in difference(None, {"a": 1})} == {Side.AFTER}
