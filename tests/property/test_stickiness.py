"""Which provider a value is kept to: a matter of the value, the names and the weights, and of nothing else."""

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.catalog.stickiness import order_for
from gateway_core.ids import ProviderName

NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True).map(ProviderName)
GROUPS = st.dictionaries(NAMES, st.integers(1, 1000), min_size=1, max_size=16)
VALUES = st.text(min_size=1, max_size=80)


@given(VALUES, GROUPS, st.randoms())
def test_every_provider_is_in_the_order_once_and_how_they_are_listed_does_not_matter(
    value: str, weights: Mapping[ProviderName, int], shuffled: st.DataObject
) -> None:
    found = order_for(value, weights)
    assert sorted(found) == sorted(weights)
    names = [*weights]
    shuffled.shuffle(names)  # type: ignore[attr-defined]  # a Random
    assert order_for(value, {name: weights[name] for name in names}) == found


@given(VALUES, GROUPS, st.data())
def test_when_one_leaves_the_others_keep_their_order(
    value: str, weights: Mapping[ProviderName, int], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(weights)))
    left = {name: weight for name, weight in weights.items() if name != gone}
    assert order_for(value, left) == [name for name in order_for(value, weights) if name != gone]


@given(VALUES, GROUPS, st.data(), st.integers(1, 1000))
def test_one_that_weighs_more_only_comes_forward(
    value: str, weights: Mapping[ProviderName, int], data: st.DataObject, more: int
) -> None:
    name = data.draw(st.sampled_from(sorted(weights)))
    heavier = {**weights, name: weights[name] + more}
    before, after = order_for(value, weights), order_for(value, heavier)
    assert after.index(name) <= before.index(name)
    assert [each for each in after if each != name] == [each for each in before if each != name]


@pytest.mark.parametrize("values", ["user-{}", "{}", "{}-4f1d7c0e-session", "x" * 600 + "{}"], ids=str)
def test_values_are_shared_out_by_weight(values: str) -> None:
    weights = {ProviderName("a"): 5, ProviderName("b"): 3, ProviderName("c"): 2}
    found = Counter(order_for(values.format(number), weights)[0] for number in range(5000))
    if len(values) > 512:
        # What is read of a value ends there.
        assert len(found) == 1
        return
    for name, weight in weights.items():
        assert abs(found[name] / 5000 - weight / 10) < 0.03, found
