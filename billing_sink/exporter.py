"""Copies finished requests, failed attempts, states of providers and who changed what from Postgres to ClickHouse: the loop, and what each column there is made of.

Postgres writes the rows as JSON and ClickHouse reads them; nothing in between looks at them, which took more than settling did. Rows go in before the cursor moves: a crash between repeats a batch, which collapses.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from clickhouse_connect.driver.client import Client

from billing_sink.clickhouse import empty, insert
from billing_sink.postgres_exports import PostgresExports
from gateway_core.usage import Meter

BATCH_S: Final = 30
"""A batch takes less, or others are let in."""


def _as_they_are(*names: str) -> Mapping[str, str]:
    return {name: f"r.{name}" for name in names}


def _or_empty(*names: str) -> Mapping[str, str]:
    """What Postgres may not know. ClickHouse keeps an empty text instead: a Nullable column costs a second file."""
    return {name: f"coalesce(r.{name}, '')" for name in names}


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

_PROGRAM: Final = "^[A-Za-z][A-Za-z0-9_.-]*(?:/[A-Za-z][A-Za-z_-]*)?"
"""How a program calls itself, without its version: `curl`, `OpenAI/Python`."""
_WRITTEN: Final = "(coalesce((r.meters ->> 'output')::bigint, 0) + coalesce((r.meters ->> 'reasoning')::bigint, 0))"

COLUMNS: Final[Mapping[str, str]] = {
    **_as_they_are("request_id", "started_at", "recorded_at", "outcome", "late", "usage_source"),
    **_or_empty("org_id", "project_id", "key_id", "endpoint", "model", "provider"),
    **_as_they_are("stream", "status"),
    **_or_empty("error_code"),
    **_as_they_are("attempts", "duration_ms", "first_byte_ms", "bytes_received", "bytes_sent", "sse_events"),
    **{f"{meter}_tokens": f"coalesce((r.meters ->> '{meter}')::bigint, 0)" for meter in METERS_WITH_A_COLUMN},
    **_as_they_are("cost_nano_usd", "price_nano_usd", "absorbed_nano_usd"),
    **_or_empty("client_request_id", "user_agent"),
    **_as_they_are("mode", "service_tier", "meters", "cached"),
    **_or_empty("choice"),
    **_as_they_are("own_key"),
    "asked_model": "coalesce(r.asked_model, r.model, '')",
    **_or_empty("upstream_model"),
    "client": f"coalesce(substring(r.user_agent from '{_PROGRAM}'), '')",
    "tags": "coalesce(r.tags, '{}')",
    "output_token_us": f"CASE WHEN r.stream AND {_WRITTEN} > 1 AND r.duration_ms >= r.first_byte_ms"
    f" THEN (r.duration_ms - r.first_byte_ms) * 1000 / ({_WRITTEN} - 1) END",
    **_as_they_are("overhead_us"),
}
"""Each column of the table `requests` in ClickHouse, and its expression over a row `r` of billing.requests."""


ATTEMPT_COLUMNS: Final[Mapping[str, str]] = {
    **_as_they_are("request_id", "started_at", "recorded_at"),
    **_or_empty("provider", "upstream_model", "host"),
    **_as_they_are("status"),
    **_or_empty("response_flags", "response_details"),
    **_as_they_are("duration_ms", "bytes_received", "bytes_sent"),
    **_or_empty("org_id"),
    **_as_they_are("own_key", "own_reply"),
}
"""The same of the table `attempts`."""


HEALTH_COLUMNS: Final[Mapping[str, str]] = {
    **_as_they_are("seq", "since", "until", "provider"),
    **_or_empty("upstream_model"),
    **_as_they_are("condition"),
    **_or_empty("why"),
    **_as_they_are("times"),
    **_or_empty("actor_kind", "actor_id"),
}
"""The same of the table `provider_health`."""

AUDIT_COLUMNS: Final[Mapping[str, str]] = {
    **_as_they_are("seq", "at"),
    **_or_empty("org_id"),
    **_as_they_are("actor_kind", "actor_id", "action", "target_id", "request_id"),
}
"""The same of the table `audit`. What was before and after is not for analysts."""


@dataclass(frozen=True, slots=True)
class Table:
    """What is copied: a table of Postgres to one of that name in ClickHouse, by a cursor of that name."""

    name: str
    source: str
    columns: Mapping[str, str]


REQUESTS: Final = Table("requests", "billing.requests", COLUMNS)
ATTEMPTS: Final = Table("attempts", "billing.attempts", ATTEMPT_COLUMNS)
PROVIDER_HEALTH: Final = Table("provider_health", "catalog.provider_states", HEALTH_COLUMNS)
AUDIT: Final = Table("audit", "accounts.audit_log", AUDIT_COLUMNS)
TABLES: Final = (REQUESTS, ATTEMPTS, PROVIDER_HEALTH, AUDIT)


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
            if await self._exports.begins_anew():
                await asyncio.to_thread(empty, self._client, self._table.name)
                await self._exports.begin_anew()
            found = await self._exports.next_rows(self._table.source, self._table.columns, self._batch_rows)
            if found is None:
                return 0
            await asyncio.to_thread(insert, self._client, self._table.name, found.lines)
            await self._exports.move(found.end)
            return len(found.lines)
