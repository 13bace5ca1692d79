"""The route table."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry

from control_plane.api.auth import Authenticator
from control_plane.api.context import AUTHENTICATOR, CURRENT_CATALOG, NODES
from control_plane.api.errors import error_middleware
from control_plane.api.models import list_models
from control_plane.api.nodes import list_nodes
from control_plane.catalog.model import Catalog
from control_plane.xds.nodes import NodeRegistry
from gateway_core.health import Ready, health_routes
from gateway_core.logs import Logger

BODY_BYTES_MAX = 1024 * 1024


def make_app(
    *,
    authenticator: Authenticator,
    nodes: NodeRegistry,
    current_catalog: Callable[[], Catalog],
    ready: Ready,
    registry: CollectorRegistry,
    log: Logger,
) -> web.Application:
    """The control plane's HTTP application."""
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[error_middleware(log)])
    app[AUTHENTICATOR] = authenticator
    app[NODES] = nodes
    app[CURRENT_CATALOG] = current_catalog
    app.add_routes(
        [
            web.get("/v1/models", list_models),
            web.get("/api/v1/nodes", list_nodes),
            *health_routes(ready, registry),
        ]
    )
    return app
