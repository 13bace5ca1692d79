"""Whether the books are right: what the last inspection found, and a look at the ledger now."""

from aiohttp import web

from control_plane.accounts.permissions import Permission
from control_plane.console.changes import change_on, to
from control_plane.console.forms import Form
from control_plane.console.rendering import page
from control_plane.console.sessions import PATH
from control_plane.console.visitor import VISITOR
from control_plane.errors import RefusedError


async def show_books(
    request: web.Request, *, form: Form | None = None, refused: RefusedError | None = None
) -> web.Response:
    """GET /books: as of the last inspection; with `?anew=true`, read now."""
    visitor = request[VISITOR]
    anew = "true" if "anew" in request.query else "false"
    books = await visitor.ask("verify_books", query={"anew": anew})
    quarantine = await visitor.ask("list_quarantine", query={"limit": "50"})
    return page(
        request,
        "books.html",
        books=books,
        quarantine=quarantine["data"],
        changes=visitor.may(Permission.PLATFORM_WRITE),
        form=form,
        refused=refused,
    )


@change_on(show_books)
async def inspect(request: web.Request, _form: Form) -> web.Response:
    """POST /books/inspections: have a billing sink look through everything, ClickHouse included."""
    order = await request[VISITOR].ask("ask_for_inspection")
    return to(f"{PATH}/books/inspections/{order['id']}")


async def show_inspection(request: web.Request) -> web.Response:
    """GET /books/inspections/{inspection_id}."""
    order = await request[VISITOR].ask("get_inspection", inspection_id=request.match_info["inspection_id"])
    return page(request, "inspection.html", order=order)
