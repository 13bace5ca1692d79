"""`/billing/books`: whether the books are right, looked up anew; and inspections, which compare ClickHouse too."""

import re
from typing import Final

from control_plane.accounts.permissions import Permission
from control_plane.api.operation import Call, found, operation
from control_plane.errors import NotFoundError
from control_plane.payments import postgres_books
from control_plane.payments.books import Books, BooksQuery, InspectionOrder, are_right

TAG: Final = "books"

_ID: Final = re.compile(r"[0-9]{1,18}")


@operation("GET", "/billing/books", tag=TAG, access=Permission.PLATFORM_READ)
async def verify_books(call: Call, query: BooksQuery) -> Books:
    """Check the whole ledger: sums, holds, slices, seals, and that every charge has its request.

    ClickHouse is compared by inspections, nightly and when one is asked for; the last one counts too.
    """
    inspection = await postgres_books.last_inspection(call.db)
    if query.anew or inspection is None:
        checked_at, checks = call.services.now(), await postgres_books.check(call.db)
    else:
        checked_at, checks = inspection.inspected_at, inspection.checks
    return Books(
        checked_at=checked_at,
        ok=are_right(checks) and inspection is not None and inspection.ok,
        checks=checks,
        seal=await postgres_books.last_seal(call.db),
        last_inspection=inspection,
    )


@operation("POST", "/billing/books/inspections", tag=TAG, access=Permission.PLATFORM_WRITE, status=202)
async def ask_for_inspection(call: Call) -> InspectionOrder:
    """Have a billing sink look through the books and ClickHouse, as it does every night.

    Ask for it by its id until it is `done` or `failed`.
    """
    order = await postgres_books.ask_for_inspection(call.db)
    await call.audit("books.inspect", str(order.id))
    return order


@operation("GET", "/billing/books/inspections/{inspection_id}", tag=TAG, access=Permission.PLATFORM_READ)
async def get_inspection(call: Call) -> InspectionOrder:
    """How far an inspection is that was asked for, and what it has found."""
    text = call.param("inspection_id")
    if not _ID.fullmatch(text):
        raise NotFoundError
    return found(await postgres_books.find_order(call.db, int(text)))
