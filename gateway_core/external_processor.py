"""Serving Envoy's external processing (ext_proc): what every processor of ours has in common, whatever it does with a message."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

import grpc

from gateway_core.contract import Peer
from gateway_core.mutual_tls import only_for, server_credentials
from gateway_core.settings import TlsFiles
from wire.ext_proc_pb2 import (
    HeaderMap,
    HeaderMutation,
    HeaderValue,
    HeaderValueOption,
    ProcessingRequest,
    ProcessingResponse,
)

HEADROOM_BYTES: Final = 1024 * 1024
"""Around a body there are headers and lengths."""

Context: TypeAlias = "grpc.aio.ServicerContext[ProcessingRequest, ProcessingResponse]"
Process: TypeAlias = Callable[[AsyncIterator[ProcessingRequest], Context], Awaitable[None]]

_SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"


def header_lines(found: HeaderMap) -> Sequence[tuple[str, str]]:
    """Headers as Envoy tells them, names in lower case; one that came twice is there twice."""
    return [(each.key, each.raw_value.decode("latin-1") or each.value) for each in found.headers]


def read_headers(found: HeaderMap) -> Mapping[str, str]:
    """The same by name."""
    return dict(header_lines(found))


def set_headers(headers: Mapping[str, str]) -> HeaderMutation:
    """Headers in the place of whatever has their names."""
    return HeaderMutation(
        set_headers=[
            HeaderValueOption(
                header=HeaderValue(key=key, raw_value=value.encode()),
                append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
            )
            for key, value in headers.items()
        ]
    )


async def start_processor(
    process: Process, address: str, tls: TlsFiles, *, streams_max: int, received_bytes_max: int, sent_bytes_max: int
) -> grpc.aio.Server:
    """Serve Envoy on `host:port`; more than `streams_max` streams at once are refused. The bounds are of one message.

    Raises:
        RuntimeError: the address cannot be bound.
        OSError: a file of the certificates cannot be read.
    """
    server = grpc.aio.server(
        maximum_concurrent_rpcs=streams_max,
        options=(
            ("grpc.so_reuseport", 0),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.max_receive_message_length", received_bytes_max),
            ("grpc.max_send_message_length", sent_bytes_max),
        ),
    )
    handler = grpc.stream_stream_rpc_method_handler(
        only_for(Peer.ENVOY, process),
        request_deserializer=ProcessingRequest.FromString,
        response_serializer=ProcessingResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Process": handler}),))
    server.add_secure_port(address, server_credentials(tls))
    await server.start()
    return server
