"""API keys and machine tokens: their form, the keyed hash that is stored in their place, and what a key may do.

A key is `sk-tg-live-` or `sk-tg-test-`, 43 characters of randomness (base 62) and a checksum of 6 characters, so that a typing
error or a made-up key is refused without a look-up and secret scanners can be sure. An operator's token has the same form. Pure.
"""

import hashlib
import hmac
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NewType

from pydantic import SecretStr

from gateway_core.budgets import Budgets
from gateway_core.contract import Header
from gateway_core.ids import KeyId, ModelName, OrgId, ProjectId, RandomBytes
from gateway_core.limits import ScopedLimits
from gateway_core.mode import Mode

IpNetwork = IPv4Network | IPv6Network
KeyHash = NewType("KeyHash", bytes)

LIVE_PREFIX: Final = "sk-tg-live-"
TEST_PREFIX: Final = "sk-tg-test-"
OPERATOR_PREFIX: Final = "tg-op-"
MACHINE_PREFIX: Final = "tg-mt-"
_PREFIXES: Final = (LIVE_PREFIX, TEST_PREFIX, OPERATOR_PREFIX, MACHINE_PREFIX)

PREFIX_BY_MODE: Final[Mapping[Mode, str]] = {Mode.LIVE: LIVE_PREFIX, Mode.TEST: TEST_PREFIX}

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_CHARACTERS: Final = 43  # 62**43 > 2**256
_HINT_CHARACTERS: Final = 4
_CHECKSUM_CHARACTERS: Final = 6  # 62**6 > 2**32


def new_key(prefix: str, random_bytes: RandomBytes) -> SecretStr:
    """A fresh key with 256 random bits."""
    secret = _base62(int.from_bytes(random_bytes(32)), _SECRET_CHARACTERS)
    return SecretStr(prefix + secret + _checksum(prefix + secret))


def is_well_formed(key: str) -> bool:
    """Whether prefix, length, alphabet and checksum fit; says nothing about whether the key exists."""
    prefix = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), None)
    if prefix is None or len(key) != len(prefix) + _SECRET_CHARACTERS + _CHECKSUM_CHARACTERS:
        return False
    if not set(key[len(prefix) :]) <= set(_ALPHABET):
        return False
    return hmac.compare_digest(key[-_CHECKSUM_CHARACTERS:], _checksum(key[:-_CHECKSUM_CHARACTERS]))


def hash_key(key: str, pepper: SecretStr) -> KeyHash:
    """HMAC-SHA-256 of the whole key under the installation's pepper: what is stored and looked up.

    A slow password hash would add nothing: the key itself has 256 random bits.
    """
    return KeyHash(hmac.digest(pepper.get_secret_value().encode(), key.encode(), hashlib.sha256))


def hint(key: SecretStr) -> str:
    """The first characters of a key: enough to tell keys apart, and 24 of its 256 random bits."""
    text = key.get_secret_value()
    prefix = next((prefix for prefix in _PREFIXES if text.startswith(prefix)), "")
    return text[: len(prefix) + _HINT_CHARACTERS]


def credential_of(headers: Mapping[str, str]) -> str | None:
    """The credential of a request, wherever the client's SDK puts it: `Authorization: Bearer`, or `x-api-key`."""
    return bearer_token(headers.get(Header.AUTHORIZATION)) or headers.get(Header.API_KEY)


def bearer_token(authorization: str | None) -> str | None:
    """The credential in an `Authorization: Bearer` header, or None. The scheme's case does not matter (RFC 9110)."""
    scheme, _, credential = (authorization or "").partition(" ")
    return credential.strip() or None if scheme.lower() == "bearer" else None


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECKSUM_CHARACTERS)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that exists: whose it is and what it may do, as `accounts.find_key` says.

    Attributes:
        models_allowed: shell-style patterns of model names; none means every model.
        is_disabled: the key itself, or the organisation behind it.
        ip_allowed: the networks it may be used from; none means from everywhere.
        mode: which of the two ledgers pays; what its prefix says.
        budgets: its own and its project's; None if there are none.
        limits: its own, its project's and its organisation's, those that there are.
    """

    key_id: KeyId
    org_id: OrgId
    project_id: ProjectId
    models_allowed: tuple[str, ...]
    is_disabled: bool
    expires_at: datetime | None
    ip_allowed: tuple[IpNetwork, ...] = ()
    mode: Mode = Mode.LIVE
    budgets: Budgets | None = None
    limits: tuple[ScopedLimits, ...] = ()

    def is_valid(self, now: datetime) -> bool:
        """Whether it opens anything at this moment."""
        return not self.is_disabled and (self.expires_at is None or now < self.expires_at)

    def may_come_from(self, address: str) -> bool:
        """Whether it may be used from a network address; what is no address is nowhere."""
        if not self.ip_allowed:
            return True
        try:
            found = ip_address(address)
        except ValueError:
            return False
        if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self.ip_allowed)

    def may_use(self, model: ModelName) -> bool:
        """Whether its patterns admit a model."""
        return not self.models_allowed or any(fnmatchcase(model, pattern) for pattern in self.models_allowed)
