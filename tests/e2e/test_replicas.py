"""Two of each service of ours, and each of them killed in turn while requests come: nobody notices, and the books agree."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
import pytest_asyncio

from control_plane.xds.snapshot import TYPES
from gateway_core.contract import Peer
from gateway_core.money import parse_usd
from local_stack.instances import instance, instances
from tests.support.planes import Certificates
from tests.support.stack import Stack, add_model, eventually, running_stack, wait_until_routed
from wire.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

pytestmark = pytest.mark.asyncio(loop_scope="module")

OURS = ("control_plane", "ext_authz", "billing_sink", "translator", "response_cache")
CLIENTS = 4
PER_SECOND = 20
PROMPT = "x [[sim output_tokens=5]]"
UNDER_LOAD_S = 0.5
"""Before and after what is done to the stack."""
TAKEOVER_S = 3
WAITING = 12
"""Checks under way when an ext_authz is killed."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(
        # Every request has a hold of its own, so that a test can keep checks waiting for Postgres.
        tmp_path_factory.mktemp("pair") / "data",
        replicas=2,
        TOLLGATE_SLICE_SHARE_PPM="0",
    ) as running:
        yield running


@dataclass
class Load:
    """Requests of one organisation, all alike, and what became of each."""

    url: str
    key: str
    statuses: Counter[int] = field(default_factory=Counter)
    request_ids: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def session(self, connections: int) -> aiohttp.ClientSession:
        """A client of the organisation."""
        return aiohttp.ClientSession(
            self.url,
            headers={"Authorization": f"Bearer {self.key}"},
            connector=aiohttp.TCPConnector(limit=connections),
        )

    async def chat(self, session: aiohttp.ClientSession, *, stream: bool = False) -> None:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": PROMPT}], "stream": stream}
        async with session.post("/v1/chat/completions", json=body) as response:
            text = await response.text()
        self.statuses[response.status] += 1
        self.request_ids.append(response.headers["x-request-id"])
        if response.status != 200:
            self.failures.append(text)

    async def models(self, session: aiohttp.ClientSession) -> None:
        async with session.get("/v1/models") as response:
            if response.status != 200:
                self.failures.append(await response.text())


@asynccontextmanager
async def steady_load(stack: Stack, key: str) -> AsyncIterator[Load]:
    """A few clients, each on a connection of its own, that ask all the time while the block runs."""
    load = Load(stack.url, key)
    is_over = asyncio.Event()

    async def client(number: int) -> None:
        async with load.session(connections=1) as session:
            while not is_over.is_set():
                await load.chat(session, stream=number % 2 == 0)
                await load.models(session)
                await asyncio.sleep(CLIENTS / PER_SECOND)

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(client(number), name=f"client {number}")
        await asyncio.sleep(UNDER_LOAD_S)
        yield load
        await asyncio.sleep(UNDER_LOAD_S)
        is_over.set()


async def is_paid_once(stack: Stack, load: Load, org_id: str, *, balance: str) -> None:
    """Every request of a load passed, has one row and one charge, and the balance is what is left."""
    assert load.failures == []
    assert set(load.statuses) == {200}
    await stack.settled()
    async with stack.database() as database:
        rows = await database.fetch(
            "SELECT request_id, outcome, late, price_nano_usd, absorbed_nano_usd FROM billing.requests "
            "WHERE org_id = $1 AND endpoint = 'chat'",
            org_id,
        )
        charged = await database.fetchval(
            """
            SELECT count(*) FROM billing.transactions t JOIN billing.requests r USING (request_id)
            WHERE r.org_id = $1
            """,
            org_id,
        )
        account = await database.fetchrow("SELECT * FROM billing.accounts WHERE org_id = $1 AND mode = 'live'", org_id)
        holds = await database.fetch(
            "SELECT request_id, state FROM billing.holds WHERE account_id = $1", account and account["account_id"]
        )
        assert await database.fetchval("SELECT sum(amount_nano_usd) FROM billing.entries") == 0
        assert await database.fetchval("SELECT count(*) FROM billing.quarantine") == 0
    assert account is not None
    assert sorted(row["request_id"] for row in rows) == sorted(load.request_ids)
    assert {(row["outcome"], row["late"], row["absorbed_nano_usd"]) for row in rows} == {("settled", False, 0)}
    assert charged == len(rows)
    assert sorted(hold["request_id"] for hold in holds) == sorted(load.request_ids)
    assert {hold["state"] for hold in holds} == {"settled"}
    assert account["held_nano_usd"] == 0
    assert account["posted_nano_usd"] == parse_usd(balance) - sum(row["price_nano_usd"] for row in rows)


async def status(stack: Stack) -> Mapping[str, str]:
    """What `tollgate status` says of each service."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tollgate", "status", "--json", "--data-dir", str(stack.data_dir)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return {service["name"]: service["state"] for service in json.loads(output)["services"]}


@pytest_asyncio.fixture(loop_scope="module")
async def whole(pair: Stack) -> Stack:
    """The stack with every service up, and Envoy aware of it, whatever the test before has done to them."""

    async def is_whole() -> bool:
        services = json.loads((pair.data_dir / "run" / "state.json").read_text())
        passed_over = await pair.envoy_stats("^cluster.(ext_authz|control_plane).outlier_detection.ejections_active$")
        return all(service["state"] == "up" for service in services) and not sum(passed_over.values())

    await eventually(is_whole, deadline_s=30)
    return pair


async def nodes(stack: Stack) -> list[dict[str, str] | None]:
    """By control plane, the versions that Envoy has accepted from it; None where it is not connected.

    Any of them knows of all Envoys, so which one an Envoy is connected to is asked of their own gauges.
    """
    headers = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    found: list[dict[str, str] | None] = []
    async with aiohttp.ClientSession(headers=headers) as session:
        for name, url in zip(instances("control_plane", 2), stack.endpoints["control_plane_urls"], strict=True):
            try:
                async with session.get(stack.endpoints["metrics_urls"][name]) as response:
                    is_connected = "tollgate_control_plane_xds_nodes 1.0" in await response.text()
                async with session.get(f"{url}/api/v1/nodes") as response:
                    data = (await response.json())["data"]
            except aiohttp.ClientError:
                is_connected, data = False, []
            newest = max(data, key=lambda node: str(node["connected_at"]), default=None) if is_connected else None
            found.append(newest and {name: kind["accepted_version"] for name, kind in newest["types"].items()})
    return found


async def served_versions(stack: Stack, port: int) -> dict[str, str]:
    """What one control plane serves to who asks as Envoy: the version of each type of resources."""
    certificates = Certificates(stack.data_dir / "secrets")
    async with certificates.channel(port, Peer.CONTROL_PLANE, caller=certificates.of(Peer.ENVOY)) as channel:
        method = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
            request_serializer=DiscoveryRequest.SerializeToString,
            response_deserializer=DiscoveryResponse.FromString,
        )
        versions: dict[str, str] = {}
        for type_url in TYPES:
            names = {"Secret": ["credential/openai"], "RouteConfiguration": ["gateway"]}
            short = type_url.rpartition(".")[2]
            call = method()
            request = DiscoveryRequest(type_url=type_url, resource_names=names.get(short, []))
            request.node.id = "a-test"
            await call.write(request)
            async with asyncio.timeout(5):
                response = await call.read()
            assert isinstance(response, DiscoveryResponse)
            versions[short] = response.version_info
            call.cancel()
        return versions


async def asked_of_sinks(stack: Stack, path: str) -> dict[str, str]:
    """What each sink answers; `gone` when it does not."""
    ports = json.loads((stack.data_dir / "ports.json").read_text())
    found: dict[str, str] = {}
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        for number in (1, 2):
            url = f"http://127.0.0.1:{ports[instance('billing_sink_metrics', number)]}{path}"
            try:
                async with session.get(url) as response:
                    found[instance("billing_sink", number)] = (await response.text()).strip()
            except aiohttp.ClientConnectionError:
                found[instance("billing_sink", number)] = "gone"
    return found


async def roles(stack: Stack) -> dict[str, str]:
    """What each sink says of itself when it is asked whether it is ready."""
    return await asked_of_sinks(stack, "/readyz")


async def test_status_and_endpoints_name_every_instance(whole: Stack) -> None:
    ours = {name for service in OURS for name in (service, f"{service}-2")}
    assert await status(whole) == dict.fromkeys({*ours, "postgres", "valkey", "clickhouse", "simulator", "envoy"}, "up")
    assert ours < whole.endpoints["pids"].keys()
    first, second = whole.endpoints["control_plane_urls"]
    assert whole.endpoints["control_plane_url"] == first != second


async def test_both_control_planes_serve_the_versions_that_envoy_has(whole: Stack) -> None:
    ports = json.loads((whole.data_dir / "ports.json").read_text())
    [accepted] = [versions for versions in await nodes(whole) if versions is not None]
    for port in (ports["xds"], ports["xds-2"]):
        assert await served_versions(whole, port) == accepted


async def test_exactly_one_sink_works_from_the_first_line_on(whole: Stack) -> None:
    models = f"{whole.url}/v1/models"
    async with aiohttp.ClientSession() as session, session.get(models, headers=whole.headers) as answer:
        assert answer.status == 200

    async def is_one_active() -> bool:
        return sorted((await roles(whole)).values()) == ["active", "standing by"]

    await eventually(is_one_active)
    found = await roles(whole)
    for name, metrics in (await asked_of_sinks(whole, "/metrics")).items():
        assert f"tollgate_billing_sink_active {float(found[name] == 'active')}" in metrics


async def test_an_ext_authz_that_keeps_silent_delays_a_few_requests_and_fails_none(whole: Stack) -> None:
    key = await whole.make_key("silent", balance="1")
    pid = whole.endpoints["pids"]["ext_authz-2"]
    try:
        async with steady_load(whole, key) as load:
            os.kill(pid, signal.SIGSTOP)
    finally:
        os.kill(pid, signal.SIGCONT)
    await is_paid_once(whole, load, "org_silent", balance="1")


@pytest.mark.parametrize("number", [1, 2])
async def test_no_request_notices_that_one_of_each_service_is_killed_in_the_middle_of_its_work(
    whole: Stack, number: int
) -> None:
    """Each of the two in turn: of the second round it is the work that the first one has left to it."""
    org = f"killed_{number}"
    key = await whole.make_key(org, balance="1")
    async with steady_load(whole, key) as load:
        await kill_the_control_plane_that_envoy_asks(whole, model=f"new-{number}")
        await kill_an_ext_authz_with_checks_in_it(whole, instance("ext_authz", number), load, f"org_{org}")
        await kill_the_sink_that_works(whole)
    await is_paid_once(whole, load, f"org_{org}", balance="1")


async def kill_the_control_plane_that_envoy_asks(stack: Stack, *, model: str) -> None:
    """Envoy asks the other one soon, has what it had, and is told what is new."""
    before = await nodes(stack)
    asked = 0 if before[0] else 1
    pids = stack.endpoints["pids"]
    stack.kill(("control_plane", "control_plane-2")[asked])

    async def has_turned() -> bool:
        return (await nodes(stack))[1 - asked] == before[asked]

    await eventually(has_turned, deadline_s=TAKEOVER_S)
    # It is not the one that was killed, back again.
    assert stack.endpoints["pids"] == pids
    await add_model(stack, model, [("openai", "gpt-4o-mini")])
    await wait_until_routed(stack, model)


async def kill_an_ext_authz_with_checks_in_it(stack: Stack, name: str, load: Load, org_id: str) -> None:
    """Whoever waits for its answer is answered by the other one, and has one hold."""
    retries = "^cluster.ext_authz.upstream_rq_retry_success$"
    before = await stack.envoy_stats(retries)
    async with (
        load.session(connections=WAITING) as session,
        stack.database() as database,
        asyncio.TaskGroup() as group,
        database.transaction(),
    ):
        # Nobody can place a hold until this is over, so all of them wait for one of the two. What the one that dies has
        # asked of Postgres is done all the same.
        await database.execute("SELECT FROM billing.accounts WHERE org_id = $1 FOR UPDATE", org_id)
        for _ in range(WAITING):
            group.create_task(load.chat(session))
        await asyncio.sleep(0.4)
        stack.kill(name)
        await asyncio.sleep(0.2)
    assert load.failures == []
    assert sum((await stack.envoy_stats(retries)).values()) > sum(before.values())


async def kill_the_sink_that_works(stack: Stack) -> None:
    """The one that stands by takes over."""
    [active] = [name for name, role in (await roles(stack)).items() if role == "active"]
    [standing_by] = {"billing_sink", "billing_sink-2"} - {active}
    stack.kill(active)

    async def has_taken_over() -> bool:
        return await roles(stack) == {active: "gone", standing_by: "active"}

    await eventually(has_taken_over, deadline_s=TAKEOVER_S)
