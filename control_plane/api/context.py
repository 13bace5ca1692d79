"""What handlers find in the application, by typed keys."""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from control_plane.api.auth import Authenticator
from control_plane.catalog.model import Catalog
from control_plane.xds.nodes import NodeRegistry

AUTHENTICATOR: Final = web.AppKey("authenticator", Authenticator)
NODES: Final = web.AppKey("nodes", NodeRegistry)
CURRENT_CATALOG: Final[web.AppKey[Callable[[], Catalog]]] = web.AppKey("current_catalog")
