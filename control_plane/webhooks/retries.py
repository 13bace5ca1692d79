"""When an attempt is made again: after as long again as it has waited so far, from seconds to half a day, for three days. Pure."""

from datetime import timedelta
from typing import Final

WAIT_MIN: Final = timedelta(seconds=5)
WAIT_MAX: Final = timedelta(hours=12)
GIVE_UP_AFTER: Final = timedelta(days=3)
JITTER: Final = 0.2
"""By how much of itself a wait is longer or shorter, so that what failed together does not come back together."""


def retry_after(waited: timedelta, fraction: float) -> timedelta | None:
    """How long to wait after an attempt that has failed; None to give up.

    Args:
        waited: since the first attempt.
        fraction: at random, from 0 to below 1.
    """
    left = GIVE_UP_AFTER - waited
    if left <= timedelta():
        return None
    # From what has passed and not from a count: time that nobody was there to try in is time waited, too.
    wait = min(max(waited, WAIT_MIN), WAIT_MAX)
    return min(wait * (1 + JITTER * (2 * fraction - 1)), left)
