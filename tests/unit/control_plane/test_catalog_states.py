"""Who is left out of chains, and who stays for want of others."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from control_plane.catalog.model import Catalog
from control_plane.catalog.provider_state import Condition, ProviderState, Subject
from control_plane.xds.routes import action, provider_routes
from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, ProviderName
from tests.support.catalogs import catalog, deployment, provider, settings

States = Mapping[tuple[str, str | None], Condition]
"""By provider, and its own name of one model or None."""

SINCE = datetime(2026, 11, 27, tzinfo=UTC)
SERVED = catalog(
    [provider("a"), provider("b")], [deployment("m", "a", upstream_model="up"), deployment("m", "b", priority=1)]
)


def tried(states: States) -> list[list[str]]:
    """The providers that are tried for the model."""
    chain = given(states).chain(Endpoint.CHAT, ModelName("m"), translated=False)
    assert chain is not None
    return [[each.provider for each in group] for group in chain.groups]


def given(states: States) -> Catalog:
    found = {
        Subject(ProviderName(name), model): ProviderState(condition, SINCE, why="because")
        for (name, model), condition in states.items()
    }
    return replace(SERVED, states=found)


def test_who_is_out_is_not_tried() -> None:
    for condition in (Condition.DOWN, Condition.COOLING, Condition.PAUSED):
        assert tried({("a", None): condition}) == [["b"]]
    assert tried({("a", None): Condition.HEALTHY}) == [["a"], ["b"]]


def test_one_model_of_a_provider_can_be_out_alone() -> None:
    assert tried({("a", "up"): Condition.DOWN}) == [["b"]]
    assert tried({("a", "another"): Condition.DOWN}) == [["a"], ["b"]]


def test_where_nobody_would_be_left_all_stay_but_who_is_paused() -> None:
    assert tried({("a", None): Condition.DOWN, ("b", None): Condition.COOLING}) == [["a"], ["b"]]
    assert tried({("a", None): Condition.DOWN, ("b", None): Condition.PAUSED}) == [["a"]]


def test_where_all_are_paused_the_route_answers_by_itself() -> None:
    states: States = {("a", None): Condition.PAUSED, ("b", None): Condition.PAUSED}
    assert tried(states) == []
    routes = {route.key: route for route in provider_routes(given(states), translated=False)}
    answer = action(routes["chat:m"], settings())["action"]["typed_config"]["direct_response"]  # type: ignore[index,call-overload]  # JSON
    assert answer["status"] == 503  # type: ignore[index,call-overload]  # JSON
