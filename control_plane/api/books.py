"""`/billing/books`: whether the books are right, looked up anew."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pydantic import Field

from control_plane.accounts.permissions import Permission
from control_plane.api.operation import Call, operation
from control_plane.database import Database
from control_plane.resource import Resource

TAG: Final = "books"

_TIMEOUT_S: Final = 300.0
"""It reads the whole ledger."""


class Check(Resource):
    """One thing that must hold."""

    name: str
    wrong: int = Field(description="How many transactions, accounts or requests it does not hold for.")
    example: str | None = Field(description="The id of one of them.")


class Seal(Resource):
    """The newest link of the chain of hashes over the ledger. Who keeps it elsewhere can tell later that nothing before it has changed."""

    seal_id: int
    last_transaction_id: int = Field(description="Everything up to this is sealed.")
    digest: str = Field(description="SHA-256, in hex.")
    sealed_at: datetime


class Inspection(Resource):
    """What the nightly look found; it compares ClickHouse with Postgres too."""

    inspected_at: datetime
    ok: bool
    checks: list[Check]


class Books(Resource):
    """What a look at the whole ledger found."""

    checked_at: datetime
    ok: bool = Field(description="Whether they are right, and were at the last nightly look.")
    checks: list[Check]
    seal: Seal | None = Field(
        description="Null before the first, which is made within a minute of the first transaction."
    )
    last_inspection: Inspection | None


@operation("GET", "/billing/books", tag=TAG, access=Permission.PLATFORM_READ)
async def verify_books(call: Call) -> Books:
    """Check the whole ledger: sums, holds, slices, seals, and that every charge has its request.

    ClickHouse is compared by the nightly look, which counts too.
    """
    rows = await call.db.fetch("SELECT * FROM billing.check_books()", timeout=_TIMEOUT_S)
    checks = [Check.model_validate(dict(row)) for row in rows]
    inspection = await _last_inspection(call.db)
    return Books(
        checked_at=call.services.now(),
        ok=_is_ok(checks) and (inspection is None or inspection.ok),
        checks=checks,
        seal=await _last_seal(call.db),
        last_inspection=inspection,
    )


async def _last_seal(db: Database) -> Seal | None:
    row = await db.fetchrow("SELECT * FROM billing.seals ORDER BY seal_id DESC LIMIT 1")
    return None if row is None else Seal.model_validate({**row, "digest": row["digest"].hex()})


async def _last_inspection(db: Database) -> Inspection | None:
    rows = await db.fetch(
        """
        SELECT * FROM billing.inspections
        WHERE inspected_at = (SELECT max(inspected_at) FROM billing.inspections) ORDER BY name
        """
    )
    if not rows:
        return None
    checks = [Check.model_validate(dict(row)) for row in rows]
    return Inspection(inspected_at=rows[0]["inspected_at"], ok=_is_ok(checks), checks=checks)


def _is_ok(checks: Sequence[Check]) -> bool:
    return not any(check.wrong for check in checks)
