"""The judge of the chaos runs sees what it is there to see."""

from dataclasses import replace

import pytest

from bench.chaos.load import served_again_s
from bench.chaos.verdict import Recorded, Seen, judge

SEEN = Seen(
    client_request_id="chaos-1",
    org_id="org_1",
    began_s=10.0,
    ended_s=11.0,
    status=200,
    request_id="req-1",
    delivered_bytes=500,
    is_whole=True,
    is_refused=False,
)
SETTLED = Recorded("req-1", "settled", price_nano_usd=5, charges=1)
NOT_SERVED = replace(SEEN, status=503, is_refused=True)
CUT = replace(SEEN, is_whole=False)


def test_an_answer_with_one_row_and_one_charge_is_good() -> None:
    verdict = judge([SEEN], {"chaos-1": [SETTLED]})
    assert verdict.is_good
    assert verdict.outcomes == {"settled": 1}


@pytest.mark.parametrize("seen", [SEEN, CUT, NOT_SERVED])
def test_an_answer_without_a_row_is_lost(seen: Seen) -> None:
    assert judge([seen], {}).lost == ["chaos-1"]


@pytest.mark.parametrize(("killed_s", "is_lost"), [(9.9, True), (10.5, False), (11.5, False), (12.5, True)])
def test_only_an_envoy_that_had_no_time_to_write_excuses_it(killed_s: float, is_lost: bool) -> None:
    verdict = judge([SEEN], {}, envoy_killed_s=killed_s)
    assert bool(verdict.lost) is is_lost
    assert bool(verdict.expired) is not is_lost


def test_where_envoy_was_killed_a_request_may_have_found_nobody_listening_and_elsewhere_it_is_lost() -> None:
    unanswered = replace(SEEN, status=None, delivered_bytes=0, is_whole=False)
    assert judge([unanswered], {}).lost == ["chaos-1"]
    verdict = judge([unanswered], {}, envoy_killed_s=5.0)
    assert verdict.is_good
    assert verdict.outcomes == {"unanswered": 1}
    assert judge([unanswered], {"chaos-1": [SETTLED]}).is_good


@pytest.mark.parametrize("rows", [[SETTLED, replace(SETTLED, request_id="req-2")], [replace(SETTLED, charges=2)]])
def test_two_rows_or_two_charges_are_double(rows: list[Recorded]) -> None:
    assert judge([SEEN], {"chaos-1": rows}).doubled == ["chaos-1"]


@pytest.mark.parametrize("seen", [SEEN, CUT])
def test_what_was_delivered_and_not_charged_is_unmetered(seen: Seen) -> None:
    released = replace(SETTLED, outcome="released", price_nano_usd=0, charges=0)
    assert judge([seen], {"chaos-1": [released]}).unmetered == ["chaos-1"]


def test_a_whole_answer_that_is_estimated_and_a_refusal_that_is_charged_are_mistaken() -> None:
    estimated = replace(SETTLED, outcome="estimated")
    assert judge([SEEN], {"chaos-1": [estimated]}).mistaken == ["chaos-1"]
    assert judge([CUT], {"chaos-1": [estimated]}).is_good
    assert judge([NOT_SERVED], {"chaos-1": [SETTLED]}).mistaken == ["chaos-1"]


def test_everybody_is_served_again_when_the_last_one_is() -> None:
    later = replace(SEEN, began_s=20.0, ended_s=21.0)
    other = replace(SEEN, org_id="org_2")
    assert served_again_s([SEEN, other], 5.0) == 0
    assert served_again_s([NOT_SERVED, later, other], 5.0) == 16.0
    with pytest.raises(LookupError):
        served_again_s([SEEN, NOT_SERVED], 5.0)
