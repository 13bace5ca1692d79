"""`/billing/books`: whether the books are right, looked up anew."""

from datetime import datetime
from typing import Final

from pydantic import Field

from control_plane.accounts.permissions import Permission
from control_plane.api.operation import Call, operation
from control_plane.resource import Resource

TAG: Final = "books"

_TIMEOUT_S: Final = 300.0
"""It reads the whole ledger."""


class Check(Resource):
    """One thing that must hold."""

    name: str
    wrong: int = Field(description="How many transactions, accounts or requests it does not hold for.")
    example: str | None = Field(description="The id of one of them.")


class Books(Resource):
    """What a look at the whole ledger found."""

    checked_at: datetime
    ok: bool
    checks: list[Check]


@operation("GET", "/billing/books", tag=TAG, access=Permission.PLATFORM_READ)
async def verify_books(call: Call) -> Books:
    """Check the whole ledger: sums, holds, slices, and that every charge has its request."""
    rows = await call.db.fetch("SELECT * FROM billing.check_books()", timeout=_TIMEOUT_S)
    checks = [Check.model_validate(dict(row)) for row in rows]
    return Books(checked_at=call.services.now(), ok=not any(check.wrong for check in checks), checks=checks)
