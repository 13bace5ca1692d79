"""Somebody with a key, and what the gateway answers."""

from collections.abc import Mapping
from typing import Any

import aiohttp

from gateway_core.contract import Header
from tests.support.stack import Stack


class Answer:
    """What a client gets."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def cache(self) -> str | None:
        return self.headers.get(Header.CACHE)

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]


class Client:
    """Somebody with a key."""

    def __init__(self, session: aiohttp.ClientSession, stack: Stack, key: str) -> None:
        self._session, self._stack, self._key = session, stack, key

    async def ask(self, body: Mapping[str, Any], path: str = "/v1/chat/completions", **headers: str) -> Answer:
        async with self._session.post(
            self._stack.url + path, json=body, headers={"Authorization": f"Bearer {self._key}", **headers}
        ) as got:
            names = {name.lower(): value for name, value in got.headers.items()}
            return Answer(got.status, names, await got.read())
