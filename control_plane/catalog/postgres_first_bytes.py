"""How fast providers answer, from the rows of finished requests, for the routes that go by it."""

from datetime import datetime
from typing import Final

from control_plane.database import Connection, Database
from gateway_core.contract import Channel
from gateway_core.ids import ModelName, ProviderName

_ROWS_MAX: Final = 5000
"""Looked at in one go. Of more than that since the last look the newest are enough."""
_KEPT: Final = 0.9
"""Of a rolling figure, by each request that is added: after seven of them, half of it is new."""
_MOVES_BY: Final = 1.25
"""As far as a rolling figure has to be from the one in force before that follows it."""

_TAKE_IN: Final = """
    WITH newest AS MATERIALIZED (
        SELECT written_by, seq, model, provider, first_byte_ms, status, attempts, mode FROM billing.requests
        WHERE (written_by, seq) > ($1, $2) AND written_by < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY written_by DESC, seq DESC LIMIT $3
    ), seen AS (
        UPDATE catalog.first_bytes_seen s SET written_by = n.written_by, seq = n.seq
        FROM (SELECT written_by, seq FROM newest ORDER BY written_by DESC, seq DESC LIMIT 1) n
    ), measured AS (
        -- The mean of logarithms: one answer that took a minute is no reason to go elsewhere.
        SELECT model, provider, avg(ln(greatest(first_byte_ms, 1)))::double precision AS log_ms,
               power($4::double precision, count(*)) AS kept
        FROM newest JOIN catalog.going_by_speed USING (model, provider)
        WHERE first_byte_ms IS NOT NULL AND status BETWEEN 200 AND 399 AND attempts = 1 AND mode = 'live'
        GROUP BY model, provider
    ), rolled AS (
        SELECT model, provider, exp(log_ms + (coalesce(ln(f.rolling_ms), log_ms) - log_ms) * kept) AS rolling_ms
        FROM measured LEFT JOIN catalog.first_bytes f USING (model, provider)
    )
    INSERT INTO catalog.first_bytes AS f (model, provider, rolling_ms, in_force_ms, measured_at)
    SELECT model, provider, rolling_ms, round(rolling_ms), $6 FROM rolled
    ON CONFLICT (model, provider) DO UPDATE SET
        rolling_ms = excluded.rolling_ms,
        measured_at = excluded.measured_at,
        in_force_ms = CASE
            WHEN excluded.rolling_ms BETWEEN f.in_force_ms / $5::double precision AND f.in_force_ms * $5 THEN f.in_force_ms
            ELSE excluded.in_force_ms
        END
"""


async def take_in(db: Connection, now: datetime) -> bool:
    """Take in what has been written since the last time; whether a figure in force is another one now. In a transaction.

    One does it at a time; whoever comes meanwhile leaves it to the other.
    """
    if not await db.fetchval("SELECT EXISTS (SELECT FROM catalog.going_by_speed)"):
        return False
    seen = await db.fetchrow("SELECT written_by, seq FROM catalog.first_bytes_seen FOR UPDATE SKIP LOCKED")
    if seen is None:
        return False
    before = await first_bytes(db)
    await db.execute(
        """
        DELETE FROM catalog.first_bytes f
        WHERE NOT EXISTS (SELECT FROM catalog.going_by_speed g WHERE g.model = f.model AND g.provider = f.provider)
        """
    )
    await db.execute(_TAKE_IN, seen["written_by"], seen["seq"], _ROWS_MAX, _KEPT, _MOVES_BY, now)
    if await first_bytes(db) == before:
        return False
    await db.execute(
        "SELECT pg_notify($1, (SELECT coalesce(max(revision), 0)::text FROM catalog.revisions))", Channel.CATALOG
    )
    return True


async def first_bytes(db: Database) -> dict[tuple[ModelName, ProviderName], int]:
    """The figures in force, in milliseconds."""
    rows = await db.fetch("SELECT model, provider, in_force_ms FROM catalog.first_bytes")
    return {(ModelName(row["model"]), ProviderName(row["provider"])): row["in_force_ms"] for row in rows}
