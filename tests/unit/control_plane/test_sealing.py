"""What is sealed for one purpose opens for that one, with that key or a later one that knows it, unchanged."""

import secrets
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from control_plane.sealing import (
    MalformedKeyError,
    Seal,
    UnreadableSealError,
    idempotent_answer,
    provider_credential,
    signing_key,
)
from gateway_core.ids import ProviderName

OPENAI, ANTHROPIC = (provider_credential(ProviderName(name)) for name in ("openai", "anthropic"))
CREDENTIAL = SecretStr("sk-of-a-provider")
OVERHEAD = 1 + 8 + 12 + 48 + 12 + 16


def key(byte: int) -> str:
    return urlsafe_b64encode(bytes([byte]) * 32).decode()


def seal(byte: int = 0, *before: int) -> Seal:
    return Seal(SecretStr(key(byte)), secrets.token_bytes, before=SecretStr(",".join(map(key, before))))


@given(st.binary())
def test_what_was_sealed_opens_again(content: bytes) -> None:
    sealed = seal().seal(OPENAI, content)
    assert seal().open(OPENAI, sealed) == content
    assert len(sealed) == len(content) + OVERHEAD


@given(st.text().filter(str.isprintable))
def test_a_secret_text_opens_again(text: str) -> None:
    assert seal().open_secret(OPENAI, seal().seal_secret(OPENAI, SecretStr(text))).get_secret_value() == text


def test_sealed_twice_the_same_looks_different_and_shows_nothing() -> None:
    one, other = (seal().seal_secret(OPENAI, CREDENTIAL) for _ in range(2))
    common = len(seal().header)
    assert one[:common] == other[:common]
    assert not {one[place : place + 12] for place in range(common, len(one), 12)} & {
        other[place : place + 12] for place in range(common, len(other), 12)
    }
    assert CREDENTIAL.get_secret_value().encode() not in one


def test_a_value_says_which_key_opens_it_and_nothing_of_the_key() -> None:
    sealed = seal(7).seal(OPENAI, b"content")
    assert sealed.startswith(seal(7).header)
    assert not sealed.startswith(seal(8).header)
    assert bytes([7]) * 4 not in seal(7).header


@pytest.mark.parametrize("purpose", [ANTHROPIC, signing_key("openai"), idempotent_answer("provider", "openai")])
def test_what_was_sealed_for_another_purpose_does_not_open(purpose: str) -> None:
    with pytest.raises(UnreadableSealError):
        seal().open(type(OPENAI)(purpose), seal().seal(OPENAI, b"content"))


def test_the_purpose_is_bound_to_both_layers() -> None:
    """A lock of one row before the content of another opens neither for the one nor for the other."""
    known = seal()
    one, other = known.seal(OPENAI, b"one"), known.seal(ANTHROPIC, b"other")
    lock = OVERHEAD - 12 - 16
    for purpose in (OPENAI, ANTHROPIC):
        with pytest.raises(UnreadableSealError):
            known.open(purpose, one[:lock] + other[lock:])


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(UnreadableSealError, match="openai"):
        seal(2).open(OPENAI, seal(1).seal(OPENAI, b"content"))


def test_every_flipped_bit_and_every_missing_end_is_noticed() -> None:
    sealed = seal().seal(OPENAI, b"content")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        for broken in (bytes(changed), sealed[:place]):
            with pytest.raises(UnreadableSealError):
                seal().open(OPENAI, broken)


def test_an_older_key_still_opens_and_the_current_one_seals() -> None:
    old = seal(1).seal(OPENAI, b"content")
    both = seal(2, 3, 1)
    assert both.open(OPENAI, old) == b"content"
    assert seal(2).open(OPENAI, both.seal(OPENAI, b"new")) == b"new"


def test_what_is_sealed_again_needs_the_older_key_no_more() -> None:
    old = seal(1).seal(OPENAI, b"content")
    new = seal(2, 1).reseal(OPENAI, old)
    assert seal(2).open(OPENAI, new) == b"content"
    with pytest.raises(UnreadableSealError):
        seal(1).open(OPENAI, new)
    # The content has not been touched, only its key.
    assert new[-len(b"content") - 28 :] == old[-len(b"content") - 28 :]


def test_what_is_damaged_is_not_sealed_again() -> None:
    old = seal(1).seal(OPENAI, b"content")
    with pytest.raises(UnreadableSealError):
        seal(2, 1).reseal(OPENAI, old[:-1])
    with pytest.raises(UnreadableSealError):
        seal(2, 1).reseal(ANTHROPIC, old)


@pytest.mark.parametrize(
    "text",
    [
        *(urlsafe_b64encode(bytes(size)).decode() for size in (0, 16, 31, 33)),
        key(0)[:-1],
        key(0)[:20] + "!" + key(0)[20:],
        "not a key",
        "schlüssel",
    ],
)
def test_a_malformed_key_is_refused_by_the_name_of_its_setting_and_not_quoted(text: str) -> None:
    with pytest.raises(MalformedKeyError, match=r"^TOLLGATE_CREDENTIAL_KEY: .* 32 bytes in URL-safe base64$"):
        Seal(SecretStr(text), secrets.token_bytes)
    with pytest.raises(MalformedKeyError, match=r"^TOLLGATE_CREDENTIAL_KEYS_BEFORE: "):
        Seal(SecretStr(key(0)), secrets.token_bytes, before=SecretStr(f"{key(1)},{text}"))


def test_a_key_in_the_other_alphabet_of_base64_is_the_same_key() -> None:
    other = Seal(SecretStr(key(255).replace("_", "/")), secrets.token_bytes)
    assert other.open(OPENAI, seal(255).seal(OPENAI, b"content")) == b"content"


def test_blanks_around_keys_are_no_part_of_them() -> None:
    both = Seal(SecretStr(f"{key(2)}\n"), secrets.token_bytes, before=SecretStr(f"{key(3)}, {key(1)}\n"))
    assert both.open(OPENAI, seal(1).seal(OPENAI, b"content")) == b"content"


def test_an_opened_secret_hides_itself() -> None:
    opened = seal().open_secret(OPENAI, seal().seal_secret(OPENAI, CREDENTIAL))
    assert CREDENTIAL.get_secret_value() not in repr(opened)
