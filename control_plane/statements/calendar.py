"""Days and months by the clock of a time zone. Pure, but for reading the zones once."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Final
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, StringConstraints

_MIDNIGHT: Final = time()
_UTC: Final = "UTC"


def _time_zone(text: str) -> str:
    # Names without a place are whatever the machine is set to (`localtime`) or, to Postgres, offsets without summer (`CET`).
    if text != _UTC and ("/" not in text or text not in available_timezones()):
        raise ValueError("not a time zone of the IANA database, such as Europe/Berlin")
    return text


TimeZone = Annotated[
    str, StringConstraints(max_length=64), AfterValidator(_time_zone), Field(examples=["Europe/Berlin"])
]


def first_of_month(moment: datetime, zone: str) -> date:
    """The first day of the month that a moment is in."""
    return moment.astimezone(ZoneInfo(zone)).date().replace(day=1)


def next_month(month: date) -> date:
    """The first day of the month after."""
    return (month.replace(day=28) + timedelta(days=4)).replace(day=1)


def begin_of(day: date, zone: str) -> datetime:
    """When a day begins, in UTC. Where clocks skip midnight, the moment they show it for."""
    return datetime.combine(day, _MIDNIGHT, ZoneInfo(zone)).astimezone(UTC)
