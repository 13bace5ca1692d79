"""Where a request comes from: the connection says, and behind a proxy that is trusted, its `X-Forwarded-For`. Pure.

Envoy reads the same setting the same way for the requests it carries (`control_plane/xds/listeners.py`).
"""

from collections.abc import Sequence

from gateway_core.networks import Network, is_in_any, parse_address


def client_address(connected: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The nearest address that is no trusted proxy's; if all are, the farthest of them.

    What cannot be read is nobody's word: then it is the connection's.

    Args:
        connected: the other end of the connection.
        forwarded: the values of the header, in their order.
        trusted: the networks of the proxies that write it.
    """
    named = [entry for value in forwarded for entry in value.split(",")]
    try:
        address = parse_address(connected)
        while named and is_in_any(address, trusted):
            address = parse_address(named.pop().strip())
    except ValueError:
        return connected
    return str(address)
