"""In which order providers are tried, and by what figures."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from control_plane.catalog.model import Catalog, Policy
from control_plane.catalog.specs import RouteSpec
from control_plane.catalog.strategies import StickyBy, Strategy, nominal_cost
from control_plane.xds.routes import provider_routes
from gateway_core.ids import PriceVersion
from gateway_core.pricing import PriceRow, Rate
from gateway_core.usage import Meter
from tests.support.catalogs import catalog, deployment, provider


def served_by(policy: Policy) -> Catalog:
    """Three in the first group, of one of which nothing is known; one in the second."""
    made = catalog(
        [provider(name) for name in ("a", "b", "c", "d")],
        [
            deployment("m", "a", figure=30, weight=9),
            deployment("m", "b", figure=20),
            deployment("m", "c", weight=5),
            deployment("m", "d", figure=1, priority=1),
        ],
    )
    return replace(made, models={name: replace(model, policy=policy) for name, model in made.models.items()})


def tries(policy: Policy) -> list[list[str]]:
    route = next(iter(provider_routes(served_by(policy), translated=False)))
    return [[hop.provider for hop in group] for group in route.tries]


@pytest.mark.parametrize("strategy", [Strategy.LOWEST_COST, Strategy.LOWEST_LATENCY])
def test_the_least_figure_comes_first_within_its_group_and_the_unknown_last(strategy: Strategy) -> None:
    assert tries(Policy(strategy=strategy)) == [["b"], ["a"], ["c"], ["d"]]


@pytest.mark.parametrize("strategy", [Strategy.LOWEST_COST, Strategy.LOWEST_LATENCY])
def test_where_figures_do_not_tell_them_apart_the_heaviest_comes_first(strategy: Strategy) -> None:
    made = served_by(Policy(strategy=strategy))
    made = replace(made, deployments=tuple(replace(each, figure=None) for each in made.deployments))
    [chain, *_] = made.chains()
    assert [[each.provider for each in group] for group in chain.groups] == [["a", "c", "b"], ["d"]]


def test_what_is_drawn_by_weight_is_one_try_per_group_and_all_else_one_per_provider() -> None:
    assert tries(Policy()) == [["a", "b", "c"], ["d"]]
    assert tries(Policy(strategy=Strategy.ROUND_ROBIN)) == [["a"], ["b"], ["c"], ["d"]]
    assert tries(Policy(sticky_by=StickyBy.USER)) == [["a"], ["b"], ["c"], ["d"]]


def test_a_nominal_request_costs_what_its_tokens_do_and_nothing_that_it_has_none_of() -> None:
    rates = {
        Meter.INPUT: Rate(2_000_000, 9_000_000),
        Meter.OUTPUT: Rate(8_000_000, 9_000_000),
        Meter.CACHED_INPUT: Rate(1_000_000, 9_000_000),
        Meter.REQUEST: Rate(5_000_000, 9_000_000),
    }
    assert nominal_cost(PriceRow(PriceVersion(1), rates)) == 3 * 2000 + 8000 + 5
    assert nominal_cost(PriceRow(PriceVersion(1), {Meter.IMAGE: Rate(40_000_000_000, 0)})) == 40_000
    assert nominal_cost(PriceRow(PriceVersion(1), {}, is_free=True)) == 0
    assert nominal_cost(PriceRow(PriceVersion(1), {}, is_usable=False)) is None


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("sticky_by", [None, *StickyBy])
def test_stickiness_stands_only_beside_what_is_shared(strategy: Strategy, sticky_by: StickyBy | None) -> None:
    fields = {"match": "m", "groups": [[{"provider": "a"}]], "strategy": strategy, "sticky_by": sticky_by}
    if sticky_by is not None and strategy in {Strategy.LOWEST_COST, Strategy.LOWEST_LATENCY}:
        with pytest.raises(ValidationError, match="sticky_by"):
            RouteSpec.model_validate(fields)
    else:
        assert RouteSpec.model_validate(fields).sticky_by == sticky_by
