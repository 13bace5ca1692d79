"""Changes of the catalogue on their way into every Envoy, and the Envoys."""

import asyncio
from typing import Any

from aiohttp import web

from control_plane.console.changes import to
from control_plane.console.rendering import page
from control_plane.console.sessions import PATH
from control_plane.console.visitor import VISITOR


def to_operation(operation: Any) -> web.Response:
    """Where a browser watches a change that it has just made."""
    return to(f"{PATH}/operations/{operation['id']}")


async def show_operations(request: web.Request) -> web.Response:
    """GET /operations."""
    visitor = request[VISITOR]
    query = {"cursor": request.query["cursor"]} if "cursor" in request.query else {}
    operations, nodes = await asyncio.gather(visitor.ask("list_operations", query=query), visitor.ask("list_nodes"))
    return page(request, "operations.html", operations=operations, nodes=nodes)


async def show_operation(request: web.Request) -> web.Response:
    """GET /operations/{operation_id}."""
    return page(request, "operation.html", **await _progress(request))


async def show_progress(request: web.Request) -> web.Response:
    """GET /operations/{operation_id}/progress: the part of it that changes by itself until it has ended."""
    return page(request, "_progress.html", **await _progress(request))


async def _progress(request: web.Request) -> dict[str, Any]:
    visitor = request[VISITOR]
    operation, nodes = await asyncio.gather(
        visitor.ask("get_operation", operation_id=request.match_info["operation_id"]), visitor.ask("list_nodes")
    )
    return {"operation": operation, "nodes": nodes}
