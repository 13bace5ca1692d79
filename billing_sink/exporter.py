"""Copies finished requests from Postgres to ClickHouse, in the order of their transactions.

A sequence alone would skip the rows of a transaction that commits late, so the cursor goes by transaction first and stops
before the oldest one still running. Rows go in before the cursor moves: a crash between repeats a batch, which collapses.
"""

import asyncio
import json
from collections.abc import Sequence

import asyncpg
from clickhouse_connect.driver.client import Client

from billing_sink.clickhouse import insert_requests

CURSOR = "requests"


class Exporter:
    """Moves one batch at a time."""

    def __init__(self, pool: asyncpg.Pool, client: Client, *, batch_rows: int) -> None:
        self._pool = pool
        self._client = client
        self._batch_rows = batch_rows

    async def export_batch(self) -> int:
        """Copy the next rows; returns how many there were.

        Raises:
            clickhouse_connect.driver.exceptions.Error, OSError, asyncpg.PostgresError: nothing is lost; call again.
        """
        rows = await self._pool.fetch(
            """
            WITH cursor AS (
                SELECT coalesce(max(written_by), '0'::xid8) AS written_by, coalesce(max(seq), 0) AS seq
                FROM billing.export_cursors WHERE name = $1
            )
            SELECT r.* FROM billing.requests r, cursor
            WHERE (r.written_by, r.seq) > (cursor.written_by, cursor.seq)
              AND r.written_by < pg_snapshot_xmin(pg_current_snapshot())
            ORDER BY r.written_by, r.seq LIMIT $2
            """,
            CURSOR,
            self._batch_rows,
        )
        if not rows:
            return 0
        await asyncio.to_thread(insert_requests, self._client, [_request_row(row) for row in rows])
        await self._pool.execute(
            """
            INSERT INTO billing.export_cursors (name, written_by, seq) VALUES ($1, $2, $3)
            ON CONFLICT (name) DO UPDATE SET written_by = excluded.written_by, seq = excluded.seq
            """,
            CURSOR,
            rows[-1]["written_by"],
            rows[-1]["seq"],
        )
        return len(rows)


def _request_row(row: asyncpg.Record) -> Sequence[object]:
    """The values of `REQUEST_COLUMNS`, in their order."""
    meters: dict[str, int] = json.loads(row["meters"])
    return (
        row["request_id"],
        row["started_at"],
        row["recorded_at"],
        row["outcome"],
        row["late"],
        row["usage_source"],
        *(row[name] or "" for name in ("org_id", "project_id", "key_id", "endpoint", "model", "provider")),
        row["stream"],
        row["status"],
        row["error_code"] or "",
        row["attempts"],
        row["duration_ms"],
        row["first_byte_ms"],
        row["bytes_received"],
        row["bytes_sent"],
        row["sse_events"],
        meters.get("input", 0),
        meters.get("cached_input", 0),
        meters.get("cache_write_5m", 0) + meters.get("cache_write_1h", 0),
        meters.get("output", 0),
        meters.get("reasoning", 0),
        row["cost_nano_usd"],
        row["price_nano_usd"],
        row["absorbed_nano_usd"],
        row["client_request_id"] or "",
        row["user_agent"] or "",
    )
