"""Whether what all processes count together can be had: those who ask wait for a turn, and it is left alone for a moment when it fails."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Gauge

from gateway_core.clock import Monotonic
from gateway_core.logs import Logger

T = TypeVar("T")

ASK_AGAIN_S: Final = 1.0
"""How long the shared counts are left alone after they could not be had."""
AT_ONCE_MAX: Final = 16
"""More wait for their turn here: that many ask at once is no trouble of theirs."""


class CountsUnavailableError(Exception):
    """What counts for all is down or slow; the message is the kind of trouble."""


class NotSharedError(Exception):
    """Each process counts alone for now."""


class SharedCounts:
    """One for all that is counted there."""

    def __init__(self, *, is_there: bool, monotonic: Monotonic, registry: CollectorRegistry, log: Logger) -> None:
        self._monotonic = monotonic
        self._log = log
        self._left_alone_until_s = float("-inf") if is_there else float("inf")
        # Who waits here sees, when it is its turn, whether those before it have found anybody.
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)
        self._is_shared = Gauge(
            "tollgate_ext_authz_limits_shared",
            "1 while limits are counted for all processes together, 0 while each has its share",
            registry=registry,
        )
        self._is_shared.set(is_there)

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """The answer to a question that may raise `CountsUnavailableError`.

        Raises:
            NotSharedError: nobody can be asked now.
        """
        async with self._turns:
            if self._monotonic() < self._left_alone_until_s:
                raise NotSharedError
            try:
                answer = await question()
            except CountsUnavailableError as error:
                self._left_alone_until_s = self._monotonic() + ASK_AGAIN_S
                self._is_shared.set(0)
                self._log.warning("limits_not_shared", error=str(error))
                raise NotSharedError from error
            self._is_shared.set(1)
            return answer

    async def tell(self, word: Callable[[], Awaitable[None]]) -> bool:
        """The same of what has no answer. False if nobody can be told now."""
        try:
            await self.ask(word)
        except NotSharedError:
            return False
        return True
