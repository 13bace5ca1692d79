"""What has come to ClickHouse since requests were added up there last, as Postgres knows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from billing_sink.postgres_exports import Position

ROLL_UPS: Final = "roll_ups"
"""The name of the cursor. It runs behind that of `requests`, through the same rows."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive rows that have been copied, by what they are added up by, and where they end.

    Attributes:
        minutes: in which they began, in their order.
        orgs: whose they are; an empty text where nobody knows.
        rows: how many.
    """

    minutes: Sequence[datetime]
    orgs: Sequence[str]
    rows: int
    end: Position


class PostgresRollUps:
    """Reads along the cursor."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def next_stretch(self, rows_max: int) -> Stretch | None:
        """The rows behind the cursor that ClickHouse has, so many at the most; None if it has added up all that it has."""
        row = await self._pool.fetchrow(
            """
            WITH places AS (
                SELECT coalesce(max(written_by) FILTER (WHERE name = $1), '0'::xid8) AS from_transaction,
                    coalesce(max(seq) FILTER (WHERE name = $1), 0) AS from_seq,
                    coalesce(max(written_by) FILTER (WHERE name = 'requests'), '0'::xid8) AS to_transaction,
                    coalesce(max(seq) FILTER (WHERE name = 'requests'), 0) AS to_seq
                FROM billing.export_cursors
            ), copied AS (
                SELECT r.written_by, r.seq, r.started_at, r.org_id FROM places, billing.requests r
                WHERE (r.written_by, r.seq) > (from_transaction, from_seq) AND (r.written_by, r.seq) <= (to_transaction, to_seq)
                ORDER BY r.written_by, r.seq LIMIT $2
            ), last AS (SELECT written_by, seq FROM copied ORDER BY written_by DESC, seq DESC LIMIT 1)
            SELECT last.written_by, last.seq,
                (SELECT array_agg(DISTINCT date_trunc('minute', started_at, 'UTC')) FROM copied) AS minutes,
                (SELECT array_agg(DISTINCT coalesce(org_id, '')) FROM copied) AS orgs,
                (SELECT count(*) FROM copied) AS rows
            FROM last
            """,
            *(ROLL_UPS, rows_max),
        )
        if row is None:
            return None
        return Stretch(row["minutes"], row["orgs"], row["rows"], Position(row["written_by"], row["seq"]))
