"""The explorer of requests: why one went where it did, what it cost, and every attempt that was made for it."""

from typing import Final

from aiohttp import web

from control_plane.console.pages.organizations import org_of
from control_plane.console.rendering import page
from control_plane.console.visitor import VISITOR

_FILTERS: Final = ("status", "outcome", "key_id", "model", "cursor")
OUTCOMES: Final = ("settled", "estimated", "released", "free", "refused")


async def show_requests(request: web.Request) -> web.Response:
    """GET /orgs/{org_id}/requests."""
    org = await org_of(request)
    asked = {name: request.query[name].strip() for name in _FILTERS if request.query.get(name, "").strip()}
    found = await request[VISITOR].ask("list_requests", query={**asked, "limit": "50"}, org_id=org["id"])
    return page(request, "requests.html", org=org, found=found, form=asked, outcomes=OUTCOMES)


async def show_request(request: web.Request) -> web.Response:
    """GET /orgs/{org_id}/requests/{request_id}."""
    return await _show(request, org=await org_of(request), request_id=request.match_info["request_id"])


async def find_request(request: web.Request) -> web.Response:
    """GET /requests?id=: any request by its id, for operators; without one, the field to write it in."""
    request_id = request.query.get("id", "").strip()
    if not request_id:
        return page(request, "find_request.html")
    return await _show(request, org=None, request_id=request_id)


async def _show(request: web.Request, *, org: object, request_id: str) -> web.Response:
    found = await request[VISITOR].ask("get_request", request_id=request_id)
    return page(request, "request.html", org=org, found=found)
