"""Who is answered on the two ports that are Envoy's alone: real processes of both services, asked by everybody else on the machine."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from control_plane.xds.protobuf import CLUSTER_TYPE
from gateway_core import certificates
from gateway_core.contract import Header, Peer
from local_stack.ports import free_port
from tests.support.admission import check_request
from tests.support.api import PEPPER
from tests.support.planes import Certificates
from tests.support.processes import running_python
from wire.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from wire.ext_authz_pb2 import CheckRequest, CheckResponse

Ask = Callable[[grpc.aio.Channel], Awaitable[bool]]


async def discover(channel: grpc.aio.Channel) -> bool:
    """Asks for clusters, of which there always are some."""
    call = channel.stream_stream(
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        request_serializer=DiscoveryRequest.SerializeToString,
        response_deserializer=DiscoveryResponse.FromString,
    )(timeout=5)
    await call.write(DiscoveryRequest(type_url=CLUSTER_TYPE))
    return isinstance(await call.read(), DiscoveryResponse)


async def check(channel: grpc.aio.Channel) -> bool:
    """Asks whether somebody without a key gets in: he does not, and that is an answer."""
    method = channel.unary_unary(
        "/envoy.service.auth.v3.Authorization/Check",
        request_serializer=CheckRequest.SerializeToString,
        response_deserializer=CheckResponse.FromString,
    )
    return isinstance(await method(check_request(headers={Header.REQUEST_ID: "r"}), timeout=5), CheckResponse)


@dataclass(frozen=True)
class Server:
    """A service whose port is Envoy's."""

    peer: Peer
    setting: str
    health_port: str
    ask: Ask


CONTROL_PLANE = Server(Peer.CONTROL_PLANE, "XDS", "CONTROL_PLANE_METRICS_PORT", discover)
EXT_AUTHZ = Server(Peer.EXT_AUTHZ, "EXT_AUTHZ", "EXT_AUTHZ_METRICS_PORT", check)
SERVERS = (CONTROL_PLANE, EXT_AUTHZ)


@asynccontextmanager
async def serving(server: Server, database: str, issued: Certificates) -> AsyncIterator[int]:
    port, health_port = free_port(), free_port()
    environment = {
        "TOLLGATE_POSTGRES_DSN": database,
        "TOLLGATE_API_KEY_PEPPER": PEPPER.get_secret_value(),
        "TOLLGATE_CREDENTIAL_KEY": "A" * 43 + "=",
        "TOLLGATE_CONTROL_PLANE_PORT": str(free_port()),
        f"TOLLGATE_{server.setting}_PORT": str(port),
        f"TOLLGATE_{server.health_port}": str(health_port),
        **issued.environment(server.setting, server.peer),
    }
    async with running_python(server.peer, ready=f"http://127.0.0.1:{health_port}/readyz", **environment):
        yield port


async def is_answered(server: Server, channel: grpc.aio.Channel) -> bool:
    async with channel:
        try:
            return await server.ask(channel)
        except grpc.aio.AioRpcError as error:
            # Not a time-out: somebody who is refused is told so, or hung up on.
            assert error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED  # noqa: PT017 - it says why there is no answer
            return False


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.peer)
async def test_envoy_is_answered_and_nobody_else_sees_a_byte(
    server: Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [other] = {Peer.CONTROL_PLANE, Peer.EXT_AUTHZ} - {server.peer}
    # Its purpose alone would have it refused; this is about its name.
    monkeypatch.setitem(certificates._USAGE, other, (ExtendedKeyUsageOID.CLIENT_AUTH,))
    ours, others = Certificates.issued(tmp_path / "ours"), Certificates.issued(tmp_path / "others")
    async with serving(server, database, ours) as port:
        channels: Mapping[str, grpc.aio.Channel] = {
            "in the clear": grpc.aio.insecure_channel(f"127.0.0.1:{port}"),
            "nobody": ours.channel(port, server.peer, caller=None),
            "another authority's Envoy": ours.channel(port, server.peer, caller=others.of(Peer.ENVOY)),
            "a server": ours.channel(port, server.peer, caller=ours.of(server.peer)),
            "a client of another name": ours.channel(port, server.peer, caller=ours.of(other)),
            "Envoy": ours.channel(port, server.peer, caller=ours.of(Peer.ENVOY)),
        }
        answered = [name for name, channel in channels.items() if await is_answered(server, channel)]
    assert answered == ["Envoy"]
