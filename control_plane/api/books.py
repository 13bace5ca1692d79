"""`/billing/books`: whether the books are right, looked up anew."""

from typing import Final

from control_plane.accounts.permissions import Permission
from control_plane.api.operation import Call, operation
from control_plane.payments import postgres_books
from control_plane.payments.books import Books, are_right

TAG: Final = "books"


@operation("GET", "/billing/books", tag=TAG, access=Permission.PLATFORM_READ)
async def verify_books(call: Call) -> Books:
    """Check the whole ledger: sums, holds, slices, seals, and that every charge has its request.

    ClickHouse is compared by the nightly look, which counts too.
    """
    checks = await postgres_books.check(call.db)
    inspection = await postgres_books.last_inspection(call.db)
    return Books(
        checked_at=call.services.now(),
        ok=are_right(checks) and (inspection is None or inspection.ok),
        checks=checks,
        seal=await postgres_books.last_seal(call.db),
        last_inspection=inspection,
    )
