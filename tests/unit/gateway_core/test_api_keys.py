import re
import zlib
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway_core.api_keys import (
    LIVE_PREFIX,
    MACHINE_PREFIX,
    OPERATOR_PREFIX,
    TEST_PREFIX,
    ApiKey,
    bearer_token,
    hash_key,
    is_well_formed,
    new_key,
)
from gateway_core.ids import KeyId, OrgId, ProjectId

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIXES = [LIVE_PREFIX, TEST_PREFIX, MACHINE_PREFIX, OPERATOR_PREFIX]

KEYS = st.builds(
    lambda prefix, random: new_key(prefix, lambda _: random).get_secret_value(),
    st.sampled_from(PREFIXES),
    st.binary(min_size=32, max_size=32),
)


def base62(number: int, length: int) -> str:
    return "".join(ALPHABET[number // 62**place % 62] for place in reversed(range(length)))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_key_is_its_prefix_and_forty_nine_plain_characters(prefix: str) -> None:
    key = new_key(prefix, lambda count: b"\xab" * count).get_secret_value()
    assert re.fullmatch(re.escape(prefix) + "[0-9A-Za-z]{49}", key)


def test_a_key_draws_256_random_bits_and_holds_them_all() -> None:
    drawn: list[int] = []

    def random_bytes(count: int) -> bytes:
        drawn.append(count)
        return b"\xff" * count

    key = new_key(LIVE_PREFIX, random_bytes).get_secret_value()
    assert drawn == [32]
    assert key[len(LIVE_PREFIX) :][:43] == base62(2**256 - 1, 43)


@given(KEYS)
def test_every_new_key_is_well_formed(key: str) -> None:
    assert is_well_formed(key)


@given(KEYS, st.data())
def test_a_single_changed_character_is_always_noticed(key: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.sampled_from(ALPHABET + "-_ \u00e9").filter(lambda character: character != key[place]))
    assert not is_well_formed(key[:place] + other + key[place + 1 :])


@given(KEYS, st.data())
def test_two_swapped_neighbours_are_always_noticed(key: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(len(key) - 49, len(key) - 2).filter(lambda n: key[n] != key[n + 1]))
    assert not is_well_formed(key[:place] + key[place + 1] + key[place] + key[place + 2 :])


@given(KEYS)
def test_a_key_cut_short_or_with_something_behind_it_is_not_well_formed(key: str) -> None:
    assert not is_well_formed(key[:-1])
    assert not is_well_formed(key + "0")
    assert not is_well_formed(key + "\n")


@pytest.mark.parametrize("text", ["", "sk-tg-live-", "sk-proj-" + "0" * 49, "sk-tg-live-" + "0" * 49, "\ud800"])
def test_what_was_never_a_key_is_not_well_formed(text: str) -> None:
    assert not is_well_formed(text)


@pytest.mark.parametrize("character", ["!", "-", "\x00", "\u00e9"])
def test_a_right_checksum_over_foreign_characters_does_not_make_a_key(character: str) -> None:
    text = LIVE_PREFIX + character * 43
    assert not is_well_formed(text + base62(zlib.crc32(text.encode()), 6))


def test_a_key_does_not_show_itself() -> None:
    key = new_key(LIVE_PREFIX, bytes)
    assert key.get_secret_value() not in f"{key!r} {key}"


def test_the_hash_depends_on_every_part_of_the_key_and_on_the_pepper() -> None:
    pepper = SecretStr("pepper")
    hashes = {
        hash_key("sk-tg-live-a", pepper),
        hash_key("sk-tg-live-b", pepper),
        hash_key("sk-tg-test-a", pepper),
        hash_key("sk-tg-live-a", SecretStr("Pepper")),
    }
    assert len(hashes) == 4
    assert {len(each) for each in hashes} == {32}


def test_the_same_key_under_the_same_pepper_has_the_same_hash_for_ever() -> None:
    # Stored hashes outlive every version of this code.
    expected = "9a6f2af8956a14709e65e23ae9efd2a540cedf1a1e364e8e3d258824728659eb"
    assert hash_key("sk-tg-live-a", SecretStr("pepper")).hex() == expected


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER   abc ", "abc"),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", None),
        ("abc", None),
        ("", None),
        (None, None),
    ],
)
def test_a_bearer_token_is_found_whatever_the_case_of_the_scheme(header: str | None, token: str | None) -> None:
    assert bearer_token(header) == token


@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("2001:db8::1", True),
        ("192.0.3.1", False),
        ("2001:db9::1", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_a_key_with_networks_may_come_from_these_only(address: str, admitted: bool) -> None:
    networks = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
    key = ApiKey(KeyId("k"), OrgId("o"), ProjectId("p"), (), is_disabled=False, expires_at=None, ip_allowed=networks)
    assert key.may_come_from(address) is admitted
    assert replace(key, ip_allowed=()).may_come_from(address)
