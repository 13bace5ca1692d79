"""When a provider is left out, for how long, and how it comes back."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.catalog.provider_state import Condition, ProviderState, Subject
from control_plane.health.judgement import (
    DOUBLINGS_MAX,
    FORGIVEN_AFTER,
    HEALTHY,
    LIMIT_MAX,
    UNTOLD,
    Answers,
    Evidence,
    Failure,
    Limit,
    Probe,
    Seen,
    following,
    judge,
)
from gateway_core.ids import OrgId, ProviderName

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
OUT = timedelta(seconds=30)
ONE = Subject(ProviderName("one"))
POISONER, BYSTANDER, OTHER = OrgId("org_poisoner"), OrgId("org_bystander"), OrgId("org_other")
SMALL, LARGE = Subject(ProviderName("one"), "small"), Subject(ProviderName("one"), "large")


def second(number: float) -> timedelta:
    return timedelta(seconds=number)


def failures(
    count: int,
    org_id: OrgId | None = None,
    *,
    was_answered: bool = True,
    was_reached: bool = True,
    last: datetime = NOW,
) -> Sequence[Failure]:
    """One every tenth of a second, up to the last; of one organisation, or of another one each time."""
    return [
        Failure(
            last - second(0.1 * number),
            "it answered 500",
            was_answered=was_answered,
            was_reached=was_reached,
            org_id=org_id or OrgId(f"org_{number}"),
        )
        for number in range(count)
    ]


def unknown(found: Sequence[Failure]) -> Sequence[Failure]:
    """The same before their requests have ended."""
    return [replace(each, org_id=None) for each in found]


def answered(*org_ids: OrgId, ago: float = 30, count: int = 1) -> Answers:
    """The last one so many seconds ago."""
    return Answers(count, NOW - second(ago), frozenset(org_ids))


def after(state: ProviderState, seen: Seen, now: datetime = NOW) -> ProviderState | None:
    return following(state, seen, now, out_for=OUT)


def down(*, times: int = 1, by_probe: bool = False, since: datetime = NOW) -> ProviderState:
    return ProviderState(Condition.DOWN, since, since + OUT, "it failed", times, by_probe)


def test_five_failures_in_a_row_are_too_many_and_four_are_not() -> None:
    assert after(HEALTHY, Seen(failures(4))) is None
    found = after(HEALTHY, Seen(failures(5)))
    assert found is not None
    assert (found.condition, found.until, found.times) == (Condition.DOWN, NOW + OUT, 1)
    assert found.why == "5 failures in a row, the last: it answered 500"


def test_an_answer_between_failures_breaks_their_row() -> None:
    assert after(HEALTHY, Seen(failures(7), answered(ago=0.25))) is None


def test_ten_failures_that_are_as_many_as_answers_are_too_many_whatever_their_order() -> None:
    assert after(HEALTHY, Seen(failures(10), Answers(11, NOW))) is None
    found = after(HEALTHY, Seen(failures(10), Answers(10, NOW)))
    assert found is not None
    assert (found.condition, found.why) == (Condition.DOWN, "10 of 20 failed, the last: it answered 500")
    assert not found.by_probe


@pytest.mark.parametrize("count", [5, 50, 500])
def test_what_one_organisation_brings_about_takes_the_provider_from_nobody_who_is_answered(count: int) -> None:
    assert after(HEALTHY, Seen(failures(count, POISONER), answered(BYSTANDER))) is None
    assert after(HEALTHY, Seen(failures(count, POISONER), answered(BYSTANDER, POISONER, ago=0))) is None
    # Nor if its requests have not ended, so that nobody knows whose they are.
    assert after(HEALTHY, Seen(unknown(failures(count)), answered(BYSTANDER))) is None


def test_an_organisation_that_is_alone_with_a_provider_is_believed() -> None:
    for answers in (Answers(), answered(POISONER)):
        found = after(HEALTHY, Seen(failures(5, POISONER), answers))
        assert found is not None
        assert found.why == "5 failures in a row, the last: it answered 500"


def test_of_one_organisation_no_more_failures_count_than_of_all_others_together() -> None:
    few = [*failures(500, POISONER), *failures(2, BYSTANDER)]
    assert after(HEALTHY, Seen(few, answered(BYSTANDER, OTHER))) is None
    enough = [*failures(500, POISONER), *failures(2, BYSTANDER), *failures(1, OTHER)]
    assert after(HEALTHY, Seen(enough, answered(BYSTANDER, OTHER))) is not None
    # Nor where failures are counted against answers.
    some = [*failures(500, POISONER), *failures(7, BYSTANDER)]
    assert after(HEALTHY, Seen(some, answered(BYSTANDER, ago=0, count=15))) is None
    assert after(HEALTHY, Seen(some, answered(BYSTANDER, ago=0, count=14))) is not None


def test_two_organisations_of_one_person_take_a_provider_from_no_more_others_by_their_share() -> None:
    poisoned = [*failures(60, POISONER), *failures(60, OTHER)]
    others = (BYSTANDER, OrgId("org_second"), OrgId("org_third"))
    assert after(HEALTHY, Seen(poisoned, answered(*others, ago=0, count=20))) is None
    # Nor if they are answered too, or the others have failures as well.
    assert after(HEALTHY, Seen(poisoned, answered(POISONER, BYSTANDER, ago=0, count=20))) is None
    mixed = [*poisoned, *(failure for org_id in others for failure in failures(1, org_id))]
    assert after(HEALTHY, Seen(mixed, answered(*others, ago=0, count=20))) is None
    found = after(HEALTHY, Seen(poisoned, answered(*others[:2], ago=0, count=20)))
    assert found is not None
    assert found.why == "120 of 140 failed, the last: it answered 500"


def test_by_share_an_organisation_that_is_alone_is_believed_and_that_there_is_no_connection_is_nobodys_doing() -> None:
    assert after(HEALTHY, Seen(failures(10, POISONER), answered(POISONER, ago=0, count=10))) is not None
    unreached = unknown(failures(10, was_answered=False, was_reached=False))
    poisoned = failures(60, POISONER)
    assert after(HEALTHY, Seen([*unreached, *poisoned], answered(BYSTANDER, OTHER, ago=0, count=10))) is not None
    assert after(HEALTHY, Seen([*unreached, *poisoned], answered(BYSTANDER, OTHER, ago=0, count=11))) is None


def test_failures_of_nobody_knows_whom_are_taken_for_those_of_whoever_it_may_be() -> None:
    of_nobody = unknown(failures(3))
    assert after(HEALTHY, Seen([*failures(2, BYSTANDER), *of_nobody], answered(BYSTANDER))) is None
    known = [*failures(3, BYSTANDER), *failures(1, OTHER)]
    assert after(HEALTHY, Seen([*known, *of_nobody], answered(BYSTANDER))) is not None


def test_that_there_is_no_connection_is_nobodys_doing() -> None:
    unreached = unknown(failures(5, was_answered=False, was_reached=False))
    found = after(HEALTHY, Seen(unreached, answered(BYSTANDER)))
    assert found is not None
    assert found.by_probe


def test_on_one_organisations_word_nobody_is_out_for_longer_and_longer() -> None:
    before = ProviderState(Condition.HEALTHY, NOW - second(9), times=3)
    alone = after(before, Seen(failures(5, POISONER)))
    assert alone is not None
    assert (alone.until, alone.times) == (NOW + OUT, 1)
    several = after(before, Seen([*failures(3, POISONER), *failures(2, BYSTANDER)]))
    assert several is not None
    assert (several.until, several.times) == (NOW + 8 * OUT, 4)


def test_a_refused_credential_is_everybodys_if_it_comes_for_everybody() -> None:
    refused = [replace(each, why="it answered 401") for each in failures(5)]
    found = after(HEALTHY, Seen(refused, answered(BYSTANDER)))
    assert found is not None
    assert found.why == "5 failures in a row, the last: it answered 401"


def test_who_comes_back_and_fails_again_is_out_for_twice_as_long_up_to_a_bound() -> None:
    state, now, waits = HEALTHY, NOW, []
    for _ in range(DOUBLINGS_MAX + 3):
        found = after(state, Seen(failures(5, last=now)), now)
        assert found is not None
        assert found.until is not None
        waits.append((found.until - now) / OUT)
        back = after(found, Seen(), found.until)
        assert back is not None
        assert back.condition is Condition.HEALTHY
        state, now = back, found.until + second(1)
    assert waits == [1, 2, 4, 8, 16, 16, 16]


def test_who_was_well_for_long_enough_begins_anew() -> None:
    state = ProviderState(Condition.HEALTHY, NOW - FORGIVEN_AFTER, times=4)
    found = after(state, Seen(failures(5)))
    assert found is not None
    assert found.until == NOW + OUT


def test_what_happened_before_it_came_back_is_not_held_against_it() -> None:
    back = ProviderState(Condition.HEALTHY, NOW, times=1)
    assert after(back, Seen(failures(9), limit=Limit(NOW - second(1), NOW + second(9), is_refusal=True))) is None


def test_a_probe_that_is_answered_brings_back_who_could_not_be_reached() -> None:
    found = after(HEALTHY, Seen(failures(5, was_answered=False)))
    assert found is not None
    assert found.by_probe
    well = Probe(NOW + second(2), answered=True, why="", failures=0)
    back = after(found, Seen(probe=well), NOW + second(3))
    assert back is not None
    assert back.condition is Condition.HEALTHY


def test_a_probe_is_no_proof_for_who_was_reached_and_failed() -> None:
    well = Probe(NOW + second(2), answered=True, why="", failures=0)
    assert after(down(), Seen(probe=well), NOW + second(3)) is None
    back = after(down(), Seen(probe=well), NOW + OUT)
    assert back is not None
    assert back.condition is Condition.HEALTHY


def test_who_fails_its_probe_when_its_time_is_over_stays_out() -> None:
    ill = Probe(NOW + second(28), answered=False, why="it could not be reached", failures=5)
    found = after(down(), Seen(probe=ill), NOW + OUT)
    assert found is not None
    assert (found.condition, found.since, found.until) == (Condition.DOWN, NOW, NOW + OUT + 2 * OUT)


def test_three_failed_probes_in_a_row_are_enough_without_any_request() -> None:
    assert after(HEALTHY, Seen(probe=Probe(NOW, answered=False, why="no", failures=2))) is None
    found = after(HEALTHY, Seen(probe=Probe(NOW, answered=False, why="no", failures=3)))
    assert found is not None
    assert (found.condition, found.by_probe, found.why) == (Condition.DOWN, True, "no")


def test_a_refusal_that_says_how_long_is_believed_up_to_an_hour() -> None:
    found = after(HEALTHY, Seen(limit=Limit(NOW, NOW + second(20), is_refusal=True)))
    assert found is not None
    assert (found.condition, found.until) == (Condition.COOLING, NOW + second(20))
    found = after(HEALTHY, Seen(limit=Limit(NOW, NOW + timedelta(days=3), is_refusal=True)))
    assert found is not None
    assert found.until == NOW + LIMIT_MAX


def test_a_refusal_that_does_not_say_counts_for_some_seconds_and_for_twice_as_long_the_next_time() -> None:
    first = after(HEALTHY, Seen(limit=Limit(NOW, None, is_refusal=True)))
    assert first is not None
    assert first.until == NOW + UNTOLD
    back = after(first, Seen(), first.until)
    assert back is not None
    later = NOW + second(6)
    second_time = after(back, Seen(limit=Limit(later, None, is_refusal=True)), later)
    assert second_time is not None
    assert second_time.until == later + 2 * UNTOLD


def test_who_says_that_nothing_is_left_is_spared_the_next_refusal() -> None:
    found = after(HEALTHY, Seen(limit=Limit(NOW, NOW + second(20), is_refusal=False)))
    assert found is not None
    assert (found.condition, found.why) == (Condition.COOLING, "nothing is left of its limits")


@pytest.mark.parametrize("free_at", [None, NOW - second(5), NOW + second(0.9)])
def test_a_limit_that_is_as_good_as_over_moves_nothing(free_at: datetime | None) -> None:
    assert after(HEALTHY, Seen(limit=Limit(NOW, free_at, is_refusal=False))) is None


def test_a_later_word_of_the_provider_makes_its_time_longer() -> None:
    cooling = ProviderState(Condition.COOLING, NOW, NOW + second(5), "too many requests", 1)
    told = Limit(NOW + second(1), NOW + second(30), is_refusal=True)
    found = after(cooling, Seen(limit=told), NOW + second(1))
    assert found is not None
    assert (found.since, found.until, found.times) == (NOW, NOW + second(30), 1)


def test_one_ill_model_of_a_provider_is_left_out_alone() -> None:
    evidence = Evidence({SMALL: failures(5)}, {LARGE: Answers(20, NOW)})
    changed = judge({}, evidence, NOW, out_for=OUT)
    assert {subject: state.condition for subject, state in changed.items()} == {SMALL: Condition.DOWN}


def test_where_all_models_fail_the_provider_is_left_out() -> None:
    evidence = Evidence({SMALL: failures(3), LARGE: failures(3)})
    assert {*judge({}, evidence, NOW, out_for=OUT)} == {ONE}


def test_the_failures_of_a_model_that_is_out_do_not_count_for_its_provider() -> None:
    evidence = Evidence({SMALL: failures(9)})
    assert judge({SMALL: down(since=NOW)}, evidence, NOW, out_for=OUT) == {}


def test_what_models_did_while_their_provider_was_out_does_not_count_once_it_is_back() -> None:
    states = {ONE: down(since=NOW - OUT)}
    evidence = Evidence({SMALL: failures(5, last=NOW - second(1))})
    changed = judge(states, evidence, NOW, out_for=OUT)
    assert {subject: state.condition for subject, state in changed.items()} == {ONE: Condition.HEALTHY}


_moments = st.integers(-60, 600).map(lambda seconds: NOW + second(seconds))
_seen = st.builds(
    Seen,
    st.lists(st.builds(Failure, _moments, st.just("no"), was_answered=st.booleans()), max_size=15),
    st.builds(Answers, st.integers(0, 20), _moments),
    st.none() | st.builds(Limit, _moments, st.none() | _moments, is_refusal=st.booleans()),
    st.none() | st.builds(Probe, _moments, st.booleans(), st.just("no"), st.integers(0, 5)),
)


@given(_seen, _moments)
def test_a_pause_ends_by_an_operator_alone(seen: Seen, now: datetime) -> None:
    assert after(ProviderState(Condition.PAUSED, NOW, why="because"), seen, now) is None


@given(st.lists(st.tuples(_seen, st.integers(0, 120)), max_size=30))
def test_whoever_is_out_comes_back_in_bounded_time_once_nothing_more_is_seen(history: list[tuple[Seen, int]]) -> None:
    state, now = HEALTHY, NOW
    for seen, pause in history:
        state = after(state, seen, now) or state
        now += second(pause)
        if state.is_out:
            assert state.until is not None
            assert state.why
    if state.is_out:
        later = now + LIMIT_MAX + OUT * 2**DOUBLINGS_MAX
        back = after(state, Seen(), later)
        assert back is not None
        assert not back.is_out
