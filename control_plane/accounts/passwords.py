"""Passwords: argon2id, two at a time and in threads of their own, because each takes memory and a core on purpose.

Who comes while both threads work waits, holding no connection; who would have to wait behind many is sent away at once.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from control_plane.errors import ThrottledError

AT_ONCE_MAX: Final = 2
WAITING_MAX: Final = 64
"""Some two seconds of work."""
RETRY_AFTER_S: Final = 5

P = ParamSpec("P")
T = TypeVar("T")


class Passwords:
    """Hashes and checks.

    Attributes:
        threads: `AT_ONCE_MAX` of them, which nobody else keeps busy: a log-in waits for log-ins and for nothing else.
    """

    def __init__(self, hasher: PasswordHasher, threads: Executor) -> None:
        self._hasher = hasher
        self._threads = threads
        self._present = 0
        self._nobody = hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """What is stored: parameters, salt and digest.

        Raises:
            ThrottledError: too many are waiting.
        """
        return await self._do(self._hasher.hash, password)

    async def is_right(self, password: str, stored: str | None) -> bool:
        """Whether a password fits. For a user that does not exist (None) it takes as long to say no.

        Raises:
            ThrottledError: too many are waiting.
        """
        fits = await self._do(self._verify, stored or self._nobody, password)
        return fits and stored is not None

    async def _do(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._present >= AT_ONCE_MAX + WAITING_MAX:
            raise ThrottledError(RETRY_AFTER_S)
        self._present += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))
        finally:
            self._present -= 1

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (Argon2Error, InvalidHashError):
            return False
