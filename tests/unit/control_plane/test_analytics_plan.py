from datetime import UTC, datetime, timedelta

import pytest

from control_plane.analytics.model import Dimension, GroupedQuery, PlatformBreakdownQuery, TimeseriesQuery
from control_plane.analytics.plan import Question, sums
from control_plane.analytics.steps import Step, begin, end

NOW = datetime(2026, 4, 1, tzinfo=UTC)
MOMENT = datetime(2026, 3, 29, 12, 34, 56, tzinfo=UTC)


def test_whatever_can_be_grouped_by_is_a_filter_too() -> None:
    assert set(Dimension) <= PlatformBreakdownQuery.model_fields.keys()
    assert set(Dimension) - {Dimension.ORG} <= GroupedQuery.model_fields.keys()


@pytest.mark.parametrize(
    ("step", "zone", "begins", "ends"),
    [
        (Step.MINUTE, "Asia/Kolkata", "2026-03-29T12:34:00", "2026-03-29T12:35:00"),
        (Step.HOUR, "UTC", "2026-03-29T12:00:00", "2026-03-29T13:00:00"),
        (Step.HOUR, "Asia/Kolkata", "2026-03-29T12:30:00", "2026-03-29T13:30:00"),
        # Clocks are changed on this day: it has 23 hours.
        (Step.DAY, "Europe/Berlin", "2026-03-28T23:00:00", "2026-03-29T22:00:00"),
        (Step.WEEK, "Europe/Berlin", "2026-03-22T23:00:00", "2026-03-29T22:00:00"),
        (Step.MONTH, "America/New_York", "2026-03-01T05:00:00", "2026-04-01T04:00:00"),
    ],
)
def test_a_step_begins_and_ends_by_the_clock_of_its_zone(step: Step, zone: str, begins: str, ends: str) -> None:
    assert begin(MOMENT, step, zone) == datetime.fromisoformat(begins).replace(tzinfo=UTC)
    assert end(MOMENT, step, zone) == datetime.fromisoformat(ends).replace(tzinfo=UTC)
    assert end(begin(MOMENT, step, zone), step, zone) == begin(MOMENT, step, zone)


def question(zone: str = "UTC", days: float = 10, ago: int = 10, **query: str) -> Question:
    since = NOW - timedelta(days=ago)
    until = since + timedelta(days=days)
    model = TimeseriesQuery if "step" in query else GroupedQuery
    return Question(model.model_validate({"since": since, "until": until, **query}), "org_a", zone, NOW)


@pytest.mark.parametrize(
    ("asked", "table"),
    [
        (question(step="day"), "requests_by_day"),
        (question(step="day", zone="Europe/Berlin"), "requests_by_hour"),
        (question(step="day", zone="Asia/Kolkata"), "requests"),
        (question(step="month", days=40, ago=100, zone="Africa/Abidjan"), "requests_by_day"),
        (question(step="hour"), "requests_by_hour"),
        (question(step="minute", days=1), "requests_by_minute"),
        (question(step="minute", days=1, ago=60), "requests"),
        (question(by="model,cached", days=0.2), "requests_by_minute"),
        (question(by="model,cached", days=300, ago=300), "requests_by_day"),
        (question(by="tag:team"), "requests"),
        (question(client="curl"), "requests"),
    ],
)
def test_the_coarsest_table_is_asked_that_can_tell(asked: Question, table: str) -> None:
    assert asked.source.table == table
    assert f" FROM {table} FINAL " in sums(asked, rows_max=1).sql


def test_what_a_caller_writes_is_a_parameter() -> None:
    statement = sums(question(model="o'hara", tag="team=o'hara"), rows_max=1)
    assert "hara" not in statement.sql
    assert sorted(map(str, statement.parameters.values())) == ["live", "o'hara", "o'hara", "org_a"]
