"""Our discovery service and a real Envoy: what it accepts, what it refuses and keeps, and what a restart does not repeat."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from control_plane.catalog.model import Catalog, Deployment, Model, Provider
from control_plane.xds import clusters
from control_plane.xds.cache import SnapshotCache
from control_plane.xds.nodes import NodeRegistry, NodeStatus
from control_plane.xds.protobuf import CLUSTER_TYPE, ROUTE_TYPE, JsonObject, encode
from control_plane.xds.server import AggregatedDiscovery, start_server
from control_plane.xds.snapshot import Snapshot, TypedResources
from control_plane.xds.translate import Translator
from gateway_core.api_keys import LIVE_PREFIX, TEST_PREFIX, new_key
from gateway_core.clock import utc_now
from gateway_core.contract import Peer
from gateway_core.errors import AUTHORIZATION_UNAVAILABLE, TEST_MODE_UNAVAILABLE
from gateway_core.ids import ModelName, ProviderName
from gateway_core.providers import ProviderKind
from local_stack.envoy import local_bootstrap, running_envoy
from local_stack.ports import free_port
from tests.support.catalogs import settings
from tests.support.logs import QUIET
from tests.support.planes import Certificates
from tests.support.stack import eventually

SECRET = "a-provider-secret"
AWS_SECRET = "secret+access/key+of+aws"


def catalog(*names: str) -> Catalog:
    providers = {
        ProviderName(name): Provider(
            ProviderName(name), ProviderKind.OPENAI, "http://127.0.0.1:9/v1", SecretStr(SECRET)
        )
        for name in names
    }
    deployments = tuple(Deployment(ModelName(f"m-{name}"), ProviderName(name), "up", 0, 1) for name in names)
    return Catalog(1, providers, {d.model: Model(d.model, "test", 0) for d in deployments}, deployments)


class ControlPlane:
    """The discovery side of a control plane, in this process."""

    def __init__(self, tmp_path: Path) -> None:
        self.port = free_port()
        self.certificates = Certificates.issued(tmp_path / "certificates")
        self.settings = settings(
            spool_dir=str(tmp_path), simulator_url=None, certificates=self.certificates.directory
        ).model_copy(update={"gateway_port": free_port()})
        self.translator = Translator(self.settings)
        self.log = QUIET

    @property
    def bootstrap(self) -> dict[str, Any]:
        """Of an Envoy that is to ask here."""
        return local_bootstrap(admin_port=1, xds_ports=[self.port], certificates=self.certificates.directory)

    def translate(self, *names: str) -> Snapshot:
        return self.translator.translate(catalog(*names))

    @asynccontextmanager
    async def serving(
        self, snapshot: Snapshot, *, shown: Peer = Peer.CONTROL_PLANE
    ) -> AsyncIterator[tuple[SnapshotCache, NodeRegistry]]:
        cache, nodes = SnapshotCache(), NodeRegistry(utc_now, lambda: None, CollectorRegistry())
        await cache.put(snapshot)
        server = await start_server(
            AggregatedDiscovery(cache, nodes, self.log), f"127.0.0.1:{self.port}", self.certificates.of(shown)
        )
        try:
            yield cache, nodes
        finally:
            await server.stop(grace=0)


async def node_with(nodes: NodeRegistry, snapshot: Snapshot) -> NodeStatus:
    """The one node, once it has accepted every type of a snapshot."""

    async def find() -> NodeStatus | None:
        for node in nodes.nodes():
            accepted = {name: status.accepted_version for name, status in node.types.items()}
            if accepted == {name: resources.version for name, resources in snapshot.by_type.items()}:
                return node
        return None

    return await eventually(find)


async def stat(admin: str, name: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{admin}/stats?filter=^{re.escape(name)}$") as got:
        return int((await got.text()).rpartition(":")[2])


@pytest.fixture
def control_plane(tmp_path: Path) -> ControlPlane:
    return ControlPlane(tmp_path)


async def test_a_new_cluster_is_warm_before_a_route_names_it_and_within_a_second(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    first = control_plane.translate("one")
    async with (
        control_plane.serving(first) as (cache, nodes),
        running_envoy(tmp_path / "envoy", control_plane.bootstrap) as admin,
    ):
        await node_with(nodes, first)
        second = control_plane.translate("one", "two")
        await cache.put(second)
        async with asyncio.timeout(1):
            await node_with(nodes, second)
        assert await stat(admin, "cluster_manager.warming_clusters") == 0
        async with aiohttp.ClientSession() as session, session.get(f"{admin}/config_dump") as got:
            dump = await got.text()
        assert "provider/two" in dump
        assert SECRET not in dump
        assert "envoy_identity" in dump
        own_key = control_plane.certificates.of(Peer.ENVOY).key.read_text()
        assert "PRIVATE KEY" not in dump
        assert all(line not in dump for line in own_key.splitlines()[1:-1])


async def test_what_envoy_refuses_is_recorded_and_it_keeps_what_it_had(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    good = control_plane.translate("one")
    broken_cluster: JsonObject = {
        "name": "provider/one",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "x", "endpoints": []},
        "circuit_breakers": {"thresholds": [{"retry_budget": {"budget_percent": {"value": 900}}}]},
    }
    broken = {**good.by_type[CLUSTER_TYPE].resources, "provider/one": encode(CLUSTER_TYPE, broken_cluster)}
    routes = control_plane.translate("one", "two").by_type[ROUTE_TYPE]
    bad = replace(good, by_type={**good.by_type, CLUSTER_TYPE: TypedResources.of(broken), ROUTE_TYPE: routes})
    async with (
        control_plane.serving(good) as (cache, nodes),
        running_envoy(tmp_path / "envoy", control_plane.bootstrap) as admin,
    ):
        await node_with(nodes, good)
        await cache.put(bad)

        async def rejected() -> NodeStatus | None:
            return next((node for node in nodes.nodes() if node.types[CLUSTER_TYPE].rejection), None)

        node = await eventually(rejected)
        rejection = node.types[CLUSTER_TYPE].rejection
        assert rejection is not None
        assert rejection.version == bad.by_type[CLUSTER_TYPE].version
        assert "provider/one" in rejection.message
        assert node.types[CLUSTER_TYPE].accepted_version == good.by_type[CLUSTER_TYPE].version
        # Nothing more of the refused snapshot is sent: no route that names what is not there.
        assert node.types[ROUTE_TYPE].accepted_version == good.by_type[ROUTE_TYPE].version
        assert await stat(admin, "http.gateway.rds.gateway.update_rejected") == 0

        better = control_plane.translate("one", "three")
        await cache.put(better)
        healed = await node_with(nodes, better)
        assert healed.types[CLUSTER_TYPE].rejection is None


async def test_what_envoy_quotes_of_a_cluster_that_signs_is_recorded_without_the_key(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    good = control_plane.translate("one")
    aws = Provider(
        *(ProviderName("one"), ProviderKind.BEDROCK, "http://127.0.0.1:9", SecretStr(f"ACCESSKEYIDOFAWS:{AWS_SECRET}")),
        region="eu-central-1",
    )
    # Nothing that an operator can write makes Envoy refuse a cluster as a whole, and so quote it; this one is short enough for that.
    whole = json.loads(json.dumps(clusters.provider(aws, private_allowed=True)))
    [options] = whole["typed_extension_protocol_options"].values()
    options["http_filters"] = options["http_filters"][-2:]
    broken_cluster: JsonObject = {**whole, "connect_timeout": "0s"}
    broken = {**good.by_type[CLUSTER_TYPE].resources, "provider/one": encode(CLUSTER_TYPE, broken_cluster)}
    bad = replace(good, by_type={**good.by_type, CLUSTER_TYPE: TypedResources.of(broken)})
    async with (
        control_plane.serving(good) as (cache, nodes),
        running_envoy(tmp_path / "envoy", control_plane.bootstrap),
    ):
        await node_with(nodes, good)
        await cache.put(bad)

        async def refusal() -> str | None:
            return next((node.refusal for node in nodes.nodes() if node.refusal), None)

        said = await eventually(refusal)
    assert 'secret_access_key: "[redacted]"' in said
    assert AWS_SECRET not in said


async def test_a_restarted_control_plane_does_not_push_what_envoy_has(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    snapshot = control_plane.translate("one")
    async with AsyncExitStack() as lives:
        first_life = await lives.enter_async_context(AsyncExitStack())
        _, nodes = await first_life.enter_async_context(control_plane.serving(snapshot))
        admin = await lives.enter_async_context(running_envoy(tmp_path / "envoy", control_plane.bootstrap))
        await node_with(nodes, snapshot)
        updates = await stat(admin, "cluster_manager.cds.update_success")
        await first_life.aclose()
        async with control_plane.serving(control_plane.translate("one")) as (_, nodes_again):
            await node_with(nodes_again, snapshot)
            assert await stat(admin, "cluster_manager.cds.update_success") == updates


async def test_envoy_takes_nothing_from_who_is_not_the_control_plane(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    snapshot = control_plane.translate("one")
    async with AsyncExitStack() as lives:
        first_life = await lives.enter_async_context(AsyncExitStack())
        _, nodes = await first_life.enter_async_context(control_plane.serving(snapshot))
        admin = await lives.enter_async_context(running_envoy(tmp_path / "envoy", control_plane.bootstrap))
        await node_with(nodes, snapshot)
        updates = await stat(admin, "cluster_manager.cds.update_success")
        await first_life.aclose()
        # Another service of ours has got hold of the port, or of who resolves the name.
        async with control_plane.serving(control_plane.translate("two"), shown=Peer.EXT_AUTHZ) as (_, nobody):

            async def refused() -> bool:
                return await stat(admin, "cluster.control_plane_xds.ssl.fail_verify_san") > 0

            await eventually(refused)
            assert list(nobody.nodes()) == []
        async with control_plane.serving(snapshot) as (_, nodes_again):
            await node_with(nodes_again, snapshot)
        assert await stat(admin, "cluster_manager.cds.update_success") == updates


async def test_without_a_simulator_a_test_key_is_told_so_and_a_live_one_goes_on(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    snapshot = control_plane.translate("one")
    gateway = f"http://127.0.0.1:{control_plane.settings.gateway_port}"
    answers = {}
    async with (
        control_plane.serving(snapshot) as (_, nodes),
        running_envoy(tmp_path / "envoy", control_plane.bootstrap),
    ):
        await node_with(nodes, snapshot)
        async with aiohttp.ClientSession(gateway) as session:
            for prefix in (LIVE_PREFIX, TEST_PREFIX):
                for path in ("/v1/chat/completions", "/v1/messages"):
                    headers = {"Authorization": f"Bearer {new_key(prefix, bytes).get_secret_value()}"}
                    async with session.post(path, json={"model": "m-one"}, headers=headers) as response:
                        answers[prefix, path] = (response.status, (await response.json())["error"]["code"])
    refused = (TEST_MODE_UNAVAILABLE.status, TEST_MODE_UNAVAILABLE.code)
    assert {answers[TEST_PREFIX, path] for path in ("/v1/chat/completions", "/v1/messages")} == {refused}
    # There is nobody here to authorise it.
    assert {answers[LIVE_PREFIX, path][1] for path in ("/v1/chat/completions", "/v1/messages")} == {
        AUTHORIZATION_UNAVAILABLE.code
    }
