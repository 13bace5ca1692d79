"""The table of pages, below `/console`."""

from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from control_plane.api.context import SERVICES, Services
from control_plane.console.guard import add_headers, guard
from control_plane.console.pages import (
    books,
    catalogue,
    keys,
    money,
    operations,
    organizations,
    providers,
    requests,
    routes,
    sign_in,
)
from control_plane.console.pages.playground import Playground
from control_plane.console.playground_keys import PlaygroundKeys
from control_plane.console.sessions import PATH
from control_plane.console.spending import RecentSpending
from control_plane.console.visitor import VISITOR
from gateway_core.clock import monotonic

_STATIC: Final = Path(__file__).parent / "static"
_ASSETS: Final = ("console.css", "console.js", "htmx.min.js", "icon.svg")
_ORG: Final = "/orgs/{org_id}"
_ASSET_S: Final = 300


def add_console(app: web.Application, services: Services, *, gateway_url: str, http: aiohttp.ClientSession) -> None:
    """Put the console beside the API.

    Args:
        app: of the control plane.
        services: what operations work with.
        gateway_url: where the playground asks, without a slash at its end.
        http: what it asks with.
    """
    console = web.Application(middlewares=[guard()])
    console[SERVICES] = services
    console.on_response_prepare.append(add_headers)
    playground_keys = PlaygroundKeys()
    playground = Playground(gateway_url, http, playground_keys)
    overview = organizations.Overview(RecentSpending(monotonic))

    async def sign_out(request: web.Request) -> web.Response:
        await playground_keys.revoke(request[VISITOR])
        return await sign_in.sign_out(request)

    console.add_routes(
        [
            *(_asset(name) for name in _ASSETS),
            web.get("/", organizations.show_home),
            web.get("/sign-in", sign_in.show_sign_in),
            web.post("/sign-in", sign_in.sign_in),
            web.get("/sign-in/at/{issuer}", sign_in.begin_at_issuer),
            web.post("/sign-in/back", sign_in.end_at_issuer),
            web.get("/register", sign_in.show_register),
            web.post("/register", sign_in.register),
            web.post("/sign-out", sign_out),
            web.get("/orgs", organizations.show_orgs),
            web.post("/orgs", organizations.create_org),
            web.get(f"{_ORG}/", overview.show),
            web.get(f"{_ORG}/figures", overview.show_figures),
            web.get(f"{_ORG}/keys", keys.show_keys),
            web.post(f"{_ORG}/keys", keys.create_key),
            web.get(f"{_ORG}/keys/{{key_id}}", keys.show_key),
            web.post(f"{_ORG}/keys/{{key_id}}", keys.change_key),
            web.post(f"{_ORG}/keys/{{key_id}}/rotate", keys.rotate_key),
            web.post(f"{_ORG}/keys/{{key_id}}/revoke", keys.revoke_key),
            web.get(f"{_ORG}/usage", money.show_usage),
            web.get(f"{_ORG}/money", money.show_money),
            web.post(f"{_ORG}/topups", money.top_up),
            web.post(f"{_ORG}/redemptions", money.redeem),
            web.post(f"{_ORG}/credits", money.credit),
            web.get(f"{_ORG}/invoices/{{invoice_id}}/{{form:pdf|csv}}", money.download_invoice),
            web.get(f"{_ORG}/requests", requests.show_requests),
            web.get(f"{_ORG}/requests/{{request_id}}", requests.show_request),
            web.get(f"{_ORG}/playground", playground.show),
            web.post(f"{_ORG}/playground", playground.ask),
            web.get(f"{_ORG}/playground/{{request_id}}", playground.show_price),
            web.get("/providers", providers.show_providers),
            web.get("/provider-states", providers.show_states),
            web.get("/providers/{provider}", providers.show_provider),
            web.post("/providers/{provider}/pause", providers.pause),
            web.post("/providers/{provider}/resume", providers.resume),
            web.get("/routes", routes.show_routes),
            web.get("/new-route", routes.begin_route),
            web.get("/routes/{route}", routes.show_route),
            web.post("/routes/{route}", routes.publish),
            web.post("/routes/{route}/preview", routes.preview),
            web.post("/routes/{route}/delete", routes.delete),
            web.get("/operations", operations.show_operations),
            web.get("/operations/{operation_id}", operations.show_operation),
            web.get("/operations/{operation_id}/progress", operations.show_progress),
            web.get("/models", catalogue.show_models),
            web.get("/models/{model}", catalogue.show_model),
            web.get("/requests", requests.find_request),
            web.get("/books", books.show_books),
            web.post("/books/inspections", books.inspect),
            web.get("/books/inspections/{inspection_id}", books.show_inspection),
        ]
    )
    app.router.add_get(PATH, _to_console)
    app.add_subapp(PATH, console)


async def _to_console(_request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": f"{PATH}/"})


def _asset(name: str) -> web.RouteDef:
    """A file of ours. What is not named is not served, whatever lies beside it."""

    async def show(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(_STATIC / name, headers={"Cache-Control": f"max-age={_ASSET_S}"})

    return web.get(f"/static/{name}", show)
