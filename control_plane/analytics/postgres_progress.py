"""How far ClickHouse has counted what is in the ledger, as Postgres knows it; and by whose clock an organisation's days begin."""

from datetime import datetime

from control_plane.database import Database


async def counted_until(db: Database, now: datetime) -> datetime:
    """What was recorded before this moment is counted."""
    place = await db.fetchrow(
        "SELECT written_by, seq FROM billing.export_cursors WHERE name = 'roll_ups' AND NOT begins_anew"
    )
    first_behind: datetime | None = await db.fetchval(
        """
        SELECT recorded_at FROM billing.requests WHERE (written_by, seq) > ($1, $2) ORDER BY written_by, seq LIMIT 1
        """,
        *((0, 0) if place is None else (place["written_by"], place["seq"])),
    )
    return now if first_behind is None else min(first_behind, now)


async def time_zone_of(db: Database, org_id: str) -> str | None:
    """Of an organisation; None if there is none."""
    found: str | None = await db.fetchval("SELECT time_zone FROM accounts.organizations WHERE org_id = $1", org_id)
    return found
