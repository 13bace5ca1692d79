"""What has to be kept and read again, but not by who reads the table: AES-256-GCM in two layers. Pure.

Each value is encrypted under a data key of its own, and that key under the installation's key. The purpose is authenticated
with both, so what was sealed for one row does not open in another. Stored:

    version (1) | id of the installation's key (8) | nonce (12) | data key (32 + 16) | nonce (12) | content (n + 16)

A new installation key wraps the data keys anew and leaves the contents as they are: `python -m control_plane reseal`.
"""

import base64
import hashlib
from typing import Final, NewType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from gateway_core.ids import OrgId, ProviderName, RandomBytes

Purpose = NewType("Purpose", str)
"""What a value is and whose: the functions below."""

_VERSION: Final = b"\x01"
_KEY_BYTES: Final = 32
_KEY_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEADER_BYTES: Final = len(_VERSION) + _KEY_ID_BYTES
_LOCK_BYTES: Final = _NONCE_BYTES + _KEY_BYTES + _TAG_BYTES


def provider_credential(name: ProviderName) -> Purpose:
    """What we authenticate with at a provider."""
    return Purpose(f"provider/{name}")


def own_key(org_id: OrgId, name: ProviderName) -> Purpose:
    """What an organisation authenticates with at a provider."""
    return Purpose(f"own-key/{org_id}/{name}")


def signing_key(kid: str) -> Purpose:
    """The private half of what signs access tokens."""
    return Purpose(f"signing-key/{kid}")


def webhook_secret(webhook_id: str) -> Purpose:
    """What signs what a webhook is told."""
    return Purpose(f"webhook-secret/{webhook_id}")


def idempotent_answer(caller: str, idempotency_key: str) -> Purpose:
    """An answer that may be asked for again. A caller is `kind/id`, and no id has a slash in it."""
    return Purpose(f"idempotency/{caller}/{idempotency_key}")


class MalformedKeyError(ValueError):
    """A key of the installation that is not 32 bytes in URL-safe base64; says which setting, and quotes nothing of it."""


class UnreadableSealError(RuntimeError):
    """Sealed bytes that no key of this installation opens for this purpose."""


class Seal:
    """Seals under the current key of the installation, and opens under that or an older one.

    Raises:
        MalformedKeyError: at once, if any of the keys is not one.
    """

    def __init__(self, current: SecretStr, random_bytes: RandomBytes, *, before: SecretStr | None = None) -> None:
        key = _parse(current.get_secret_value(), "TOLLGATE_CREDENTIAL_KEY")
        older = before.get_secret_value() if before else ""
        keys = [key, *(_parse(text, "TOLLGATE_CREDENTIAL_KEYS_BEFORE") for text in older.split(",") if older.strip())]
        self.header: Final = _VERSION + _key_id(key)
        """What begins every value that is sealed under the current key, and no other."""
        self._ciphers = {_key_id(each): AESGCM(each) for each in keys}
        self._random_bytes = random_bytes

    def seal(self, purpose: Purpose, content: bytes) -> bytes:
        """The bytes to be stored."""
        data_key = self._random_bytes(_KEY_BYTES)
        nonce = self._random_bytes(_NONCE_BYTES)
        sealed = AESGCM(data_key).encrypt(nonce, content, _VERSION + purpose.encode())
        return self._locked(purpose, data_key) + nonce + sealed

    def open(self, purpose: Purpose, sealed: bytes) -> bytes:
        """The content.

        Raises:
            UnreadableSealError: we do not have its key, it was sealed for another purpose, or it has been changed.
        """
        data_key = self._data_key(purpose, sealed)
        nonce, content = _split(sealed[_HEADER_BYTES + _LOCK_BYTES :], _NONCE_BYTES)
        try:
            return AESGCM(data_key).decrypt(nonce, content, _VERSION + purpose.encode())
        except (InvalidTag, ValueError) as error:  # the latter when even the nonce is cut short
            raise _unreadable(purpose) from error

    def reseal(self, purpose: Purpose, sealed: bytes) -> bytes:
        """The same under the current key.

        Raises:
            UnreadableSealError: as for `open`.
        """
        # A content that is damaged is found now, while its key is still here.
        self.open(purpose, sealed)
        return self._locked(purpose, self._data_key(purpose, sealed)) + sealed[_HEADER_BYTES + _LOCK_BYTES :]

    def seal_secret(self, purpose: Purpose, secret: SecretStr) -> bytes:
        """`seal` for a text that hides itself."""
        return self.seal(purpose, secret.get_secret_value().encode())

    def open_secret(self, purpose: Purpose, sealed: bytes) -> SecretStr:
        """`open` for a text that hides itself."""
        return SecretStr(self.open(purpose, sealed).decode())

    def _locked(self, purpose: Purpose, data_key: bytes) -> bytes:
        nonce = self._random_bytes(_NONCE_BYTES)
        cipher = self._ciphers[self.header[len(_VERSION) :]]
        return self.header + nonce + cipher.encrypt(nonce, data_key, self.header + purpose.encode())

    def _data_key(self, purpose: Purpose, sealed: bytes) -> bytes:
        header, rest = _split(sealed, _HEADER_BYTES)
        nonce, locked = _split(rest[:_LOCK_BYTES], _NONCE_BYTES)
        cipher = self._ciphers.get(header[len(_VERSION) :])
        if cipher is None or not header.startswith(_VERSION):
            raise _unreadable(purpose)
        try:
            return cipher.decrypt(nonce, locked, header + purpose.encode())
        except (InvalidTag, ValueError) as error:
            raise _unreadable(purpose) from error


def _parse(text: str, setting: str) -> bytes:
    try:
        # The other alphabet means the same, and is what `openssl rand -base64 32` writes.
        key = base64.b64decode(text.strip().replace("-", "+").replace("_", "/"), validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise MalformedKeyError(f"{setting}: a key must be 32 bytes in URL-safe base64")
    return key


def _key_id(key: bytes) -> bytes:
    """Names a key and tells nothing of it."""
    return hashlib.sha256(b"tollgate installation key" + key).digest()[:_KEY_ID_BYTES]


def _split(text: bytes, at: int) -> tuple[bytes, bytes]:
    return text[:at], text[at:]


def _unreadable(purpose: Purpose) -> UnreadableSealError:
    return UnreadableSealError(f"what was sealed as {purpose!r} does not open with the keys of this installation")
