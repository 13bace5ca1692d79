"""Valkey and Envoy as the stack runs them."""

from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import redis.asyncio
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from local_stack import process
from local_stack.data_directory import DataDirectory
from local_stack.envoy import BOOTSTRAP, Envoy, running_envoy
from local_stack.ports import DEFAULTS, free_port
from local_stack.probes import ask
from local_stack.process import StartError
from local_stack.settings import Environment
from local_stack.tollgate_services import servers, services
from local_stack.valkey import running_valkey


async def test_valkey_keeps_counters_while_it_runs_and_nothing_on_disk(tmp_path: Path) -> None:
    async with running_valkey(tmp_path) as url:
        client = redis.asyncio.Redis.from_url(url)
        assert await client.incr("count") == 1
        assert (await client.config_get("maxmemory-policy"))["maxmemory-policy"] == "noeviction"
        await client.aclose()
    assert names(tmp_path) == {"valkey.conf", "valkey.log"}


async def test_valkey_wants_its_password(tmp_path: Path) -> None:
    async with running_valkey(tmp_path) as url:
        assert await ask(urlsplit(url).port or 0, b"PING\r\n") == b"-NOAUTH Authentication required.\r\n"
    assert (tmp_path / "valkey.conf").stat().st_mode & 0o777 == 0o600


async def test_envoy_serves_the_bootstrap_it_is_given(tmp_path: Path) -> None:
    port = free_port()
    async with running_envoy(tmp_path, direct_response(port)) as admin_url, aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/") as answer:
            assert await answer.text() == "hello"
        async with session.get(f"{admin_url}/server_info") as info:
            assert (await info.json())["version"].split("/")[1] == "1.40.0"


async def test_statistics_have_a_port_of_their_own_where_nothing_else_is_told(tmp_path: Path) -> None:
    port, admin_port = free_port(), free_port()
    static = yaml.safe_load(BOOTSTRAP.read_text(encoding="utf-8"))["static_resources"]
    (listener,) = static["listeners"]
    (cluster,) = (each for each in static["clusters"] if each["name"] == "statistics")
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"]["port_value"] = admin_port
    bootstrap = {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }
    proxy = Envoy(tmp_path / "envoy.json", bootstrap)
    async with process.running(proxy.service(ports={}), tmp_path / "envoy.log"), aiohttp.ClientSession() as session:
        statistics = f"http://127.0.0.1:{port}/stats/prometheus"
        async with session.get(statistics) as answer:
            assert "\nenvoy_server_live{} 1\n" in await answer.text()
        for method, path in (
            *(("GET", path) for path in ("/", "/config_dump", "/stats", "/stats/prometheus/", "/ready", "/clusters")),
            *(("POST", path) for path in ("/stats/prometheus", "/quitquitquit", "/logging")),
        ):
            async with session.request(method, f"http://127.0.0.1:{port}{path}") as refusal:
                assert refusal.status == 404, (method, path)


async def test_an_envoy_that_refuses_its_bootstrap_says_why(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"envoy ended with exit code 1(.|\n)*no_such_field"):
        async with running_envoy(tmp_path, {"no_such_field": 1}):
            pass


@pytest.mark.parametrize(("status", "is_ready"), [(200, True), (404, False), (503, False)])
async def test_envoy_serves_when_it_says_so_at_the_gateway_as_well(tmp_path: Path, status: int, is_ready: bool) -> None:
    """A stand-in for Envoy: its admin interface is ready, and the gateway answers with a status of the test's."""
    directory = DataDirectory.at(tmp_path)
    directory.create()

    async def ready(_request: web.Request) -> web.Response:
        return web.Response(text="LIVE\n")

    async def readyz(_request: web.Request) -> web.Response:
        return web.json_response({}, status=status)

    app = web.Application()
    app.router.add_get("/ready", ready)
    app.router.add_get("/readyz", readyz)
    async with TestServer(app) as server:
        assert server.port is not None
        ports = {**dict.fromkeys(DEFAULTS, 1), "envoy_admin": server.port, "gateway": server.port}
        environment = Environment.load(())
        table = services(directory, ports, environment, servers(directory, ports, environment))
        [envoy] = [service for service in table if service.name == "envoy"]
        assert (await envoy.ready(0) is None) is is_ready


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def direct_response(port: int) -> dict[str, object]:
    """A bootstrap with one listener that answers by itself."""
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {"status": 200, "body": {"inline_string": "hello"}},
                        }
                    ],
                }
            ]
        },
    }
    listener = {
        "name": "test",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {"node": {"id": "test", "cluster": "test"}, "static_resources": {"listeners": [listener]}}
