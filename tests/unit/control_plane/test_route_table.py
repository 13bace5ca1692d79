"""Routes are encoded once each, and what is put together from them is what would have been encoded whole."""

from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from hypothesis import given
from hypothesis import strategies as st

from control_plane.catalog.model import Catalog
from control_plane.xds.protobuf import ROUTE_TYPE, encode
from control_plane.xds.route_table import RouteTable
from control_plane.xds.routes import provider_routes, route_configuration
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
