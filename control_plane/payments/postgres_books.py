"""Whether the books are right: asked of the ledger anew, and read from what is kept of the last looks."""

from typing import Final

from control_plane.database import Database
from control_plane.payments.books import Check, Inspection, Seal, are_right

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
    """What the last nightly look found; None before the first."""
    rows = await db.fetch(
        """
        SELECT * FROM billing.inspections
        WHERE inspected_at = (SELECT max(inspected_at) FROM billing.inspections) ORDER BY name
        """
    )
    if not rows:
        return None
    checks = [Check.model_validate(dict(row)) for row in rows]
    return Inspection(inspected_at=rows[0]["inspected_at"], ok=are_right(checks), checks=checks)
