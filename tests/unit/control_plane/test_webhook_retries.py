"""When an attempt is made again."""

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.webhooks.retries import GIVE_UP_AFTER, JITTER, WAIT_MAX, WAIT_MIN, retry_after


def attempts(fraction: float) -> list[timedelta]:
    """How long after the first each attempt is made, if all fail at once."""
    made = [timedelta()]
    while (wait := retry_after(made[-1], fraction)) is not None:
        made.append(made[-1] + wait)
    return made


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.999])
def test_attempts_grow_rarer_and_the_last_is_made_after_three_days(fraction: float) -> None:
    made = attempts(fraction)
    assert made[1] <= WAIT_MIN * (1 + JITTER)
    assert made[-1] == GIVE_UP_AFTER
    assert 15 <= len(made) <= 30
    pauses = [after - before for before, after in pairwise(made[:-1])]
    assert all(after >= before * (1 - JITTER) for before, after in pairwise(pauses))


@given(st.timedeltas(timedelta(), timedelta(days=40)), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_within_its_bounds_and_none_leads_beyond_the_end(waited: timedelta, fraction: float) -> None:
    wait = retry_after(waited, fraction)
    if waited >= GIVE_UP_AFTER:
        assert wait is None
        return
    assert wait is not None
    assert timedelta() < wait <= min(WAIT_MAX * (1 + JITTER), GIVE_UP_AFTER - waited)
    assert wait >= min(WAIT_MIN * (1 - JITTER), GIVE_UP_AFTER - waited)
