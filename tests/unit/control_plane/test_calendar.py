"""Days and months by the clock of a time zone."""

from datetime import UTC, date, datetime
from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.statements.calendar import begin_of, first_of_month, next_month


@pytest.mark.parametrize(
    ("day", "zone", "begins"),
    [
        (date(2026, 11, 1), "UTC", datetime(2026, 11, 1, tzinfo=UTC)),
        (date(2026, 11, 1), "Europe/Berlin", datetime(2026, 10, 31, 23, tzinfo=UTC)),
        (date(2026, 7, 1), "Europe/Berlin", datetime(2026, 6, 30, 22, tzinfo=UTC)),
        (date(2026, 11, 1), "America/New_York", datetime(2026, 11, 1, 4, tzinfo=UTC)),
        (date(2026, 11, 2), "America/New_York", datetime(2026, 11, 2, 5, tzinfo=UTC)),
        (date(2026, 11, 1), "Asia/Kolkata", datetime(2026, 10, 31, 18, 30, tzinfo=UTC)),
        # Clocks skipped this midnight.
        (date(2018, 11, 4), "America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),
    ],
)
def test_a_day_begins_at_its_own_midnight(day: date, zone: str, begins: datetime) -> None:
    assert begin_of(day, zone) == begins


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - it wants them so
    st.sampled_from(sorted(available_timezones())),
)
def test_every_moment_is_in_one_month(moment: datetime, zone: str) -> None:
    month = first_of_month(moment, zone)
    assert month.day == 1
    assert begin_of(month, zone) <= moment < begin_of(next_month(month), zone)


def test_a_year_has_twelve_months() -> None:
    month = date(2027, 1, 1)
    for _ in range(12):
        month = next_month(month)
    assert month == date(2028, 1, 1)
