"""One aggregated discovery stream (state of the world) as a state machine: requests and snapshots in, responses out.

What is named is in force before what names it: listeners and routes wait until the clusters are accepted, and Envoy
accepts clusters only when they are warm, which needs their secrets, so those are sent meanwhile. What is gone stays in
force until nothing names it: clusters are sent together with those they replace, and without them once the routes are
accepted. A node that refuses a part of a snapshot is sent no more of that snapshot; it keeps what it has until the next
one. No I/O here; server.py moves the bytes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from control_plane.xds.nodes import NodeRegistry
from control_plane.xds.protobuf import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE
from control_plane.xds.snapshot import NONE, TYPES, Snapshot, TypedResources
from wire.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

_WILDCARD_TYPES: Final = frozenset({CLUSTER_TYPE, LISTENER_TYPE})
"""Types of which a node takes all there is; of the others it takes what it names."""

_NEEDED_TYPES: Final = frozenset({CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE})
"""Types that every node asks for, one after the other; before it has, it holds no whole snapshot."""


@dataclass(slots=True)
class _Subscription:
    """What the node has asked for and been given, of one type."""

    names: frozenset[str] = frozenset()
    sent_version: str | None = None
    sent_from: Snapshot | None = None
    sent_names: frozenset[str] = frozenset()
    sent: TypedResources = NONE
    held: TypedResources = NONE
    """The last that was sent, and the last that was accepted on this stream."""
    nonce: str = ""
    answered: bool = True


@dataclass(slots=True)
class AdsStream:
    """The conversation with one node.

    Attributes:
        key: tells this stream from all others in the registry.
        new_nonce: makes a nonce never used before on this stream.
        node_id: as the node named itself in its first request.
    """

    key: int
    registry: NodeRegistry
    new_nonce: Callable[[], str]
    node_id: str = ""
    _snapshot: Snapshot | None = None
    _refused: Snapshot | None = None
    _node_known: bool = False
    _subscriptions: dict[str, _Subscription] = field(default_factory=dict)

    def on_snapshot(self, snapshot: Snapshot) -> Iterable[DiscoveryResponse]:
        """There is a new snapshot."""
        self._snapshot = snapshot
        return self._next()

    def on_request(self, request: DiscoveryRequest) -> Iterable[DiscoveryResponse]:
        """The node subscribes, accepts or refuses. A request about an older response than the last is stale: ignored."""
        if not self._node_known:
            self._node_known = True
            self.node_id = request.node.id
            self.registry.connected(self.key, self.node_id)
        if request.type_url not in TYPES:
            return ()
        subscription = self._subscriptions.get(request.type_url)
        if subscription is None:
            subscription = self._subscriptions[request.type_url] = _Subscription()
            if request.version_info:
                # A node that reconnects says what it already has.
                self.registry.accepted(self.key, request.type_url, request.version_info)
                if request.type_url in _WILDCARD_TYPES:
                    subscription.sent_version = request.version_info
        elif request.response_nonce != subscription.nonce:
            return ()
        elif not subscription.answered:
            self._take_answer(request, subscription)
        subscription.names = frozenset(request.resource_names)
        # What a node lets go of it forgets: asked for again, it has to be sent again.
        subscription.sent_names &= subscription.names
        return self._next()

    def _take_answer(self, request: DiscoveryRequest, subscription: _Subscription) -> None:
        subscription.answered = True
        version = subscription.sent_version or ""
        if request.HasField("error_detail"):
            # Not the current one: that may have come while the node was still thinking, and may be the remedy.
            self._refused = refused = subscription.sent_from
            # The same content in the next snapshot is to be refused again, not taken for accepted.
            subscription.sent_version = None
            self.registry.rejected(
                self.key,
                request.type_url,
                version,
                request.error_detail.message,
                revision=0 if refused is None else refused.revision,
            )
        else:
            subscription.held = subscription.sent
            self.registry.accepted(self.key, request.type_url, version)

    def _next(self) -> Iterable[DiscoveryResponse]:
        """The responses that are due."""
        snapshot = self._snapshot
        if snapshot is None or snapshot is self._refused:
            return
        clusters = snapshot.by_type[CLUSTER_TYPE]
        steps: tuple[Mapping[str, TypedResources], ...] = (
            {CLUSTER_TYPE: self._with_leftovers(clusters), SECRET_TYPE: snapshot.by_type[SECRET_TYPE]},
            {type_url: snapshot.by_type[type_url] for type_url in (LISTENER_TYPE, ROUTE_TYPE)},
            {CLUSTER_TYPE: clusters},
        )
        for step in steps:
            for type_url, resources in step.items():
                subscription = self._subscriptions.get(type_url)
                if subscription is not None and self._is_due(type_url, resources, subscription):
                    yield self._respond(type_url, resources, subscription)
            if any(not self._subscriptions[type_url].answered for type_url in step if type_url in self._subscriptions):
                return
        if self._subscriptions.keys() >= _NEEDED_TYPES:
            self.registry.in_force(self.key, snapshot.revision)

    def _with_leftovers(self, clusters: TypedResources) -> TypedResources:
        """The clusters, and those the node holds that are no longer among them."""
        subscription = self._subscriptions.get(CLUSTER_TYPE)
        held = subscription.held.resources if subscription is not None else {}
        if held.keys() <= clusters.resources.keys():
            return clusters
        return TypedResources.of({**held, **clusters.resources})

    def _is_due(self, type_url: str, resources: TypedResources, subscription: _Subscription) -> bool:
        if not subscription.answered:
            return False
        if type_url in _WILDCARD_TYPES:
            return subscription.sent_version != resources.version
        known = subscription.names & resources.resources.keys()
        return bool(known) and (subscription.sent_version != resources.version or not known <= subscription.sent_names)

    def _respond(self, type_url: str, resources: TypedResources, subscription: _Subscription) -> DiscoveryResponse:
        names = frozenset(resources.resources)
        if type_url not in _WILDCARD_TYPES:
            names &= subscription.names
        subscription.sent_version = resources.version
        subscription.sent_from = self._snapshot
        subscription.sent_names = names
        subscription.sent = resources
        subscription.nonce = self.new_nonce()
        subscription.answered = False
        self.registry.sent(self.key, type_url)
        response = DiscoveryResponse(version_info=resources.version, type_url=type_url, nonce=subscription.nonce)
        for name in sorted(names):
            response.resources.add(type_url=type_url, value=resources.resources[name])
        return response
