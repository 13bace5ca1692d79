"""Where a provider or a webhook may be, judged before it is written: we send requests there, to providers with credentials. Pure.

It keeps whoever may write one from reaching through us what only we can reach. A name may mean something else later, so both are judged
once more when they are connected to: a webhook here, a provider by Envoy, which has the list (`refused_networks`).
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_network
from typing import Final

from control_plane.catalog.model import InvalidBaseUrlError, check_base_url

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

Resolve = Callable[[str], Awaitable[Sequence[Address]]]
"""All addresses of a name; none if it cannot be resolved now."""

# One way to write each URL, so that nobody who reads it after us can take it for another one: no userinfo, no backslash, no
# character that parsers drop or fold. Port and scheme are check_base_url's.
_URL: Final = re.compile(
    r"""
    (?P<scheme>https?)://
    (?: \[ (?P<v6>[0-9A-Fa-f:.]+) \] | (?P<host>[0-9A-Za-z._-]+) )
    (?: : [0-9]{1,5} )?
    (?: / [!"$->@-\[\]-~]* )?  # printable ASCII without space # ? \
    """,
    re.VERBOSE,
)
_LABEL: Final = re.compile(r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?")
_NAME_CHARACTERS_MAX: Final = 253
# What inet_aton takes for a number: then all of the host is an IPv4 address in one of its spellings.
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")

# Under their names as well: where we are, they may not resolve.
_METADATA_NAMES: Final = frozenset(
    {
        "instance-data",
        "instance-data.ec2.internal",
        "metadata",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.tencentyun.com",
    }
)
# Names that never mean a public host: RFC 6761, 6762, 8375, and `internal`, which ICANN keeps for private use.
_PRIVATE_SUFFIXES: Final = (".localhost", ".local", ".home.arpa", ".internal")

PRIVATE_NETWORKS: Final[tuple[IPv4Network | IPv6Network, ...]] = tuple(
    map(
        ip_network,
        ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"),
    )
)
"""Loopback and private use."""

FORBIDDEN_NETWORKS: Final[tuple[IPv4Network | IPv6Network, ...]] = tuple(
    map(
        ip_network,
        (
            # "This" network, link-local (where most clouds answer), multicast, reserved with broadcast.
            *("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
            # Set aside for protocols, documentation, the 6to4 relays, benchmarks.
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
            # Metadata of Alibaba, and of Azure's platform.
            *("100.100.100.200/32", "168.63.129.16/32"),
            # Metadata of AWS and of Google. They lie within fc00::/7.
            *("fd00:ec2::/32", "fd20:ce::254/128"),
            # Within 2000::/3: Teredo and other protocols, documentation, 6to4.
            *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
        ),
    )
)
"""Nobody's, whoever allows what. They win over the private ones."""

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
"""All that IANA has given out; IPv6 outside of it and of the private networks is nobody's either."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
_MAPPED: Final = IPv6Network("::ffff:0:0/96")

ASSIGNED_V6: Final = (
    *(_GLOBAL_UNICAST, _NAT64, _MAPPED),
    *(network for network in PRIVATE_NETWORKS if isinstance(network, IPv6Network)),
)
"""IPv6 that is somebody's, or stands for IPv4."""


class RefusedAddressError(InvalidBaseUrlError):
    """A URL that can be read, of a place where nothing of ours may go. The message does not quote it."""


async def check_provider_address(url: str, *, private_allowed: bool, resolve: Resolve) -> None:
    """Refuse a base URL that must not be written.

    Args:
        url: as it will be stored.
        private_allowed: whether providers may be on loopback or in a private network, and be reached without TLS: over the
            internet, plain HTTP would show the credential to everybody on the way.
        resolve: asked if the host is a name. A name without an address now is accepted; Envoy may know it.

    Raises:
        InvalidBaseUrlError: it is none, or not in the one way we write it.
        RefusedAddressError: no provider may be there.
    """
    name = check_url(url, private_allowed=private_allowed)
    if name is not None:
        for each in await resolve(name):
            check_address(each, private_allowed=private_allowed)


def check_url(url: str, *, private_allowed: bool) -> str | None:
    """Refuse a URL for what it says; returns the name of its host, which may mean anything, or None for an address.

    Raises:
        InvalidBaseUrlError, RefusedAddressError: as for `check_provider_address`.
    """
    check_base_url(url)
    parts = _URL.fullmatch(url)
    if parts is None:
        raise InvalidBaseUrlError("the URL must be http(s)://host[:port][/path], in plain characters")
    if parts["scheme"] != "https" and not private_allowed:
        raise RefusedAddressError("the URL must begin with https://")
    address = _v6(parts["v6"]) if parts["v6"] else _v4(parts["host"])
    if address is not None:
        check_address(address, private_allowed=private_allowed)
        return None
    name = parts["host"]
    _check_name(name.lower(), private_allowed=private_allowed)
    return name


def _v6(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except ValueError:
        raise InvalidBaseUrlError("the host of the URL is no IPv6 address") from None


def _v4(host: str) -> IPv4Address | None:
    """The address that a host is, or None if it is a name."""
    if not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return None
    try:
        return IPv4Address(host)
    except ValueError:
        raise InvalidBaseUrlError("an IPv4 address must be written as four decimal numbers") from None


def _check_name(name: str, *, private_allowed: bool) -> None:
    if len(name) > _NAME_CHARACTERS_MAX or not all(map(_LABEL.fullmatch, name.split("."))):
        raise InvalidBaseUrlError("the host of the URL is not a name")
    if name in _METADATA_NAMES:
        raise RefusedAddressError("nothing may be reached where a cloud keeps its metadata")
    if not private_allowed and ("." not in name or name.endswith(_PRIVATE_SUFFIXES)):
        raise RefusedAddressError("the URL names a host of a private network, which this installation does not allow")


def check_address(address: Address, *, private_allowed: bool) -> None:
    """Refuse an address where nothing of ours may go.

    Raises:
        RefusedAddressError: it is one.
    """
    address = _embedded(address)
    is_private = any(address in network for network in PRIVATE_NETWORKS)
    is_assigned = is_private or isinstance(address, IPv4Address) or address in _GLOBAL_UNICAST
    if not is_assigned or any(address in network for network in FORBIDDEN_NETWORKS):
        raise RefusedAddressError("the URL leads to an address where nothing may be reached")
    if is_private and not private_allowed:
        raise RefusedAddressError("the URL leads to a private network, which this installation does not allow")


def refused_networks(*, private_allowed: bool) -> tuple[Network, ...]:
    """Networks that `check_address` refuses, with those of IPv6 that stand for them. Of IPv6 it refuses what is not in `ASSIGNED_V6` too."""
    named = (*FORBIDDEN_NETWORKS, *(() if private_allowed else PRIVATE_NETWORKS))
    v4 = [network for network in named if isinstance(network, IPv4Network)]
    v6 = [network for network in named if isinstance(network, IPv6Network)]
    v6 += [
        IPv6Network((int(prefix[0]) | int(network[0]), prefix.prefixlen + network.prefixlen))
        for prefix in (_NAT64, _MAPPED)
        for network in v4
    ]
    return (*collapse_addresses(v4), *collapse_addresses(v6))


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for: by mapping, or for a network that has no IPv4 of its own.

    Other forms that hold one (compatible, 6to4, Teredo) are in no use any more, and refused as they are.
    """
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
        return address.ipv4_mapped or address
    return address
