"""Steps of time by the clock of a time zone: when the one begins that a moment is in, and the next. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from control_plane.statements.calendar import begin_of, next_month


class Step(StrEnum):
    """How long a step is."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    @property
    def least_s(self) -> int:
        """How long it is at least, about."""
        return {"minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, "month": 2_419_200}[self]


def begin(moment: datetime, step: Step, zone: str) -> datetime:
    """When the step begins that a moment is in, in UTC. Weeks begin on Monday."""
    local = moment.astimezone(ZoneInfo(zone))
    match step:
        case Step.MINUTE:
            return moment.astimezone(UTC).replace(second=0, microsecond=0)
        case Step.HOUR:
            into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
            return moment.astimezone(UTC) - into
        case Step.DAY:
            return begin_of(local.date(), zone)
        case Step.WEEK:
            return begin_of(local.date() - timedelta(days=local.weekday()), zone)
        case Step.MONTH:
            return begin_of(local.date().replace(day=1), zone)


def end(moment: datetime, step: Step, zone: str) -> datetime:
    """When a step begins next, at the moment or later, in UTC."""
    begun = begin(moment, step, zone)
    if begun == moment:
        return begun
    day = begun.astimezone(ZoneInfo(zone)).date()
    match step:
        case Step.MINUTE:
            return begun + timedelta(minutes=1)
        case Step.HOUR:
            return begun + timedelta(hours=1)
        case Step.DAY:
            return begin_of(day + timedelta(days=1), zone)
        case Step.WEEK:
            return begin_of(day + timedelta(days=7), zone)
        case Step.MONTH:
            return begin_of(next_month(day), zone)


def offsets(since: datetime, until: datetime, zone: str) -> set[timedelta]:
    """How far the clock of a zone is ahead of UTC in a time, looked at once a week."""
    return {moment.astimezone(ZoneInfo(zone)).utcoffset() or timedelta() for moment in _weekly(since, until)}


def _weekly(since: datetime, until: datetime) -> Iterator[datetime]:
    moment = since
    while moment < until:
        yield moment
        moment += timedelta(days=7)
    yield until
