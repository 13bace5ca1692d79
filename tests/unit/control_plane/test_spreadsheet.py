"""What others have named runs in no spreadsheet."""

import csv
import io

import pytest

from control_plane.spreadsheet import csv_text


@pytest.mark.parametrize("text", ["=1+1", "+1", "@SUM(1)", "-cmd|' /C calc'!A0", "\t=1", "\r=1", "--1"])
def test_a_formula_is_text(text: str) -> None:
    [row] = csv.reader(io.StringIO(csv_text([[text]]), newline=""))
    assert row == [f"'{text}"]


@pytest.mark.parametrize("text", ["", "gpt-4o", "12.50", "-12.50", "-3", "a=b"])
def test_everything_else_stays_as_it_is(text: str) -> None:
    [row] = csv.reader(io.StringIO(csv_text([[text, 5]]), newline=""))
    assert row == [text, "5"]
