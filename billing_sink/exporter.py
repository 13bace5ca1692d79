"""Copies finished requests and failed attempts from Postgres to ClickHouse: the loop, and what each column there is made of.

Rows go in before the cursor moves: a crash between repeats a batch, which collapses.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from clickhouse_connect.driver.client import Client

from billing_sink.clickhouse import insert
from billing_sink.postgres_exports import PostgresExports, Row
from gateway_core.usage import Meter

BATCH_S: Final = 30
"""A batch takes less, or others are let in."""

Getter = Callable[[Row], object]


def _or_empty(name: str) -> Getter:
    """What Postgres may not know. ClickHouse keeps an empty text instead: a Nullable column costs a second file."""
    return lambda row: row[name] or ""


def _tokens(meter: Meter) -> Getter:
    return lambda row: row["meters"].get(meter, 0)


METERS_WITH_A_COLUMN: Final = (
    Meter.INPUT,
    Meter.CACHED_INPUT,
    Meter.CACHE_WRITE_5M,
    Meter.CACHE_WRITE_1H,
    Meter.OUTPUT,
    Meter.REASONING,
    Meter.AUDIO_INPUT,
    Meter.AUDIO_OUTPUT,
    Meter.IMAGE_INPUT,
    Meter.IMAGE_OUTPUT,
)
"""All of them are in the column `meters`; these have one of their own besides."""

COLUMNS: Final[Mapping[str, Getter]] = {
    "request_id": itemgetter("request_id"),
    "started_at": itemgetter("started_at"),
    "recorded_at": itemgetter("recorded_at"),
    "outcome": itemgetter("outcome"),
    "late": itemgetter("late"),
    "usage_source": itemgetter("usage_source"),
    "org_id": _or_empty("org_id"),
    "project_id": _or_empty("project_id"),
    "key_id": _or_empty("key_id"),
    "endpoint": _or_empty("endpoint"),
    "model": _or_empty("model"),
    "provider": _or_empty("provider"),
    "stream": itemgetter("stream"),
    "status": itemgetter("status"),
    "error_code": _or_empty("error_code"),
    "attempts": itemgetter("attempts"),
    "duration_ms": itemgetter("duration_ms"),
    "first_byte_ms": itemgetter("first_byte_ms"),
    "bytes_received": itemgetter("bytes_received"),
    "bytes_sent": itemgetter("bytes_sent"),
    "sse_events": itemgetter("sse_events"),
    **{f"{meter}_tokens": _tokens(meter) for meter in METERS_WITH_A_COLUMN},
    "cost_nano_usd": itemgetter("cost_nano_usd"),
    "price_nano_usd": itemgetter("price_nano_usd"),
    "absorbed_nano_usd": itemgetter("absorbed_nano_usd"),
    "client_request_id": _or_empty("client_request_id"),
    "user_agent": _or_empty("user_agent"),
    "mode": itemgetter("mode"),
    "service_tier": itemgetter("service_tier"),
    "meters": itemgetter("meters"),
    "cached": itemgetter("cached"),
    "choice": _or_empty("choice"),
    "own_key": itemgetter("own_key"),
}
"""Each column of the table `requests` in ClickHouse, and how it is got from a row of billing.requests."""


ATTEMPT_COLUMNS: Final[Mapping[str, Getter]] = {
    "request_id": itemgetter("request_id"),
    "started_at": itemgetter("started_at"),
    "recorded_at": itemgetter("recorded_at"),
    "provider": _or_empty("provider"),
    "upstream_model": _or_empty("upstream_model"),
    "host": _or_empty("host"),
    "status": itemgetter("status"),
    "response_flags": _or_empty("response_flags"),
    "response_details": _or_empty("response_details"),
    "duration_ms": itemgetter("duration_ms"),
    "bytes_received": itemgetter("bytes_received"),
    "bytes_sent": itemgetter("bytes_sent"),
}
"""The same of the table `attempts`."""


@dataclass(frozen=True, slots=True)
class Table:
    """What is copied: a table of that name in schema `billing` to one of that name in ClickHouse."""

    name: str
    columns: Mapping[str, Getter]


REQUESTS: Final = Table("requests", COLUMNS)
ATTEMPTS: Final = Table("attempts", ATTEMPT_COLUMNS)
TABLES: Final = (REQUESTS, ATTEMPTS)


class Exporter:
    """Moves one batch of a table at a time, by that table's own cursor."""

    def __init__(self, exports: PostgresExports, client: Client, table: Table, *, batch_rows: int) -> None:
        self._exports = exports
        self._table = table
        self._client = client
        self._batch_rows = batch_rows

    async def export_batch(self) -> int:
        """Copy the next rows; returns how many there were.

        Raises:
            clickhouse_connect.driver.exceptions.Error, OSError, asyncpg.PostgresError: nothing is lost; call again.
        """
        async with self._exports.turn(BATCH_S):
            found = await self._exports.next_rows(self._batch_rows)
            if found is None:
                return 0
            columns = self._table.columns
            values = [[get(row) for get in columns.values()] for row in found.rows]
            await asyncio.to_thread(insert, self._client, self._table.name, tuple(columns), values)
            await self._exports.move(found.end)
            return len(values)
