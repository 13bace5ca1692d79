"""Time, passed in. The only module that reads a clock."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Now = Callable[[], datetime]
"""Returns the present moment, in UTC and aware."""

Monotonic = Callable[[], float]
"""Returns seconds that never go backwards; for durations and expiries inside one process."""


def utc_now() -> datetime:
    """The present moment by the system's clock."""
    return datetime.now(tz=UTC)  # noqa: TID251 - here it is read


monotonic: Monotonic = time.monotonic
