"""The gRPC side of discovery: moves messages between Envoy and `AdsStream`, nothing else."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import grpc

from control_plane.xds.ads_stream import AdsStream
from control_plane.xds.cache import SnapshotCache
from control_plane.xds.nodes import NodeRegistry
from control_plane.xds.refusal import without_secrets
from control_plane.xds.snapshot import Snapshot
from gateway_core.contract import Peer
from gateway_core.logs import Logger
from gateway_core.mutual_tls import only_for, server_credentials
from gateway_core.settings import TlsFiles
from wire.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_EVENTS_MAX = 64
"""Requests of one node that may wait; beyond that its stream is not read, and HTTP/2 flow control holds it back."""

_OPTIONS = (
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.so_reuseport", 0),
    # Envoy pings every few seconds (bootstrap.yaml); by default grpcio takes that for an attack and hangs up.
    ("grpc.http2.max_ping_strikes", 0),
    # And an Envoy that does not answer ours, nor anything else, is hung up on: it dials again when it can.
    ("grpc.keepalive_time_ms", 10_000),
    # Not `keepalive_timeout_ms`, which a server of grpcio 1.85 takes and does not act on.
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)


class AggregatedDiscovery:
    """The service's one streaming method."""

    def __init__(self, cache: SnapshotCache, registry: NodeRegistry, log: Logger) -> None:
        self._cache = cache
        self._registry = registry
        self._log = log
        self._keys = itertools.count()

    async def stream(
        self,
        requests: AsyncIterator[DiscoveryRequest],
        context: "grpc.aio.ServicerContext[DiscoveryRequest, DiscoveryResponse]",
    ) -> None:
        """Serve one node until it leaves."""
        nonces = map(str, itertools.count(1))
        stream = AdsStream(next(self._keys), self._registry, lambda: next(nonces))
        events: asyncio.Queue[DiscoveryRequest | Snapshot | None] = asyncio.Queue(_EVENTS_MAX)
        readers = [
            asyncio.create_task(_forward_requests(requests, events), name="ads_requests"),
            asyncio.create_task(self._forward_snapshots(events), name="ads_snapshots"),
        ]
        try:
            while (event := await events.get()) is not None:
                responses = stream.on_snapshot(event) if isinstance(event, Snapshot) else stream.on_request(event)
                if isinstance(event, DiscoveryRequest) and event.HasField("error_detail"):
                    self._log.error(
                        "xds_rejected",
                        node=stream.node_id,
                        type=event.type_url,
                        message=event.error_detail.message,
                    )
                for response in responses:
                    await context.write(response)
        finally:
            self._registry.disconnected(stream.key)
            for reader in readers:
                reader.cancel()
            for failure in await asyncio.gather(*readers, return_exceptions=True):
                if isinstance(failure, Exception):
                    self._log.warning("xds_stream_failed", node=stream.node_id, error=type(failure).__name__)

    async def _forward_snapshots(self, events: "asyncio.Queue[DiscoveryRequest | Snapshot | None]") -> None:
        snapshot: Snapshot | None = None
        while True:
            snapshot = await self._cache.newer_than(snapshot)
            await events.put(snapshot)


async def _forward_requests(
    requests: AsyncIterator[DiscoveryRequest], events: "asyncio.Queue[DiscoveryRequest | Snapshot | None]"
) -> None:
    try:
        async for request in requests:
            if request.HasField("error_detail"):
                request.error_detail.message = without_secrets(request.error_detail.message)
            await events.put(request)
    finally:
        await events.put(None)


async def start_server(service: AggregatedDiscovery, address: str, tls: TlsFiles) -> grpc.aio.Server:
    """Serve discovery, which holds the providers' credentials, on `host:port` to Envoy.

    Raises:
        RuntimeError: the address cannot be bound.
        OSError: a file of the certificates cannot be read.
    """
    server = grpc.aio.server(options=_OPTIONS)
    handler = grpc.stream_stream_rpc_method_handler(
        only_for(Peer.ENVOY, service.stream),
        request_deserializer=DiscoveryRequest.FromString,
        response_serializer=DiscoveryResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_SERVICE, {"StreamAggregatedResources": handler}),)
    )
    server.add_secure_port(address, server_credentials(tls))
    await server.start()
    return server
