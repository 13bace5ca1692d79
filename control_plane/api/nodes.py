"""`GET /api/v1/nodes`: which Envoys are connected and what each accepted and refused."""

from aiohttp import web

from control_plane.api.context import AUTHENTICATOR, NODES
from control_plane.xds.nodes import NodeStatus, TypeStatus


async def list_nodes(request: web.Request) -> web.Response:
    """For operators: per node and resource type, the last accepted version and the last rejection."""
    await request.app[AUTHENTICATOR].require_operator(request)
    return web.json_response({"data": [_render(node) for node in request.app[NODES].nodes()]})


def _render(node: NodeStatus) -> dict[str, object]:
    return {
        "id": node.node_id,
        "connected_at": node.connected_at.isoformat(),
        "types": {type_url.rpartition(".")[2]: _render_type(status) for type_url, status in node.types.items()},
    }


def _render_type(status: TypeStatus) -> dict[str, object]:
    rejection = status.rejection
    return {
        "accepted_version": status.accepted_version,
        "accepted_at": status.accepted_at.isoformat() if status.accepted_at else None,
        "rejection": rejection
        and {"version": rejection.version, "message": rejection.message, "at": rejection.at.isoformat()},
    }
