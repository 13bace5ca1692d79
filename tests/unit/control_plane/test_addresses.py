"""Where a provider may be, in every spelling of where it may not."""

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.catalog.addresses import Address, RefusedAddressError, check_provider_address
from control_plane.catalog.dns_lookup import resolve_host
from control_plane.catalog.model import InvalidBaseUrlError, check_base_url


def check(url: str, *answers: str, private_allowed: bool = False) -> None:
    """With names that mean these addresses."""

    async def resolve(_name: str) -> Sequence[Address]:
        return [ip_address(answer) for answer in answers]

    asyncio.run(check_provider_address(url, private_allowed=private_allowed, resolve=resolve))


def host_in(address: Address) -> str:
    return f"[{address}]" if isinstance(address, IPv6Address) else str(address)


NAT64 = ip_network("64:ff9b::/96")

PUBLIC = ["8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "2606:4700::1111"]

PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("100.64.0.1", "100.127.255.255", "::1", "fc00::1", "fd12:3456::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:7f00:1", "64:ff9b::10.0.0.1"),
]

NEVER = [
    # Unspecified, link-local, multicast, broadcast, reserved.
    *("0.0.0.0", "0.1.2.3", "169.254.0.1", "169.254.169.254", "224.0.0.1", "239.255.255.250", "240.0.0.1"),  # noqa: S104 - nothing binds
    *("255.255.255.255", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1"),
    *("::", "fe80::1", "febf::1", "fec0::1", "ff02::1", "100::1", "2001:db8::1", "3fff::1", "4000::1", "5f00::1"),
    # Metadata.
    *("100.100.100.200", "168.63.129.16", "169.254.170.2", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
    # The same within IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo.
    *("::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "::ffff:100.100.100.200", "::ffff:0.0.0.0"),
    *("::169.254.169.254", "::127.0.0.1", "::ffff:0:169.254.169.254"),
    *("64:ff9b::169.254.169.254", "64:ff9b::6464:64c8", "64:ff9b:1::169.254.169.254"),
    *("2002:a9fe:a9fe::1", "2002:7f00:1::1", "2001:0:a9fe:a9fe::1", "2001::1"),
]

UNWRITABLE = [
    # Schemes, and what is no URL at all.
    *("", "//example.com", "ftp://example.com/v1", "file:///etc/passwd", "gopher://example.com", "example.com/v1"),
    *(
        "HTTPS://example.com",
        "https:/example.com",
        "https:///v1",
        "https://",
        "https://:443/v1",
        " https://example.com",
    ),
    # Userinfo, query, fragment, even empty ones.
    *("https://user@example.com", "https://user:pw@example.com", "https://@example.com", "https://example.com@8.8.8.8"),
    *("https://example.com?", "https://example.com/?a=b", "https://example.com/#", "https://example.com/v1#x"),
    # Ports.
    *("https://example.com:", "https://example.com:0", "https://example.com:65536", "https://example.com:-1"),
    *(
        "https://example.com:99999999",
        "https://example.com:8o",
        "https://example.com:443:443",
        "https://example.com:+1",
    ),
    # What parsers disagree about.
    *("https://example.com\\@8.8.8.8", "https://example.com/\\..", "https://exam\tple.com", "https://example.com\n"),
    *("https://example.com/a b", "https://exa mple.com", "https://example.com/\x00", "https://example.com/é"),
    *(
        "https://[::1",
        "https://::1/",
        "https://[::1]x/",
        "https://x[::1]/",
        "https://[127.0.0.1]/",
        "https://[fe80::1%25eth0]",
    ),
    *("https://[1:2:3]", "https://[::ffff:127.1]", "https://[]"),
    # Other spellings of IPv4.
    *("https://2130706433", "https://2852039166", "https://0x7f000001", "https://0x7f.1", "https://0X7F.0.0.1"),
    *("https://0177.0.0.1", "https://017700000001", "https://127.1", "https://127.0.1", "https://0", "https://0x"),
    *("https://127.0.0.01", "https://1.2.3.4.5", "https://256.1.1.1", "https://127.0.0.1.", "https://1.2.3.0x4"),
    # Names in other clothes.
    *("https://localhost.", "https://example.com.", "https://.example.com", "https://example..com", "https://."),
    *("https://%31%32%37.0.0.1", "https://example%2ecom", "https://localhost%00.example.com"),
    *("https://\uff11\uff12\uff17.0.0.1", "https://①②⑦.0.0.1", "https://127。0。0。1", "https://ｌocalhost"),  # noqa: RUF001 - full-width on purpose
    *("https://exämple.com", "https://ex\u00adample.com", "https://-example.com", "https://example-.com"),
    *("https://" + "a" * 64 + ".com", "https://" + "a.b." * 64 + "com"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_accepted_as_itself_and_behind_a_name(address: str) -> None:
    check(f"https://{host_in(ip_address(address))}:8443/v1")
    check("https://provider.example/v1", address)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_accepted_where_that_is_allowed(address: str) -> None:
    for url in (f"http://{host_in(ip_address(address))}:8090/v1", "https://provider.example"):
        check(url, address, private_allowed=True)
    for url in (f"https://{host_in(ip_address(address))}:8090/v1", "https://provider.example"):
        with pytest.raises(RefusedAddressError, match="private network"):
            check(url, "8.8.8.8", address)


@pytest.mark.parametrize("private_allowed", [False, True])
@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_nobodys(address: str, private_allowed: bool) -> None:
    with pytest.raises(RefusedAddressError):
        check(f"https://{host_in(ip_address(address))}/v1", private_allowed=private_allowed)
    with pytest.raises(RefusedAddressError):
        check("https://provider.example", "8.8.8.8", address, private_allowed=private_allowed)


@pytest.mark.parametrize("url", UNWRITABLE)
def test_what_can_be_read_in_two_ways_is_not_written(url: str) -> None:
    for private_allowed in (False, True):
        with pytest.raises(InvalidBaseUrlError):
            check(url, "8.8.8.8", private_allowed=private_allowed)


@pytest.mark.parametrize(
    "host", ["metadata.google.internal", "METADATA.google.internal", "metadata", "metadata.goog", "instance-data"]
)
def test_metadata_is_refused_by_name_even_where_the_name_means_nothing(host: str) -> None:
    for private_allowed in (False, True):
        with pytest.raises(RefusedAddressError):
            check(f"https://{host}/v1", private_allowed=private_allowed)


@pytest.mark.parametrize(
    "host", ["localhost", "api.LOCALHOST", "simulator", "printer.local", "vault.corp.internal", "nas.home.arpa"]
)
def test_a_name_of_a_private_network_is_private_even_where_it_means_nothing(host: str) -> None:
    check(f"http://{host}:8090/v1", private_allowed=True)
    with pytest.raises(RefusedAddressError, match="private network"):
        check(f"https://{host}:8090/v1")


def test_plain_http_is_for_installations_with_private_providers() -> None:
    check("http://api.openai.com/v1", "8.8.8.8", private_allowed=True)
    with pytest.raises(RefusedAddressError, match="https"):
        check("http://api.openai.com/v1", "8.8.8.8")


def test_a_name_that_does_not_resolve_here_is_accepted() -> None:
    check("https://xn--exmple-cua.com/v1")
    check("https://resource_name.provider.example:8443/openai/deployments/gpt-4o")


@pytest.mark.parametrize(
    "url", ["https://secret-host.internal", "http://secret-host.com", "https://secret host", "https://10.1.2.3"]
)
def test_a_refusal_does_not_quote_the_url(url: str) -> None:
    with pytest.raises(InvalidBaseUrlError) as refused:
        check(url, "10.1.2.3")
    assert "secret" not in str(refused.value)
    assert "10.1.2.3" not in str(refused.value)


def spellings(address: IPv4Address) -> set[str]:
    """What inet_aton takes for an address, but for its one accepted spelling."""
    number, parts = int(address), address.packed
    octets = [(str(part), f"0{part:o}", f"0x{part:x}", f"0X{part:04X}") for part in parts]
    return {
        str(number),
        hex(number),
        f"0{number:o}",
        f"{parts[0]}.{number & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
        *(".".join(octets[place][form] for place in range(4)) for form in (1, 2, 3)),
        f"{address}.",
        str(address).replace(".", "。"),
        str(address).replace(".", "%2e"),
        str(address).translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)}),
    }


@given(st.ip_addresses(v=4), st.booleans())
def test_only_one_spelling_of_an_ipv4_address_is_accepted(address: IPv4Address, private_allowed: bool) -> None:
    for spelling in spellings(address):
        with pytest.raises(InvalidBaseUrlError):
            check(f"https://{spelling}/v1", "8.8.8.8", private_allowed=private_allowed)


@given(st.ip_addresses(v=4), st.booleans())
def test_an_ipv4_address_within_ipv6_opens_no_door_that_is_shut_for_itself(address: IPv4Address, allowed: bool) -> None:
    try:
        check(f"https://{address}", private_allowed=allowed)
    except InvalidBaseUrlError:
        number = int(address)
        forms = {
            "mapped": IPv6Address(int(IPv6Address("::ffff:0:0")) | number),
            "NAT64": IPv6Address(int(IPv6Address("64:ff9b::")) | number),
            "local NAT64": IPv6Address(int(IPv6Address("64:ff9b:1::")) | number),
            "6to4": IPv6Address(int(IPv6Address("2002::")) | number << 80),
            "Teredo server": IPv6Address(int(IPv6Address("2001::")) | number << 64),
            "Teredo client": IPv6Address(int(IPv6Address("2001:0:808:808::")) | number ^ 0xFFFF_FFFF),
        }
        # Not the compatible form: ::0.0.0.1 is loopback.
        for within in forms.values():
            with pytest.raises(InvalidBaseUrlError):
                check(f"https://[{within}]", private_allowed=allowed)


@given(st.ip_addresses())
def test_what_is_accepted_is_global_as_the_standard_library_sees_it(address: Address) -> None:
    try:
        check(f"https://{host_in(address)}")
    except RefusedAddressError:
        return
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address in NAT64):
        return
    assert address.is_global
    assert not address.is_multicast
    assert not address.is_reserved


@given(
    st.from_regex(r"https?://[\x00-\x7f]{1,30}", fullmatch=True)
    | st.builds(
        "".join,
        st.lists(
            st.sampled_from(["https://", "a.com", "[::1]", "127.0.0.1", ":443", "@", "/", "\\", "#", "?", "%00", "."])
        ),
    ),
)
def test_what_is_accepted_is_read_by_others_as_by_us(url: str) -> None:
    try:
        check(url, private_allowed=True)
    except InvalidBaseUrlError:
        return
    check_base_url(url)
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port is None else f":{url.rsplit(':', 1)[1].partition('/')[0]}"
    assert f"{parts.scheme}://{host}{port}{parts.path}".lower() == url.lower()


async def test_this_machine_knows_its_own_name_and_no_invented_one() -> None:
    assert set(await resolve_host("localhost")) <= {ip_address("127.0.0.1"), ip_address("::1")}
    assert await resolve_host("localhost")
    assert not await resolve_host("a" * 64 + ".invalid")
