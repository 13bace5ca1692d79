"""What each connected Envoy has accepted and refused. A rejection is state: Envoy keeps its old configuration quietly."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway_core.clock import Now


@dataclass(frozen=True, slots=True)
class Rejection:
    """A version that a node refused, and its words."""

    version: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """Of one resource type at one node."""

    accepted_version: str | None = None
    accepted_at: datetime | None = None
    rejection: Rejection | None = None


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One connected Envoy.

    Attributes:
        accepted_revision: of the newest snapshot it has accepted whole; 0 before the first.
        refused_revision: of the newest snapshot of which it has refused a part; None once a newer one is in force.
        refusal: in its own words; None together with it.
    """

    stream: int
    node_id: str
    connected_at: datetime
    types: Mapping[str, TypeStatus] = field(default_factory=lambda: MappingProxyType({}))
    accepted_revision: int = 0
    refused_revision: int | None = None
    refusal: str | None = None

    def with_type(self, type_url: str, status: TypeStatus) -> "NodeStatus":
        """The same node with another status of one type."""
        return replace(self, types=MappingProxyType({**self.types, type_url: status}))


class NodeRegistry:
    """The Envoys connected to this control plane. One that leaves is forgotten; a stream is told apart by its own key.

    `changed` is called after each change.
    """

    def __init__(self, now: Now, changed: Callable[[], None], registry: CollectorRegistry) -> None:
        self._now = now
        self._changed = changed
        self._nodes: dict[int, NodeStatus] = {}
        self._connected = Gauge("tollgate_control_plane_xds_nodes", "Envoys connected", registry=registry)
        self._connected.set_function(lambda: len(self._nodes))
        self._answers = Counter(
            "tollgate_control_plane_xds_answers_total", "ACKs and NACKs received", ["type", "answer"], registry=registry
        )

    def connected(self, stream: int, node_id: str) -> None:
        """A node opened a stream."""
        self._nodes[stream] = NodeStatus(stream, node_id, self._now())
        self._changed()

    def disconnected(self, stream: int) -> None:
        """The stream ended."""
        self._nodes.pop(stream, None)
        self._changed()

    def accepted(self, stream: int, type_url: str, version: str) -> None:
        """The node ACKed a version; an earlier rejection is history."""
        self._answers.labels(_short(type_url), "ack").inc()
        self._nodes[stream] = self._nodes[stream].with_type(type_url, TypeStatus(version, self._now()))
        self._changed()

    def in_force(self, stream: int, revision: int) -> None:
        """The node has accepted all of a snapshot; what it refused of an older one is history."""
        node = replace(self._nodes[stream], accepted_revision=revision)
        if node.refused_revision is not None and node.refused_revision < revision:
            node = replace(node, refused_revision=None, refusal=None)
        if node != self._nodes[stream]:
            self._nodes[stream] = node
            self._changed()

    def rejected(self, stream: int, type_url: str, version: str, message: str, *, revision: int) -> None:
        """The node NACKed a version and stays with the one it had; `revision` is that of the snapshot it came from."""
        self._answers.labels(_short(type_url), "nack").inc()
        node = self._nodes[stream]
        status = replace(node.types.get(type_url, TypeStatus()), rejection=Rejection(version, message, self._now()))
        self._nodes[stream] = replace(node.with_type(type_url, status), refused_revision=revision, refusal=message)
        self._changed()

    def nodes(self) -> Iterable[NodeStatus]:
        """All connected nodes, by id."""
        return sorted(self._nodes.values(), key=lambda node: node.node_id)


def _short(type_url: str) -> str:
    return type_url.rpartition(".")[2]
