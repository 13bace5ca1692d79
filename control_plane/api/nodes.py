"""`GET /api/v1/nodes`: which Envoys are connected and what each accepted and refused."""

from datetime import datetime

from control_plane.accounts.model import Resource
from control_plane.accounts.permissions import Permission
from control_plane.api.operation import Call, operation
from control_plane.xds.nodes import NodeStatus, TypeStatus


class Rejection(Resource):
    """What a node refused, in its own words."""

    version: str
    message: str
    at: datetime


class NodeType(Resource):
    """One type of resources at one node."""

    accepted_version: str | None
    accepted_at: datetime | None
    rejection: Rejection | None


class Node(Resource):
    """One connected Envoy."""

    id: str
    connected_at: datetime
    types: dict[str, NodeType]


class Nodes(Resource):
    """Every connected Envoy."""

    data: list[Node]


@operation("GET", "/nodes", tag="platform", access=Permission.NODES_READ)
async def list_nodes(call: Call) -> Nodes:
    """Connected Envoys: per resource type, the last accepted version and the last rejection."""
    return Nodes(data=[_node(node) for node in call.services.nodes.nodes()])


def _node(node: NodeStatus) -> Node:
    types = {type_url.rpartition(".")[2]: _type(status) for type_url, status in node.types.items()}
    return Node(id=node.node_id, connected_at=node.connected_at, types=types)


def _type(status: TypeStatus) -> NodeType:
    rejection = status.rejection
    return NodeType(
        accepted_version=status.accepted_version,
        accepted_at=status.accepted_at,
        rejection=rejection and Rejection(version=rejection.version, message=rejection.message, at=rejection.at),
    )
