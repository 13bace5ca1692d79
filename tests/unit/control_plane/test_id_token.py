"""What of an ID token is believed. The refusals are in tests/integration/test_api_oidc.py, where a real issuer signs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import RSAAlgorithm

from control_plane.oidc.id_token import (
    Claims,
    Expected,
    InvalidIdTokenError,
    PublishedKeys,
    UnknownKeyError,
    read_id_token,
)
from tests.support.oidc_issuer import SigningKey

NOW = datetime(2030, 1, 1, tzinfo=UTC)
EXPECTED = Expected("https://id.corp.example", "tollgate", "nonce")
ED, EC = SigningKey("EdDSA"), SigningKey("ES256")


def published(*keys: dict[str, Any]) -> PublishedKeys:
    return PublishedKeys.parse({"keys": list(keys)})


def read(key: SigningKey = ED, keys: PublishedKeys | None = None, **claims: Any) -> Claims:
    at = int(NOW.timestamp())
    usual = {"iss": EXPECTED.issuer, "aud": "tollgate", "sub": "1", "iat": at, "exp": at + 60, "nonce": "nonce"}
    return read_id_token(key.sign({**usual, **claims}), keys or published(key.jwk), EXPECTED, NOW)


def at(seconds: int) -> int:
    return int((NOW + timedelta(seconds=seconds)).timestamp())


def test_a_clock_may_be_a_minute_off_and_no_more() -> None:
    assert read(exp=at(-59)).sub == "1"
    assert read(iat=at(60), nbf=at(60)).sub == "1"
    for wrong in ({"exp": at(-60)}, {"iat": at(61)}, {"nbf": at(61)}, {"exp": float("nan")}, {"exp": "tomorrow"}):
        with pytest.raises(InvalidIdTokenError):
            read(**wrong)


def test_several_audiences_are_fine_if_it_was_issued_to_us() -> None:
    assert read(aud=["tollgate", "other"], azp="tollgate").sub == "1"
    assert read(aud=["tollgate"]).sub == "1"
    for audiences, party in ((["tollgate", "other"], None), (["tollgate", "other"], "other"), ([], None)):
        with pytest.raises(InvalidIdTokenError):
            read(aud=audiences, azp=party)


def test_a_token_without_a_key_id_is_signed_with_the_only_key_of_its_kind() -> None:
    key = SigningKey("EdDSA")
    nameless = {name: value for name, value in key.jwk.items() if name != "kid"}
    keys = published(nameless, EC.jwk)
    with pytest.raises(UnknownKeyError):
        read(key, keys)
    assert keys.find(None, "EdDSA").algorithm_name == "EdDSA"
    with pytest.raises(UnknownKeyError):
        published(key.jwk, ED.jwk).find(None, "EdDSA")


def test_keys_of_other_kinds_and_for_other_uses_are_skipped() -> None:
    for skipped in (
        {**ED.jwk, "use": "enc"},
        {**ED.jwk, "alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": ED.kid},
        {"kty": "OKP", "crv": "Ed25519", "x": "!", "kid": ED.kid},
        {**ED.jwk, "alg": ["EdDSA"]},
        {"kty": "EC"},
    ):
        with pytest.raises(UnknownKeyError):
            read(keys=published(skipped, EC.jwk))
    assert read(keys=published({"kty": "?"}, ED.jwk)).sub == "1"
    for wrong in ({}, {"keys": {"a": 1}}):
        with pytest.raises(ValueError, match="no list"):
            PublishedKeys.parse(wrong)


def test_a_key_does_not_verify_what_another_algorithm_has_signed() -> None:
    with pytest.raises(UnknownKeyError):
        read(EC, published({**ED.jwk, "kid": EC.kid}))


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_short_rsa_key_proves_nothing() -> None:
    key = SigningKey("RS256")
    key.private = generate_private_key(65537, 1024)  # noqa: S505 - that is the point
    jwk = RSAAlgorithm.to_jwk(key.private.public_key(), as_dict=True)
    with pytest.raises(InvalidIdTokenError, match="InvalidKeyError"):
        read(key, published({**jwk, "kid": key.kid}))


@pytest.mark.parametrize("subject", ["", "a" * 256, "a\0", "a\nb", 7, None])
def test_a_subject_is_a_text_that_can_be_kept(subject: object) -> None:
    with pytest.raises(InvalidIdTokenError):
        read(sub=subject)


def test_of_a_person_only_what_is_verified_and_can_be_shown_is_taken() -> None:
    whole = read(email="ada@example.com", email_verified=True, name=" Ada ").identity("i")
    assert (whole.email, whole.name) == ("ada@example.com", "Ada")
    assert read(email="ada@example.com", email_verified="true").identity("i").email == "ada@example.com"
    for claims in (
        {"email": "ada@example.com"},
        {"email": "ada@example.com", "email_verified": "yes"},
        {"email": ["ada@example.com"], "email_verified": True},
        {"email": "ada@example.com\r\nBcc: all", "email_verified": True},
    ):
        assert read(**claims).identity("i").email is None, claims
    for name in (7, "a\nb", None):
        assert read(name=name).identity("i").name == ""
    assert len(read(name="a" * 500).identity("i").name) == 120
