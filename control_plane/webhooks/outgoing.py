"""The HTTP client of webhooks, and of probes: it goes to strangers' addresses, so it judges each one at the moment it connects.

A name means what its owner says, and something else a second later. So what counts is not what it meant when the webhook was
written, but the address that a socket is about to be connected to.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from ipaddress import ip_address
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from control_plane.catalog.addresses import RefusedAddressError, check_address

ATTEMPT_S: Final = 10.0
BUFFER_BYTES: Final = 4 * 1024
"""How much of an answer is taken in. Its status is all that is looked at."""
LOOKUPS_MAX: Final = 4


class ForbiddenAddressError(OSError):
    """The address behind a name is none where a webhook may be."""


class OwnThreads(AbstractResolver):
    """Looks names up on a few threads of its own: strangers' name servers that never answer hold up webhooks and nothing else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS_MAX, thread_name_prefix="webhook_lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """All addresses of a name."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        )
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=proto, flags=0)
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Let the threads end, each when its lookup does."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def webhook_http(
    *, private_allowed: bool, resolver: Callable[[], AbstractResolver] = OwnThreads
) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
    """The client for all webhooks."""
    headers = {"User-Agent": "Tollgate-Webhooks", "Content-Type": "application/json"}
    return judging_http(headers, private_allowed=private_allowed, resolver=resolver)


@asynccontextmanager
async def judging_http(
    headers: Mapping[str, str], *, private_allowed: bool, resolver: Callable[[], AbstractResolver] = OwnThreads
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client without cookies and proxies of the environment, each of whose connections is for one attempt.

    What leads to where nobody may be fails with a `ForbiddenAddressError` inside aiohttp's error.
    """
    looking = resolver()
    connector = aiohttp.TCPConnector(
        resolver=looking,
        use_dns_cache=False,
        force_close=True,
        socket_factory=_judging(private_allowed=private_allowed),
    )
    try:
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=ATTEMPT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            read_bufsize=BUFFER_BYTES,
            auto_decompress=False,
        ) as http:
            yield http
    finally:
        await looking.close()


def _judging(*, private_allowed: bool) -> Callable[[aiohttp.AddrInfoType], socket.socket]:
    def make_socket(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, proto, _, address = info
        try:
            check_address(ip_address(address[0]), private_allowed=private_allowed)
        except RefusedAddressError as error:
            raise ForbiddenAddressError(str(error)) from error
        return socket.socket(family, kind, proto)

    return make_socket
