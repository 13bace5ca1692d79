"""Networks that a setting names, and the addresses in them. Pure."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def parse_address(text: str) -> Address:
    """Read an address; an IPv4 address that is written as IPv6 is the IPv4 address.

    Raises:
        ValueError: it is none.
    """
    address = ip_address(text)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read `10.0.0.0/8,2001:db8::/32`; a bare address is a network of one.

    Raises:
        ValueError: an entry is no network, or has host bits.
    """
    return tuple(ip_network(entry.strip()) for entry in text.split(",")) if text.strip() else ()


def is_in_any(address: Address, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks."""
    return any(address in network for network in networks)


def _from_text(value: object) -> object:
    return parse_networks(value) if isinstance(value, str) else value


Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_from_text)]
"""A setting written as `10.0.0.0/8,2001:db8::/32`."""
