"""Where whole catalogues are worked on, or what is slow is waited for: in threads of their own, a few at a time, so that everything else goes on meanwhile.

Who comes while all places are taken waits, holding neither a connection nor a lock nor a thread; who would have to wait behind
many is sent away at once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, ParamSpec, TypeVar

from control_plane.errors import ThrottledError

PLACES: Final = 2
WAITING_MAX: Final = 8
RETRY_AFTER_S: Final = 5

P = ParamSpec("P")
T = TypeVar("T")


class Workbench:
    """The places, and the threads behind them.

    Attributes:
        threads: as many as there are places, and used by nobody else.
    """

    def __init__(self, threads: Executor, *, places: int = PLACES, waiting_max: int = WAITING_MAX) -> None:
        self._threads = threads
        self._places = asyncio.Semaphore(places)
        self._present_max = places + waiting_max
        self._present = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place, as soon as there is one.

        Raises:
            ThrottledError: too many are waiting for one.
        """
        if self._present >= self._present_max:
            raise ThrottledError(RETRY_AFTER_S)
        self._present += 1
        try:
            async with self._places:
                yield
        finally:
            self._present -= 1

    async def do(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What pure work comes to, which would hold up the event loop. For who has a place."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))
