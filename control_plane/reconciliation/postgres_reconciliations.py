"""Reconciliations in Postgres: what a provider served by our books, and what comparisons have found."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

import asyncpg

from control_plane.accounts.actor import Actor
from control_plane.database import Database
from control_plane.reconciliation.comparison import Compared, OurSum
from control_plane.reconciliation.model import (
    ExportedFile,
    Reconciliation,
    ReconciliationSummary,
    Report,
    Unaccounted,
    percent_of,
)
from gateway_core.money import format_usd

_TIMEOUT_S = 60.0
_SUMMARY = """
    reconciliation_id, provider, made_at, actor_kind, actor_id, format, file_sha256, first_day, last_day, threshold_ppm, drift_ppm,
    beyond
"""


async def is_known(db: Database, provider: str) -> bool:
    """Whether there is such a provider, or was when requests went to it."""
    known: bool = await db.fetchval(
        """
        SELECT EXISTS (SELECT FROM catalog.providers WHERE name = $1)
            OR EXISTS (SELECT FROM billing.sums_of_providers('-infinity', 'infinity') WHERE provider = $1)
        """,
        provider,
    )
    return known


async def read_ours(db: Database, provider: str, first_day: date, last_day: date) -> Sequence[OurSum]:
    """What the provider served in these days, in UTC."""
    rows = await db.fetch(
        "SELECT * FROM billing.used_at_provider($1, $2, $3)",
        provider,
        *_bounds(first_day, last_day),
        timeout=_TIMEOUT_S,
    )
    return [
        OurSum(row["hour"].astimezone(UTC), row["upstream_model"], row["outcome"], row["measure"], row["amount"])
        for row in rows
    ]


async def read_unaccounted(db: Database, provider: str, first_day: date, last_day: date) -> Unaccounted:
    """What may have reached the provider in these days and is on no line."""
    [row] = await db.fetch(
        "SELECT * FROM billing.unaccounted_for($1, $2, $3)", provider, *_bounds(first_day, last_day), timeout=_TIMEOUT_S
    )
    return Unaccounted(
        failed_attempts_elsewhere=row["failed_attempts_elsewhere"],
        expired_holds=row["expired_holds"],
        unknown_slices_usd=format_usd(row["unknown_slices_nano_usd"]),
    )


async def keep(
    db: Database,
    provider: str,
    file: ExportedFile,
    days: tuple[date, date],
    compared: Compared,
    *,
    threshold_ppm: int,
    actor: Actor,
) -> Reconciliation:
    """Write down what was found."""
    [row] = await db.fetch(
        "SELECT * FROM billing.keep_reconciliation($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        *(provider, actor.kind, actor.actor_id, file.format, file.sha256, *days, threshold_ppm),
        *(compared.drift_ppm, compared.beyond, compared.report.model_dump_json()),
    )
    return _whole(row)


async def list_reconciliations(
    db: Database, *, provider: str | None, before: int | None, limit: int
) -> list[tuple[int, ReconciliationSummary]]:
    """The latest first, each with its position."""
    rows = await db.fetch(
        f"""
        SELECT {_SUMMARY} FROM billing.reconciliations
        WHERE ($1::text IS NULL OR provider = $1) AND ($2::bigint IS NULL OR reconciliation_id < $2)
        ORDER BY reconciliation_id DESC LIMIT $3
        """,  # noqa: S608 - columns of ours
        provider,
        before,
        limit,
    )
    return [(row["reconciliation_id"], ReconciliationSummary.model_validate(_shown(row))) for row in rows]


async def find_reconciliation(db: Database, reconciliation_id: int) -> Reconciliation | None:
    """One of them, whole."""
    row = await db.fetchrow("SELECT * FROM billing.reconciliations WHERE reconciliation_id = $1", reconciliation_id)
    return None if row is None else _whole(row)


def _whole(row: asyncpg.Record) -> Reconciliation:
    return Reconciliation.model_validate(_shown(row) | {"report": Report.model_validate_json(row["report"])})


def _shown(row: asyncpg.Record) -> dict[str, object]:
    return {
        **row,
        "id": row["reconciliation_id"],
        "threshold_percent": percent_of(row["threshold_ppm"]),
        "drift_percent": percent_of(row["drift_ppm"]),
    }


def _bounds(first_day: date, last_day: date) -> tuple[datetime, datetime]:
    return (
        datetime.combine(first_day, time(), UTC),
        datetime.combine(last_day + timedelta(days=1), time(), UTC),
    )
