"""Routes: which providers serve a model, in which order. Edited as numbered rows, compared with what is served, then published."""

from typing import Any
from urllib.parse import quote

from aiohttp import web

from control_plane.accounts.permissions import Permission
from control_plane.catalog.strategies import StickyBy, Strategy
from control_plane.console import forms
from control_plane.console.changes import change_on, to
from control_plane.console.differences import difference
from control_plane.console.forms import Form
from control_plane.console.pages.operations import to_operation
from control_plane.console.rendering import page
from control_plane.console.route_form import NEW, rows_of, spec_of, spec_of_route
from control_plane.console.sessions import PATH
from control_plane.console.visitor import VISITOR, Visitor
from control_plane.errors import NotFoundError, RefusedError


async def show_routes(request: web.Request) -> web.Response:
    """GET /routes."""
    visitor = request[VISITOR]
    query = {"limit": "100", **({"cursor": request.query["cursor"]} if "cursor" in request.query else {})}
    routes = await visitor.ask("list_routes", query=query)
    return page(request, "routes.html", routes=routes, changes=visitor.may(Permission.CATALOG_WRITE))


async def begin_route(request: web.Request) -> web.Response:
    """GET /new-route?name=: on to the form of a route of that name."""
    name = request.query.get("name", "").strip()
    return to(f"{PATH}/routes/{quote(name, safe='')}" if name else f"{PATH}/routes")


async def show_route(
    request: web.Request, *, form: Form | None = None, refused: RefusedError | None = None
) -> web.Response:
    """GET /routes/{route}: the form, of a route that is there or of a new one."""
    visitor, name = request[VISITOR], request.match_info["route"]
    found = await _find(visitor, name)
    providers = (await visitor.ask("list_providers", query={"limit": "200"}))["data"]
    served = {**NEW, "match": name} if found is None else spec_of_route(found)
    spec = served if form is None else spec_of(form)
    return page(
        request,
        "route.html",
        name=name,
        found=found,
        spec=spec,
        rows=rows_of(spec),
        providers=[each["name"] for each in providers],
        strategies=[each.value for each in Strategy],
        stickiness=[each.value for each in StickyBy],
        changes=visitor.may(Permission.CATALOG_WRITE),
        refused=refused,
    )


@change_on(show_route)
async def preview(request: web.Request, form: Form) -> web.Response:
    """POST /routes/{route}/preview: what would change, once the API has found nothing wrong with it."""
    visitor, name, spec = request[VISITOR], request.match_info["route"], spec_of(form)
    await visitor.ask("put_route", body=spec, match=forms.text(form, "revision"), dry_run=True, route=name)
    found = await _find(visitor, name)
    lines = difference(None if found is None else spec_of_route(found), spec)
    return page(request, "route_preview.html", name=name, form=form, lines=lines)


@change_on(show_route)
async def publish(request: web.Request, form: Form) -> web.Response:
    """POST /routes/{route}: what was looked at, for the revision that it was compared with."""
    operation = await request[VISITOR].ask(
        "put_route", body=spec_of(form), match=forms.text(form, "revision"), route=request.match_info["route"]
    )
    return to_operation(operation)


@change_on(show_route)
async def delete(request: web.Request, form: Form) -> web.Response:
    """POST /routes/{route}/delete."""
    operation = await request[VISITOR].ask(
        "delete_route", match=form.get("revision", ""), route=request.match_info["route"]
    )
    return to_operation(operation)


async def _find(visitor: Visitor, name: str) -> Any:
    try:
        return await visitor.ask("get_route", route=name)
    except NotFoundError:
        return None
