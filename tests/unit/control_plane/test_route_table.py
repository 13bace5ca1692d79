"""Routes are encoded once each, and what is put together from them is what would have been encoded whole."""

import json

import pytest
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from hypothesis import given
from hypothesis import strategies as st

from control_plane.catalog.model import Catalog
from control_plane.xds.protobuf import ROUTE_TYPE, encode
from control_plane.xds.route_table import RouteTable
from control_plane.xds.routes import provider_routes, route_configuration
from control_plane.xds.translate import resources
from gateway_core.contract import Cluster, simulator_route_key
from gateway_core.endpoints import Endpoint
from tests.support.catalogs import catalog, deployment, provider, settings

SETTINGS = settings()


def of(models: int) -> Catalog:
    return catalog(
        [provider("a"), provider("b")],
        [deployment(f"m{number}", name) for number in range(models) for name in ("a", "b")[: number % 2 + 1]],
    )


def whole(given_catalog: Catalog) -> RouteConfiguration:
    return RouteConfiguration.parse(encode(ROUTE_TYPE, route_configuration(provider_routes(given_catalog), SETTINGS)))


@given(models=st.integers(0, 12))
def test_the_table_says_what_the_whole_would_say(models: int) -> None:
    assert RouteConfiguration.parse(RouteTable(SETTINGS).encode(of(models))) == whole(of(models))


def test_the_same_routes_give_the_same_bytes_whatever_came_before() -> None:
    table = RouteTable(SETTINGS)
    first = table.encode(of(5))
    table.encode(of(3))
    assert table.encode(of(5)) == first == RouteTable(SETTINGS).encode(of(5))


def test_the_list_of_models_is_always_routed() -> None:
    assert b"models:" in RouteTable(SETTINGS).encode(of(0))


def test_test_keys_have_routes_exactly_where_there_is_a_simulator() -> None:
    routes = [simulator_route_key(endpoint).encode() for endpoint in (Endpoint.CHAT, Endpoint.MESSAGES)]
    assert all(route in RouteTable(SETTINGS).encode(of(1)) for route in routes)
    assert not any(route in RouteTable(settings(simulator_url=None)).encode(of(1)) for route in routes)


@pytest.mark.parametrize(
    ("url", "path", "is_encrypted"),
    [("http://sim:8090", "/v1/messages", False), ("https://sim.example.com/base/", "/base/v1/messages", True)],
)
def test_the_simulator_may_be_behind_a_path_and_behind_tls(url: str, path: str, is_encrypted: bool) -> None:
    found = [resource for _, resource in resources(of(0), settings(simulator_url=url))]
    [cluster] = [resource for resource in found if resource["name"] == Cluster.SIMULATOR]
    assert ("transport_socket" in cluster) is is_encrypted
    assert f'"path": "{path}"' in json.dumps(found)


@pytest.mark.parametrize("url", ["", "simulator:8090", "ftp://sim", "http://sim:0"])
def test_a_simulator_that_could_not_be_dialled_is_no_setting(url: str) -> None:
    with pytest.raises(ValueError, match="simulator_url"):
        settings(simulator_url=url)
