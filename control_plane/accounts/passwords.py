"""Passwords: argon2id, two at a time and beside the event loop, because each takes memory and a core on purpose."""

import asyncio
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

AT_ONCE_MAX: Final = 2


class Passwords:
    """Hashes and checks."""

    def __init__(self, hasher: PasswordHasher) -> None:
        self._hasher = hasher
        self._at_once = asyncio.Semaphore(AT_ONCE_MAX)
        self._nobody = hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """What is stored: parameters, salt and digest."""
        async with self._at_once:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def is_right(self, password: str, stored: str | None) -> bool:
        """Whether a password fits. For a user that does not exist (None) it takes as long to say no."""
        async with self._at_once:
            fits = await asyncio.to_thread(self._verify, stored or self._nobody, password)
        return fits and stored is not None

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (Argon2Error, InvalidHashError):
            return False
