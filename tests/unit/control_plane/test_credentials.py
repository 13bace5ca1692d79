import os
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from control_plane.catalog.credentials import CredentialCipher, UnreadableCredentialError
from gateway_core.ids import ProviderName

OPENAI, ANTHROPIC = ProviderName("openai"), ProviderName("anthropic")
CREDENTIAL = SecretStr("sk-of-a-provider")


def cipher(key_byte: bytes = b"\x01") -> CredentialCipher:
    return CredentialCipher(SecretStr(urlsafe_b64encode(key_byte * 32).decode()), os.urandom)


@given(st.text().filter(lambda text: text.isprintable()))
def test_what_was_sealed_opens_again(text: str) -> None:
    assert cipher().open(OPENAI, cipher().seal(OPENAI, SecretStr(text))).get_secret_value() == text


def test_a_sealed_credential_does_not_show_what_is_in_it() -> None:
    assert CREDENTIAL.get_secret_value().encode() not in cipher().seal(OPENAI, CREDENTIAL)


def test_the_same_credential_sealed_twice_looks_different() -> None:
    assert cipher().seal(OPENAI, CREDENTIAL) != cipher().seal(OPENAI, CREDENTIAL)


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(UnreadableCredentialError, match="openai"):
        cipher(b"\x02").open(OPENAI, cipher().seal(OPENAI, CREDENTIAL))


def test_a_credential_moved_to_another_provider_does_not_open() -> None:
    with pytest.raises(UnreadableCredentialError, match="anthropic"):
        cipher().open(ANTHROPIC, cipher().seal(OPENAI, CREDENTIAL))


@pytest.mark.parametrize("place", [0, 11, 12, 20, -1])
def test_a_single_flipped_bit_is_noticed(place: int) -> None:
    sealed = bytearray(cipher().seal(OPENAI, CREDENTIAL))
    sealed[place] ^= 1
    with pytest.raises(UnreadableCredentialError):
        cipher().open(OPENAI, bytes(sealed))


@pytest.mark.parametrize("length", [0, 5, 12, 20, 27])
def test_a_stored_credential_cut_short_does_not_open(length: int) -> None:
    with pytest.raises(UnreadableCredentialError):
        cipher().open(OPENAI, cipher().seal(OPENAI, CREDENTIAL)[:length])


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        CredentialCipher(SecretStr(urlsafe_b64encode(bytes(size)).decode()), os.urandom)


def test_an_opened_credential_hides_itself() -> None:
    opened = cipher().open(OPENAI, cipher().seal(OPENAI, CREDENTIAL))
    assert CREDENTIAL.get_secret_value() not in repr(opened)
