"""Where a request comes from, beside what anybody may write into a header."""

import pytest

from control_plane.api.client_address import client_address
from gateway_core.networks import parse_networks

PROXIES = parse_networks("10.0.0.0/8, 2001:db8::/32, 192.0.2.7")


def test_without_trusted_proxies_no_header_counts() -> None:
    assert client_address("10.0.0.1", ["203.0.113.7"], ()) == "10.0.0.1"


@pytest.mark.parametrize(
    ("connected", "forwarded", "expected"),
    [
        pytest.param("198.51.100.1", ["203.0.113.7"], "198.51.100.1", id="who is not trusted is not believed"),
        pytest.param("10.0.0.1", [], "10.0.0.1", id="a proxy that says nothing"),
        pytest.param("10.0.0.1", ["203.0.113.7"], "203.0.113.7", id="a proxy"),
        pytest.param("10.0.0.1", ["203.0.113.7, 198.51.100.1"], "198.51.100.1", id="the client wrote the first"),
        pytest.param("10.0.0.1", ["203.0.113.7", "198.51.100.1"], "198.51.100.1", id="in a header of its own"),
        pytest.param("10.0.0.1", ["203.0.113.7, 192.0.2.7,10.9.9.9"], "203.0.113.7", id="proxies in a row"),
        pytest.param("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3", id="nobody but proxies"),
        pytest.param("2001:db8::1", ["2001:DB9::7"], "2001:db9::7", id="IPv6"),
        pytest.param("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7", id="IPv4 as IPv6"),
        pytest.param("10.0.0.1", ["nonsense"], "10.0.0.1", id="no address"),
        pytest.param("10.0.0.1", ["203.0.113.7, "], "10.0.0.1", id="nothing behind the comma"),
        pytest.param("unknown", ["203.0.113.7"], "unknown", id="no connection to speak of"),
    ],
)
def test_the_nearest_address_that_is_no_trusted_proxys_counts(
    connected: str, forwarded: list[str], expected: str
) -> None:
    assert client_address(connected, forwarded, PROXIES) == expected
