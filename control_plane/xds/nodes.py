"""What each connected Envoy has accepted and refused. A rejection is state: Envoy keeps its old configuration quietly."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from control_plane.xds.snapshot import TYPES
from gateway_core.clock import Now

SILENT_AFTER: Final = timedelta(seconds=10)
"""A node that has been sent something and has not answered for so long is not waited for."""


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
        unanswered: since when it owes an answer, by type.
        is_silent: whether it owes one for `SILENT_AFTER` or longer.
    """

    stream: int
    node_id: str
    connected_at: datetime
    types: Mapping[str, TypeStatus] = field(default_factory=lambda: MappingProxyType({}))
    accepted_revision: int = 0
    refused_revision: int | None = None
    refusal: str | None = None
    unanswered: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}))
    is_silent: bool = False

    def with_type(self, type_url: str, status: TypeStatus) -> "NodeStatus":
        """The same node with another status of one type, of which it owes no answer any more."""
        unanswered = {name: since for name, since in self.unanswered.items() if name != type_url}
        return replace(
            self,
            types=MappingProxyType({**self.types, type_url: status}),
            unanswered=MappingProxyType(unanswered),
        )


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
        silent = Gauge("tollgate_control_plane_xds_silent_nodes", "Envoys that do not answer", registry=registry)
        silent.set_function(lambda: sum(node.is_silent for node in self.nodes()))
        self._answers = Counter(
            "tollgate_control_plane_xds_answers_total", "ACKs and NACKs received", ["type", "answer"], registry=registry
        )
        # There from the start: a series that begins with a NACK has not grown, to Prometheus.
        for type_url in TYPES:
            for answer in ("ack", "nack"):
                self._answers.labels(_short(type_url), answer)

    def connected(self, stream: int, node_id: str) -> None:
        """A node opened a stream."""
        self._nodes[stream] = NodeStatus(stream, node_id, self._now())
        self._changed()

    def disconnected(self, stream: int) -> None:
        """The stream ended."""
        self._nodes.pop(stream, None)
        self._changed()

    def sent(self, stream: int, type_url: str) -> None:
        """The node was sent a version, and owes an answer. Nobody is told: it usually comes at once."""
        node = self._nodes[stream]
        self._nodes[stream] = replace(node, unanswered=MappingProxyType({**node.unanswered, type_url: self._now()}))

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
        """All connected nodes as they are now, by id."""
        answered_by = self._now() - SILENT_AFTER
        return sorted(
            (
                replace(node, is_silent=any(since <= answered_by for since in node.unanswered.values()))
                for node in self._nodes.values()
            ),
            key=lambda node: node.node_id,
        )


def _short(type_url: str) -> str:
    return type_url.rpartition(".")[2]
