"""What is planned for a run of `tollgate demo traffic`, and what is told of it."""

import json
from collections import Counter

import pytest

from control_plane import demo
from gateway_core.contract import Header
from gateway_core.endpoints import FACTS
from gateway_core.mode import Mode
from gateway_core.usage import Meter
from simulator.knobs import Fault, Knobs, take_directives, turn
from tollgate.demo_commands import RATE, SECONDS
from tollgate.traffic.mix import MIX, MODELS, Activity, Story
from tollgate.traffic.plan import OUTAGE, Planned, Slot, plan, written
from tollgate.traffic.tally import Ended, Tally
from tollgate.traffic.tenants import HURRIED, PENNILESS, TENANTS, TESTER, apps

SEED = 4


def requests(story: Story) -> list[Planned]:
    return [written(SEED, slot) for slot in plan(SEED, SECONDS, RATE) if slot.activity.story is story]


def knobs(planned: Planned) -> Knobs:
    """What the simulator is told."""
    return turn(Knobs(), take_directives(json.loads(planned.body)["messages"][0]["content"])[1])


def test_the_parts_of_the_mix_are_a_whole() -> None:
    assert sum(activity.per_mille for activity in MIX) == 1000
    assert len({(each.story, each.endpoint, each.model) for each in MIX}) == len(MIX)


def test_a_run_has_about_as_many_requests_as_it_should_and_every_kind_by_its_part() -> None:
    slots = plan(SEED, SECONDS, RATE)
    assert len(slots) == pytest.approx(SECONDS * RATE, rel=0.02)
    kinds = Counter((slot.activity.endpoint, slot.activity.model) for slot in slots)
    for endpoint, model in {(each.endpoint, each.model) for each in MIX}:
        part = sum(each.per_mille for each in MIX if (each.endpoint, each.model) == (endpoint, model))
        assert kinds[endpoint, model] == pytest.approx(part * SECONDS * RATE / 1000, abs=8)


def test_the_middle_of_the_day_is_busy_and_the_night_is_quiet() -> None:
    hours = Counter(int(slot.at_s * 24 / SECONDS) for slot in plan(SEED, SECONDS, RATE))
    assert sum(hours[hour] for hour in range(1, 5)) * 4 < sum(hours[hour] for hour in range(9, 13))


def test_for_a_part_of_the_day_a_provider_is_down_for_what_has_no_other() -> None:
    slots = plan(SEED, SECONDS, RATE)
    out = [slot for slot in slots if slot.activity.story is Story.OUTAGE]
    assert len(out) > 20
    assert {OUTAGE[0] * SECONDS <= slot.at_s < OUTAGE[1] * SECONDS for slot in out} == {True}
    assert {knobs(planned).error for planned in requests(Story.OUTAGE) if planned.path.endswith("completions")} == {
        Fault.UNAVAILABLE
    }


def test_what_may_fail_over_fails_for_one_provider_as_likely_as_not() -> None:
    turned = [knobs(planned) for planned in requests(Story.FALLBACK)]
    assert {each.error_rate for each in turned} == {50}
    assert len({each.error for each in turned}) == 5


def test_nothing_is_counted_that_the_demo_has_no_price_for() -> None:
    priced = {model.name: set(model.usd_per_million) for model in demo.MODELS}
    meters = {"cached_tokens": Meter.CACHED_INPUT, "reasoning_tokens": Meter.REASONING}
    for activity in MIX:
        if activity.model in priced:
            turned = {knob for number in range(40) for knob in meters if knob in text(number, activity)}
            assert {meters[knob] for knob in turned} <= priced[activity.model], activity


def text(number: int, activity: Activity) -> str:
    return written(SEED, Slot(number, 0.0, activity)).body.decode()


def test_refusals_come_with_what_is_refused() -> None:
    assert {planned.app for planned in requests(Story.UNKNOWN_KEY)} == {None}
    assert {planned.app for planned in requests(Story.HURRIED)} == {HURRIED}
    assert {planned.app for planned in requests(Story.PENNILESS)} == {PENNILESS}
    assert {json.loads(each.body)["model"] for each in requests(Story.UNKNOWN_MODEL)}.isdisjoint(MODELS)
    for planned in requests(Story.MALFORMED):
        with pytest.raises(json.JSONDecodeError):
            json.loads(planned.body)


def test_who_is_limited_asks_more_often_than_it_may() -> None:
    assert HURRIED.requests_per_minute_max is not None
    assert len([slot for slot in plan(SEED, 1, 1) if slot.activity.story is Story.HURRIED]) > (
        HURRIED.requests_per_minute_max
    )


def test_what_is_asked_again_is_the_same_to_the_letter() -> None:
    asked = requests(Story.CACHED)
    assert len({planned.body for planned in asked}) == 3 < len(asked)
    assert {planned.headers[Header.CACHE] for planned in asked} == {"on"}


def test_costs_are_told_apart_by_tags() -> None:
    tags = dict(each.split("=") for each in requests(Story.WHOLE)[0].headers[Header.TAGS].split(","))
    assert tags.keys() == {"project", "feature", "stage", "user"}


def test_regular_requests_are_of_live_keys_with_money() -> None:
    senders = Counter(planned.app for planned in requests(Story.STREAM))
    assert senders.keys() == {app for app, _ in apps()} - {HURRIED, PENNILESS, TESTER}
    assert {app.mode for app in senders if app} == {Mode.LIVE}


def test_names_of_tenants_and_keys_are_there_once() -> None:
    assert len({tenant.name for tenant in TENANTS}) == len(TENANTS)
    names = [app.name for app, _ in apps()]
    assert len(set(names)) == len(names)


def test_every_kind_of_request_can_be_written() -> None:
    written_paths = {written(SEED, slot).path.partition("?")[0] for slot in plan(SEED, 1, 1)}
    assert written_paths == {FACTS[each.endpoint].path.replace("{model}", each.model) for each in MIX}


def test_a_tally_counts_ends_by_story_and_in_words() -> None:
    tally = Tally()
    for ended in (
        Ended(Story.CACHED, 200, 0.1),
        Ended(Story.CACHED, 200, 0.002, is_cached=True),
        Ended(Story.CACHED, 200, 0.003, is_cached=True),
        Ended(Story.IMPATIENT, None, 0.15, has_left=True),
        Ended(Story.FALLBACK, None, 0.2),
    ):
        tally.add(ended)
    assert tally.answered == 3
    assert tally.rows() == [
        {"what": "asked again, with the cache on", "requests": 3, "answers": "200 cached: 2, 200: 1", "median_ms": 3},
        {
            "what": "a provider fails, another one may answer",
            "requests": 1,
            "answers": "no answer: 1",
            "median_ms": 200,
        },
        {"what": "the client leaves before the answer", "requests": 1, "answers": "left: 1", "median_ms": 150},
    ]
