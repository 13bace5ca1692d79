"""What is sealed for one purpose opens for that one, with that key, unchanged."""

import secrets
from base64 import urlsafe_b64encode

import pytest
from pydantic import SecretStr

from control_plane.accounts.sealing import Seal, UnreadableSealError


def seal(byte: int = 0) -> Seal:
    return Seal(SecretStr(urlsafe_b64encode(bytes([byte]) * 32).decode()), secrets.token_bytes)


def test_what_was_sealed_opens_again_and_twice_the_same_looks_different() -> None:
    one, other = (seal().seal("signing-key/a", b"secret") for _ in range(2))
    assert one != other
    assert b"secret" not in one
    assert seal().open("signing-key/a", one) == b"secret"


def test_another_purpose_another_key_or_another_byte_does_not_open() -> None:
    sealed = seal().seal("signing-key/a", b"secret")
    for opener, purpose, content in (
        (seal(), "signing-key/b", sealed),
        (seal(1), "signing-key/a", sealed),
        (seal(), "signing-key/a", sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (seal(), "signing-key/a", b""),
    ):
        with pytest.raises(UnreadableSealError):
            opener.open(purpose, content)
