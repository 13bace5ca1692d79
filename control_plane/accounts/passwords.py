"""Passwords: argon2id, two at a time and in threads of their own, because each takes memory and a core on purpose."""

import asyncio
from concurrent.futures import Executor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

AT_ONCE_MAX: Final = 2


class Passwords:
    """Hashes and checks.

    Attributes:
        threads: `AT_ONCE_MAX` of them, which nobody else keeps busy: a log-in waits for log-ins and for nothing else.
    """

    def __init__(self, hasher: PasswordHasher, threads: Executor) -> None:
        self._hasher = hasher
        self._threads = threads
        self._nobody = hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """What is stored: parameters, salt and digest."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._hasher.hash, password)

    async def is_right(self, password: str, stored: str | None) -> bool:
        """Whether a password fits. For a user that does not exist (None) it takes as long to say no."""
        loop = asyncio.get_running_loop()
        fits = await loop.run_in_executor(self._threads, self._verify, stored or self._nobody, password)
        return fits and stored is not None

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (Argon2Error, InvalidHashError):
            return False
