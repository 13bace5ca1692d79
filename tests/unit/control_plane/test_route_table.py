"""Routes are encoded once each, and what is put together from them is what would have been encoded whole."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from control_plane.catalog.model import Catalog, Policy
from control_plane.catalog.strategies import Strategy
from control_plane.settings import Settings
from control_plane.xds.protobuf import ROUTE_TYPE, encode
from control_plane.xds.route_table import RouteTable
from control_plane.xds.routes import ROUTE_CONFIG
from control_plane.xds.translate import resources
from gateway_core.clusters import Cluster
from gateway_core.endpoints import SOLD
from gateway_core.ids import ModelName
from gateway_core.route_keys import simulator_route_key
from tests.support.catalogs import catalog, catalogs, deployment, provider, settings

SETTINGS = settings()


def of(models: int) -> Catalog:
    return catalog(
        [provider("a"), provider("b")],
        [deployment(f"m{number}", name) for number in range(models) for name in ("a", "b")[: number % 2 + 1]],
    )


def read(table: bytes) -> dict[str, Any]:
    """What is in it, in whichever order its maps were written."""
    return RouteConfiguration.parse(table).to_dict()


def whole(given_catalog: Catalog, given_settings: Settings) -> dict[str, Any]:
    [resource] = [
        each
        for name, each in resources(given_catalog, given_settings)
        if name == ROUTE_TYPE and each["name"] == ROUTE_CONFIG
    ]
    return read(encode(ROUTE_TYPE, resource))


@settings_of_hypothesis(max_examples=25)
@given(before=catalogs(), after=catalogs(), has_simulator=st.booleans())
def test_the_table_says_what_the_whole_would_say_whatever_it_remembers(
    before: Catalog, after: Catalog, has_simulator: bool
) -> None:
    given_settings = SETTINGS if has_simulator else settings(simulator_url=None)
    table = RouteTable(given_settings)
    first = table.encode(before)
    assert read(first) == whole(before, given_settings)
    assert read(table.encode(after)) == whole(after, given_settings)
    assert table.encode(before) == first


@pytest.mark.parametrize(
    "change",
    [
        lambda made: replace(made, deployments=tuple(replace(each, weight=7) for each in made.deployments)),
        lambda made: replace(made, deployments=tuple(replace(each, priority=9) for each in made.deployments)),
        lambda made: replace(made, deployments=tuple(replace(each, upstream_model="o") for each in made.deployments)),
        lambda made: with_models(made, policy=Policy(attempts_max=1)),
        lambda made: with_models(made, policy=Policy(retry_statuses=(418,))),
        lambda made: with_models(made, policy=Policy(first_byte_timeout_ms=1500)),
        lambda made: with_models(made, policy=Policy(idle_timeout_ms=1500)),
        lambda made: with_models(made, policy=Policy(cache_ttl_s=60)),
        lambda made: with_models(made, policy=Policy(strategy=Strategy.ROUND_ROBIN)),
        lambda made: with_models(made, policy=Policy(strategy=Strategy.LOWEST_COST)),
        lambda made: with_models(made, policy=Policy(strategy=Strategy.LOWEST_LATENCY)),
        lambda made: with_models(made, aliases=(ModelName("alias"),)),
        lambda made: replace(made, providers={name: provider(name, base_url="http://e/v9") for name in made.providers}),
    ],
    ids=[
        "weight", "priority", "upstream model", "attempts", "statuses", "first byte", "idle", "cache", "in turn", "by cost",
        "by latency", "aliases", "base url",
    ],
)  # fmt: skip
def test_no_part_of_a_route_can_change_without_its_bytes(change: Callable[[Catalog], Catalog]) -> None:
    chain = [deployment("m", "a"), deployment("m", "b"), deployment("m", "c", priority=1)]
    table, before = RouteTable(SETTINGS), catalog([provider(name) for name in "abc"], chain)
    old = table.encode(before)
    after = change(before)
    new = table.encode(after)
    assert new != old
    assert read(new) == whole(after, SETTINGS)


def with_models(made: Catalog, **fields: Any) -> Catalog:
    """The same catalogue with something else about its models."""
    return replace(made, models={name: replace(model, **fields) for name, model in made.models.items()})


def test_the_same_routes_give_the_same_bytes_whatever_came_before() -> None:
    table = RouteTable(SETTINGS)
    first = table.encode(of(5))
    table.encode(of(3))
    assert table.encode(of(5)) == first == RouteTable(SETTINGS).encode(of(5))


def test_the_list_of_models_is_always_routed() -> None:
    assert b"models:" in RouteTable(SETTINGS).encode(of(0))


def test_test_keys_have_routes_exactly_where_there_is_a_simulator() -> None:
    routes = [simulator_route_key(endpoint).encode() for endpoint in SOLD]
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
