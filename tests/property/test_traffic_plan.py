"""Whatever the seed, a plan of `tollgate demo traffic` is whole, in order, and the same again."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tollgate.traffic.mix import MIX, Story
from tollgate.traffic.plan import plan, written

SEEDS = st.integers(min_value=0, max_value=10**9)
LENGTHS = st.integers(min_value=1, max_value=20)
RATES = st.integers(min_value=1, max_value=20)
CONTEXT_BYTES = 4 * 4096
"""Of the demo's smallest model that reads and writes, at four bytes a token."""


@given(seed=SEEDS, seconds=LENGTHS, rate=RATES)
def test_a_plan_is_in_order_within_its_time_and_has_every_kind(seed: int, seconds: int, rate: int) -> None:
    slots = plan(seed, seconds, rate)
    begins = [slot.at_s for slot in slots]
    assert begins == sorted(begins)
    assert begins[0] >= 0
    assert begins[-1] < seconds
    kinds = {(slot.activity.endpoint, slot.activity.model) for slot in slots}
    assert kinds == {(each.endpoint, each.model) for each in MIX}


@given(seed=SEEDS, other=SEEDS)
def test_the_same_seed_gives_the_same_requests_and_another_one_others(seed: int, other: int) -> None:
    def all_of(each: int) -> list[object]:
        return [(slot, written(each, slot)) for slot in plan(each, 1, 1)]

    first = all_of(seed)
    assert first == all_of(seed)
    assert (first == all_of(other)) == (seed == other)


@given(seed=SEEDS)
def test_what_is_asked_and_answered_fits_into_every_models_context(seed: int) -> None:
    for slot in plan(seed, 1, 1):
        planned = written(seed, slot)
        if slot.activity.story is not Story.MALFORMED:
            body = json.loads(planned.body)
            written_most = body.get("max_tokens", body.get("max_output_tokens", 0))
            assert len(planned.body) + 4 * written_most <= CONTEXT_BYTES
