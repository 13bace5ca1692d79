"""What the Envoys of this control plane have accepted and refused, told to schema `catalog`, where operations are settled by it."""

import json
from collections.abc import Iterable

import asyncpg

from control_plane.xds.nodes import NodeStatus, TypeStatus


class PostgresNodes:
    """What one control plane, told apart by its id, says of its Envoys."""

    def __init__(self, pool: asyncpg.Pool, control_plane: str) -> None:
        self._pool = pool
        self._control_plane = control_plane

    async def report(self, nodes: Iterable[NodeStatus], *, published: int, untranslatable: int | None) -> None:
        """Replace what was said before, and settle the operations that hung on it.

        Args:
            nodes: all there are; those not among them have left.
            published: the revision that the nodes are offered.
            untranslatable: a newer one that could not be offered.
        """
        await self._pool.execute(
            "SELECT catalog.report_nodes($1, $2, $3, $4)",
            self._control_plane,
            published,
            untranslatable,
            json.dumps([_written_node(node) for node in nodes]),
        )


def _written_node(node: NodeStatus) -> dict[str, object]:
    return {
        "stream": node.stream,
        "node_id": _storable(node.node_id),
        "connected_at": node.connected_at.isoformat(),
        "accepted_revision": node.accepted_revision,
        "refused_revision": node.refused_revision,
        "is_silent": node.is_silent,
        "refusal": None if node.refusal is None else _storable(node.refusal),
        "types": {type_url.rpartition(".")[2]: _written_type(status) for type_url, status in node.types.items()},
    }


def _written_type(status: TypeStatus) -> dict[str, object]:
    rejection = status.rejection
    return {
        "accepted_version": _storable(status.accepted_version or "") or None,
        "accepted_at": status.accepted_at and status.accepted_at.isoformat(),
        "rejection": rejection
        and {"version": rejection.version, "message": _storable(rejection.message), "at": rejection.at.isoformat()},
    }


def _storable(text: str) -> str:
    """What an Envoy says, without the one character that Postgres cannot keep."""
    return text.replace("\x00", "\ufffd")
