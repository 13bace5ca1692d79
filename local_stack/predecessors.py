"""What a supervisor that was killed has left running. Its children end by themselves, some only after a last write."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable

from local_stack.state import ServiceStatus, born

_GRACE_S = 3.0
_POLL_S = 0.02


async def outlive(statuses: Iterable[ServiceStatus]) -> None:
    """Wait until the processes of an earlier run have ended, and kill those that do not.

    Without this a start right after a kill finds its own ports taken, and moves to others.
    """
    left = [status for status in statuses if status.pid is not None]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_S):
            while left := [status for status in left if _runs(status)]:  # noqa: ASYNC110 - not our children
                await asyncio.sleep(_POLL_S)
    for status in left:
        if status.pid is not None and _runs(status):
            os.kill(status.pid, signal.SIGKILL)


def _runs(status: ServiceStatus) -> bool:
    return status.pid is not None and status.born is not None and born(status.pid) == status.born
