"""Adds requests up in ClickHouse, by the minute, the hour and the day: the loop, and what each column is made of.

What a stretch of new rows has touched is added up anew, whole, and replaces what was there: so it does not matter how often that is done, and no
crash between leaves anything counted twice.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from clickhouse_connect.driver.client import Client

from billing_sink.clickhouse import empty
from billing_sink.exporter import BATCH_S
from billing_sink.postgres_exports import Position, PostgresExports
from billing_sink.postgres_roll_ups import PostgresRollUps, Stretch
from gateway_core.clock import Now
from gateway_core.histograms import counted_sql

ROWS_AT_ONCE: Final = 50_000
LISTED_MAX: Final = 500
"""Moments or organisations that a statement names; of more, it reads all that lies between."""

DIMENSIONS: Final = (
    *("org_id", "project_id", "key_id", "mode", "model", "provider", "endpoint", "status", "error_code", "outcome"),
    *("stream", "cached", "own_key"),
)
DURATIONS: Final = ("duration_ms", "first_byte_ms", "output_token_us", "overhead_us")
_SUMS: Final = ("attempts", "cost_nano_usd", "price_nano_usd", "absorbed_nano_usd")

_OF_REQUESTS: Final[Mapping[str, str]] = {
    "requests": "count()",
    "meters": "sumMap(meters)",
    **{name: f"sum({name})" for name in _SUMS},
    **{name: counted_sql(name) for name in DURATIONS},
}
_OF_ROLL_UPS: Final[Mapping[str, str]] = {
    **{name: f"sum({name})" for name in ("requests", *_SUMS)},
    **{name: f"sumMap({name})" for name in ("meters", *DURATIONS)},
}


@dataclass(frozen=True, slots=True)
class RollUp:
    """One table: what it is made of, and by how long."""

    table: str
    source: str
    moment: str
    """The source's column that says when."""
    begin_of: str
    """ClickHouse's function from that to when the time it belongs to began."""
    length: timedelta
    columns: Mapping[str, str]


ROLL_UPS: Final = (
    RollUp(*("requests_by_minute", "requests", "started_at", "toStartOfMinute"), timedelta(minutes=1), _OF_REQUESTS),
    RollUp(*("requests_by_hour", "requests_by_minute", "starts_at", "toStartOfHour"), timedelta(hours=1), _OF_ROLL_UPS),
    RollUp(*("requests_by_day", "requests_by_hour", "starts_at", "toStartOfDay"), timedelta(days=1), _OF_ROLL_UPS),
)
"""Each of the one before it."""

MINUTES_SURE: Final = timedelta(days=31)
"""Sums by the minute may be gone when they are older (`settings.py`): the hours of a request that comes as late are counted from requests."""

_LATE: Final = (
    ROLL_UPS[0],
    RollUp(*("requests_by_hour", "requests", "started_at", "toStartOfHour"), timedelta(hours=1), _OF_REQUESTS),
    ROLL_UPS[2],
)


class Adding:
    """Adds up one stretch at a time, behind the cursor of the requests that have been copied."""

    def __init__(
        self, copied: PostgresExports, cursor: PostgresExports, stretches: PostgresRollUps, client: Client, now: Now
    ) -> None:
        self._copied = copied
        self._cursor = cursor
        self._stretches = stretches
        self._client = client
        self._now = now

    async def add_up(self, rows_max: int = ROWS_AT_ONCE) -> bool:
        """Add up what the next rows have touched; whether there may be more of them.

        Raises:
            clickhouse_connect.driver.exceptions.Error, OSError, asyncpg.PostgresError: nothing is lost; call again.
        """
        async with self._copied.turn(BATCH_S):
            if await self._cursor.begins_anew():
                for each in ROLL_UPS:
                    await asyncio.to_thread(empty, self._client, each.table)
                await self._cursor.begin_anew()
            stretch = await self._stretches.next_stretch(rows_max)
            if stretch is None:
                return False
            is_late = stretch.minutes[0] < self._now() - MINUTES_SURE
            for each in _LATE if is_late else ROLL_UPS:
                await asyncio.to_thread(self._client.command, statement(each, stretch), {"orgs": list(stretch.orgs)})
            await self._cursor.move(stretch.end)
            return stretch.rows == rows_max


def statement(roll_up: RollUp, stretch: Stretch) -> str:
    """Counts all that a stretch has touched, in ClickHouse's SQL; the parameter `orgs` is those of the stretch."""
    begins = sorted({_begin_of(minute, roll_up.length) for minute in stretch.minutes})
    begin = f"{roll_up.begin_of}({roll_up.moment})"
    columns = ", ".join(("starts_at", *DIMENSIONS, *roll_up.columns, "version"))
    values = ", ".join((begin, *DIMENSIONS, *roll_up.columns.values(), f"toUInt128('{_version(stretch.end)}')"))
    conditions = [
        f"{roll_up.moment} >= toDateTime({_seconds(begins[0])})",
        f"{roll_up.moment} < toDateTime({_seconds(begins[-1] + roll_up.length)})",
    ]
    if len(begins) <= LISTED_MAX:
        conditions.append(f"toUnixTimestamp({begin}) IN ({', '.join(_moments(begins))})")
    if len(stretch.orgs) <= LISTED_MAX:
        conditions.append("org_id IN %(orgs)s")
    return f"""
        INSERT INTO {roll_up.table} ({columns})
        SELECT {values} FROM {roll_up.source} FINAL WHERE {" AND ".join(conditions)}
        GROUP BY {begin}, {", ".join(DIMENSIONS)}
        SETTINGS do_not_merge_across_partitions_select_final = 1
        """  # noqa: S608 - names of ours, and numbers


def _begin_of(moment: datetime, length: timedelta) -> datetime:
    return moment - timedelta(seconds=_seconds(moment) % length.total_seconds())


def _version(end: Position) -> int:
    """Greater the further the stretch reaches: who was left behind in the middle of it does not replace what is newer."""
    return end.written_by << 64 | end.seq


def _moments(begins: Iterable[datetime]) -> Sequence[str]:
    return [str(_seconds(begin)) for begin in begins]


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
