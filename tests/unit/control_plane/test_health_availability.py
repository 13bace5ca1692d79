"""How much of each hour something was available."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from control_plane.health.availability import HOURS, Turn, available_percents

NOW = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)


def at(hour: int, minute: int) -> datetime:
    return NOW.replace(hour=hour, minute=minute)


def test_an_hour_is_available_for_what_it_was_not_out() -> None:
    history = [Turn(at(10, 45), is_out=True), Turn(at(11, 30), is_out=False), Turn(at(12, 15), is_out=True)]
    percents = dict(available_percents([history], NOW))
    assert [percents[at(hour, 0)] for hour in (9, 10, 11, 12)] == [100, 75, 50, 50]


def test_what_is_out_for_two_reasons_at_once_is_out_once() -> None:
    provider = [Turn(at(11, 0), is_out=True), Turn(at(11, 30), is_out=False)]
    model = [Turn(at(11, 15), is_out=True), Turn(at(11, 45), is_out=False)]
    assert dict(available_percents([provider, model], NOW))[at(11, 0)] == 25


def test_what_is_out_since_yesterday_is_out_in_every_hour() -> None:
    found = available_percents([[Turn(NOW - timedelta(days=3), is_out=True)]], NOW)
    assert [percent for _, percent in found] == [0] * HOURS


@given(st.lists(st.lists(st.tuples(st.integers(-3000, 0), st.booleans()), max_size=8), max_size=2), st.integers(0, 59))
def test_every_hour_of_the_day_has_a_share_between_nothing_and_all(
    histories: list[list[tuple[int, bool]]], minute: int
) -> None:
    now = NOW.replace(minute=minute)
    turns = [[Turn(now + timedelta(minutes=ago), is_out) for ago, is_out in sorted(history)] for history in histories]
    found = available_percents(turns, now)
    assert len(found) == HOURS
    assert [hour for hour, _ in found] == sorted(hour for hour, _ in found)
    assert all(0 <= percent <= 100 for _, percent in found)
