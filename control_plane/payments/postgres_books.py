"""Whether the books are right: asked of the ledger anew, and read from what is kept of the last looks."""

from datetime import datetime
from typing import Final

import asyncpg

from control_plane.database import Database, written
from control_plane.payments.books import Check, Inspection, InspectionOrder, InspectionState, Seal, are_right

_TIMEOUT_S: Final = 300.0
"""It reads the whole ledger."""


async def check(db: Database) -> list[Check]:
    """Look at all of it, now."""
    rows = await db.fetch("SELECT * FROM billing.check_books()", timeout=_TIMEOUT_S)
    return [Check.model_validate(dict(row)) for row in rows]


async def last_seal(db: Database) -> Seal | None:
    """The newest one; None before the first."""
    row = await db.fetchrow("SELECT * FROM billing.seals ORDER BY seal_id DESC LIMIT 1")
    return None if row is None else Seal.model_validate({**row, "digest": row["digest"].hex()})


async def last_inspection(db: Database) -> Inspection | None:
    """The newest, whoever wanted it; None before the first."""
    at = await db.fetchval("SELECT max(inspected_at) FROM billing.inspections")
    return None if at is None else await _inspection(db, at)


async def ask_for_inspection(db: Database) -> InspectionOrder:
    """Have a billing sink look through everything."""
    return await _order(db, written(await db.fetchrow("SELECT * FROM billing.ask_for_inspection()")))


async def find_order(db: Database, order_id: int) -> InspectionOrder | None:
    """What became of an inspection that was asked for."""
    row = await db.fetchrow("SELECT * FROM billing.inspection_orders WHERE order_id = $1", order_id)
    return None if row is None else await _order(db, row)


async def _inspection(db: Database, at: datetime) -> Inspection:
    rows = await db.fetch("SELECT * FROM billing.inspections WHERE inspected_at = $1 ORDER BY name", at)
    checks = [Check.model_validate(dict(row)) for row in rows]
    return Inspection(inspected_at=at, ok=are_right(checks), checks=checks)


async def _order(db: Database, row: asyncpg.Record) -> InspectionOrder:
    at = row["inspected_at"]
    return InspectionOrder(
        id=row["order_id"],
        state=_state(row),
        asked_at=row["asked_at"],
        begun_at=row["begun_at"],
        finished_at=row["finished_at"],
        failure=row["failure"],
        inspection=None if at is None else await _inspection(db, at),
    )


def _state(row: asyncpg.Record) -> InspectionState:
    if row["finished_at"] is not None:
        return InspectionState.DONE if row["failure"] is None else InspectionState.FAILED
    return InspectionState.ASKED if row["begun_at"] is None else InspectionState.BEGUN
