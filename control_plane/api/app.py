"""The route table: `/v1/models` and `/v1/files` for clients, `/api/v1` from the declared operations, Stripe's webhook and a sign of life beside them."""

from aiohttp import web
from prometheus_client import CollectorRegistry

# Imported for their operations.
from control_plane.api import (
    analytics,
    auth,
    balance,
    books,
    budgets,
    cached_answers,
    catalog,
    imports,
    keys,
    mail_pages,
    me,
    members,
    models,
    oidc,
    operations,
    orgs,
    own_keys,
    payment_settings,
    play_money,
    prices,
    provider_health,
    provider_kinds,
    providers,
    quarantine,
    reconciliation,
    requests,
    routes,
    sign_in_page,
    starter,
    statements,
    tokens,
    topups,
    vouchers,
    webhooks,
)
from control_plane.api.context import SERVICES, Services
from control_plane.api.dispatch import continue_if_asked, handler_of
from control_plane.api.docs_page import page
from control_plane.api.errors import error_middleware
from control_plane.api.file_list import show_files
from control_plane.api.model_list import list_models, show_model
from control_plane.api.openapi import document
from control_plane.api.operation import BODY_BYTES_MAX, OPERATIONS, PREFIX
from control_plane.api.static_page import StaticPage
from control_plane.api.stripe_webhook import StripeWebhook
from gateway_core.health import live_route

OPERATION_MODULES = (
    auth,
    oidc,
    me,
    orgs,
    cached_answers,
    members,
    keys,
    play_money,
    balance,
    books,
    statements,
    requests,
    analytics,
    budgets,
    quarantine,
    reconciliation,
    topups,
    payment_settings,
    vouchers,
    webhooks,
    tokens,
    providers,
    own_keys,
    provider_health,
    provider_kinds,
    models,
    prices,
    routes,
    catalog,
    imports,
    starter,
    operations,
)


def make_app(services: Services, *, registry: CollectorRegistry) -> web.Application:
    """The control plane's HTTP application."""
    app = web.Application(
        client_max_size=BODY_BYTES_MAX, middlewares=[error_middleware(services.log, services.random_bytes)]
    )
    app[SERVICES] = services
    app.router.add_get("/v1/models", list_models)
    # A name may have slashes in it.
    app.router.add_get("/v1/models/{model:.+}", show_model)
    app.router.add_get("/v1/files", show_files)
    for operation in OPERATIONS:
        app.router.add_route(
            operation.method, PREFIX + operation.path, handler_of(operation), expect_handler=continue_if_asked
        )
    described = document(OPERATIONS)
    shown = page(described)

    async def openapi(_request: web.Request) -> web.Response:
        return web.json_response(described)

    async def docs(_request: web.Request) -> web.Response:
        return web.Response(text=shown, content_type="text/html")

    # Without a slash before them: below whatever path this server is reached at.
    async def to_docs(_request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": f"{PREFIX.removeprefix('/')}/docs"})

    async def to_docs_without_slash(_request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "../docs"})

    async def jwks(_request: web.Request) -> web.Response:
        return web.json_response({"keys": await services.access_tokens.jwks()})

    app.add_routes(
        [
            *(_page_route(each) for each in (sign_in_page.PAGE, *mail_pages.PAGES)),
            web.get(f"{PREFIX}/openapi.json", openapi),
            web.get(f"{PREFIX}/docs", docs),
            web.get(f"{PREFIX}/docs/", to_docs_without_slash),
            web.get("/", to_docs),
            web.get("/.well-known/jwks.json", jwks),
            *StripeWebhook(
                *(services.pool, services.stripe_webhook_secret, registry, services.log), body_s=services.body_s
            ).routes(),
            live_route(),
        ]
    )
    return app


def _page_route(page: StaticPage) -> web.RouteDef:
    async def show(_request: web.Request) -> web.Response:
        return web.Response(text=page.html, content_type="text/html", headers=page.headers)

    return web.get(page.path, show)
