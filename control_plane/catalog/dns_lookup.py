"""Names to addresses, as this machine resolves them."""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

LOOKUP_S_MAX: Final = 3.0


async def resolve_host(name: str) -> Sequence[IPv4Address | IPv6Address]:
    """All addresses of a name; none if it has none, or if nobody says so in time."""
    try:
        async with asyncio.timeout(LOOKUP_S_MAX):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # TimeoutError is an OSError; UnicodeError: longer labels than DNS has
        return ()
    return tuple({ip_address(address[0]) for *_, address in found})
