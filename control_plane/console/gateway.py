"""The gateway as the playground asks it: one streamed chat, passed on as it comes."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from pydantic import SecretStr

from control_plane.errors import GatewayUnavailableError
from gateway_core.contract import Header

CONNECTIONS_MAX: Final = 32
"""Answers that are passed on at once."""
_CONNECT_S: Final = 5
"""For a connection of these to be free, and to be made."""
_SILENT_S: Final = 300
"""As long as a provider may be silent, unless this installation says otherwise."""


@asynccontextmanager
async def gateway_http() -> AsyncIterator[aiohttp.ClientSession]:
    """The client for it: no cookies, no redirects to follow, no bound on how long an answer takes in all."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
        timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_read=_SILENT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as http:
        yield http


@asynccontextmanager
async def chat(
    http: aiohttp.ClientSession, url: str, key: SecretStr, body: Mapping[str, object]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer to a chat, whatever its status, from its first byte on. Leaving the block hangs up.

    Raises:
        GatewayUnavailableError: nobody answers.
    """
    headers = {Header.AUTHORIZATION: f"Bearer {key.get_secret_value()}"}
    asking = http.post(f"{url}/v1/chat/completions", json=body, headers=headers, allow_redirects=False)
    try:
        response = await asking
    except (aiohttp.ClientConnectionError, TimeoutError) as error:
        raise GatewayUnavailableError from error
    async with response:
        yield response
