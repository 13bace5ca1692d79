"""How often somebody may try, with and without the shared counters."""

import pytest

from control_plane.accounts.throttle import CountersUnavailableError, Limit, LocalCounters, Throttle
from control_plane.errors import ThrottledError
from tests.support.logs import QUIET

LIMIT = Limit("test", 2, 60)


class Away:
    """Shared counters that cannot be reached."""

    async def add(self, key: str, window_s: int) -> tuple[int, int]:  # noqa: ARG002 - the Protocol's
        raise CountersUnavailableError("away")

    async def forget(self, key: str) -> None:  # noqa: ARG002 - the Protocol's
        raise CountersUnavailableError("away")


@pytest.mark.parametrize("shared", [None, Away()])
async def test_one_too_many_waits_for_the_end_of_the_window(shared: Away | None) -> None:
    now = 0.0
    throttle = Throttle(shared, LocalCounters(lambda: now), QUIET)
    for _ in range(2):
        await throttle.attempt(LIMIT, "Ada")
    now = 50.0
    with pytest.raises(ThrottledError) as caught:
        await throttle.attempt(LIMIT, "ada")
    assert caught.value.retry_after_s == 10
    await throttle.attempt(LIMIT, "bob")
    now = 60.0
    await throttle.attempt(LIMIT, "ada")


@pytest.mark.parametrize("shared", [None, Away()])
async def test_a_subject_that_is_forgiven_begins_again(shared: Away | None) -> None:
    throttle = Throttle(shared, LocalCounters(lambda: 0.0), QUIET)
    for _ in range(3):
        await throttle.attempt(LIMIT, "ada")
        await throttle.forgive(LIMIT, "ada")
