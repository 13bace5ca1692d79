import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.knobs import Fault, InvalidKnobsError, Knobs, take_directives, turn
from simulator.words import fingerprint


def test_every_knob_can_be_turned() -> None:
    text = (
        "latency_ms=1 token_delay_ms=2, output_tokens=3;cached_tokens=4 cache_write_tokens=5 "
        "reasoning_tokens=6 error=429 error_rate=7"
    )

    assert turn(Knobs(), text) == Knobs(
        latency_ms=1,
        token_delay_ms=2,
        output_tokens=3,
        cached_tokens=4,
        cache_write_tokens=5,
        reasoning_tokens=6,
        error=Fault.RATE_LIMITED,
        error_rate=7,
    )


def test_knobs_that_are_not_named_stay_where_they_are() -> None:
    assert turn(Knobs(latency_ms=5, output_tokens=9), "latency_ms=6") == Knobs(latency_ms=6, output_tokens=9)


def test_error_none_takes_an_error_back() -> None:
    assert turn(Knobs(error=Fault.CUT, error_rate=5), "error=none").error is None


def test_an_error_asked_for_by_a_request_is_not_subject_to_the_rate_of_the_settings() -> None:
    assert turn(Knobs(error=Fault.CUT, error_rate=5), "error=500") == Knobs(error=Fault.INTERNAL)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("latency=5", "'latency' is no knob"),
        ("latency_ms", "latency_ms: '' is not a whole number from 0 to 600000"),
        ("latency_ms=600001", "latency_ms: '600001' is not a whole number"),
        ("output_tokens=-1", "output_tokens: '-1' is not"),
        ("output_tokens=1e3", "output_tokens: '1e3' is not"),
        ("error=418", "error: '418' is none of 400, 401"),
        ("error_rate=50", "error_rate: says nothing without an error"),
        ("error=cut error_rate=101", "error_rate: '101' is not"),
    ],
)
def test_invalid_knob_is_refused_with_its_name_and_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidKnobsError, match=reason):
        turn(Knobs(), text)


def test_all_invalid_knobs_are_named_at_once() -> None:
    with pytest.raises(InvalidKnobsError, match=r"colour.*latency_ms"):
        turn(Knobs(), "colour=red latency_ms=soon")


def test_directive_is_taken_out_of_the_text() -> None:
    assert take_directives("Hello [[sim output_tokens=5 error=cut]]") == ("Hello", " output_tokens=5 error=cut")
    assert take_directives("[[sim]] Hi") == (" Hi", "")
    assert take_directives("[[sim a=1]] Hi [[sim b=2]]") == (" Hi", " a=1  b=2")


@pytest.mark.parametrize("text", ["Hello", "[[simple]]", "[[sim latency_ms=1", "[sim latency_ms=1]"])
def test_text_without_a_directive_stays_as_it_is(text: str) -> None:
    assert take_directives(text) == (text, "")


@given(st.text(max_size=60))
def test_no_text_fails_in_another_way_than_by_name(text: str) -> None:
    with contextlib.suppress(InvalidKnobsError):
        turn(Knobs(), text)


def test_error_rate_strikes_that_share_of_requests_and_always_the_same_ones() -> None:
    knobs = Knobs(error=Fault.INTERNAL, error_rate=20)
    digests = [fingerprint([str(number)]) for number in range(2000)]

    struck = [digest for digest in digests if knobs.fault(digest)]

    assert 320 <= len(struck) <= 480
    assert struck == [digest for digest in digests if knobs.fault(digest)]


def test_faults_that_are_statuses_know_theirs() -> None:
    assert Fault.OVERLOADED.status == 529
    assert Fault.CUT.status is None
