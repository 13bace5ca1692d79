"""ID tokens: from the issuer's signed text to who it is, or the reason why not. Pure.

Source: OpenID Connect Core 1.0, section 3.1.3.7; RFC 8725 for what has to be distrusted in a JWT.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final, Self

import jwt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from control_plane.accounts.mail import is_mail_address

ALGORITHMS: Final = frozenset({"RS256", "ES256", "EdDSA"})
"""Signatures only: with HS256 whoever knows a public key could sign, with none everybody could."""
SKEW: Final = timedelta(seconds=60)
"""How far the issuer's clock may be from ours."""
_NAME_LENGTH_MAX: Final = 120


class InvalidIdTokenError(Exception):
    """An ID token that proves nothing; the message says why and quotes nothing of it."""


class UnknownKeyError(InvalidIdTokenError):
    """It is signed with a key that the issuer had not published when we last looked."""


class PublishedKeys:
    """The keys of a JWKS document that we can use; others in it are skipped, as RFC 7517 asks."""

    def __init__(self, keys: Sequence[jwt.PyJWK]) -> None:
        self._keys = keys

    @classmethod
    def parse(cls, document: Mapping[str, object]) -> Self:
        """Read a JWKS document.

        Raises:
            ValueError: there is no list of keys in it.
        """
        entries = document.get("keys")
        if not isinstance(entries, list):
            raise ValueError("no list of keys")  # noqa: TRY004 - a document of the wrong form, not a programmer's mistake
        keys = []
        for entry in entries:
            if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
                continue
            try:
                key = jwt.PyJWK(entry)
            except (jwt.PyJWTError, TypeError, ValueError):
                continue
            if key.algorithm_name in ALGORITHMS:
                keys.append(key)
        return cls(keys)

    def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK:
        """The key of a token's header. One that names none is signed with the only one there is.

        Raises:
            UnknownKeyError: there is none, or it could be several.
        """
        fitting = [key for key in self._keys if key.algorithm_name == algorithm and kid in (None, key.key_id)]
        if len(fitting) != 1:
            raise UnknownKeyError("signed with an unknown key")
        return fitting[0]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is to an issuer.

    Attributes:
        subject: never changes and is never given to somebody else, unlike the address.
        email: only an address the issuer says it has verified; else None.
    """

    issuer: str
    subject: str
    email: str | None
    name: str


class Person(BaseModel):
    """The claims about a person, in an ID token or from the userinfo endpoint."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="ignore", frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    sub: str = Field(min_length=1, max_length=255)
    email: object = None
    email_verified: object = None
    name: object = None

    def identity(self, issuer: str) -> Identity:
        """What we take from it. Claims of an unexpected type count as absent: only `sub` has to be there."""
        # Apple writes the boolean as a text.
        is_verified = self.email_verified is True or self.email_verified == "true"
        email = self.email if is_verified and isinstance(self.email, str) and is_mail_address(self.email) else None
        name = self.name if isinstance(self.name, str) and self.name.isprintable() else ""
        return Identity(issuer, self.sub, email, name.strip()[:_NAME_LENGTH_MAX])


class Claims(Person):
    """The claims of an ID token that we look at."""

    iss: str
    aud: str | list[str]
    exp: float
    iat: float
    azp: str | None = None
    nbf: float | None = None
    nonce: str | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """What an ID token has to say to be meant for this log-in."""

    issuer: str
    client_id: str
    nonce: str


def read_id_token(token: str, keys: PublishedKeys, expected: Expected, now: datetime) -> Claims:
    """Check a token and return its claims.

    Raises:
        UnknownKeyError: look at the issuer's keys again, then once more.
        InvalidIdTokenError: it is none of the issuer's, not for us, not for this log-in, or not for this moment.
    """
    claims = _verified(token, keys)
    audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    at = now.timestamp()
    skew_s = SKEW.total_seconds()
    if claims.iss != expected.issuer:
        raise InvalidIdTokenError("of another issuer")
    if expected.client_id not in audiences:
        raise InvalidIdTokenError("for another audience")
    if claims.azp != expected.client_id and (claims.azp is not None or len(audiences) > 1):
        raise InvalidIdTokenError("issued to another party")
    if claims.exp <= at - skew_s:
        raise InvalidIdTokenError("expired")
    if max(claims.iat, claims.nbf or claims.iat) > at + skew_s:
        raise InvalidIdTokenError("from the future")
    if claims.nonce != expected.nonce:
        raise InvalidIdTokenError("for another log-in")
    if not claims.sub.isprintable():
        raise InvalidIdTokenError("with a subject that cannot be kept")
    return claims


def _verified(token: str, keys: PublishedKeys) -> Claims:
    try:
        header = jwt.get_unverified_header(token)
        kid, algorithm = header.get("kid"), header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise InvalidIdTokenError("signed in a way that is not allowed")
        key = keys.find(kid, algorithm)
        payload = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            # The claims are checked in `read_id_token`, by our clock.
            options={
                "enforce_minimum_key_length": True,
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": False,
                "verify_iss": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
        return Claims.model_validate(payload, strict=True)
    except (jwt.PyJWTError, ValidationError) as error:
        raise InvalidIdTokenError(type(error).__name__) from error
