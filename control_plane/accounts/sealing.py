"""What has to be kept and read again, but not by who reads the table: AES-256-GCM under the installation's credential key.

The purpose is authenticated with the bytes, so what was sealed for one row does not open in another. Pure.
"""

from base64 import urlsafe_b64decode
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from gateway_core.ids import RandomBytes

_NONCE_BYTES: Final = 12


class UnreadableSealError(RuntimeError):
    """Sealed bytes that this installation's key does not open."""


class Seal:
    """Seals and opens. The key is 32 bytes, given as URL-safe base64."""

    def __init__(self, key: SecretStr, random_bytes: RandomBytes) -> None:
        self._cipher = AESGCM(urlsafe_b64decode(key.get_secret_value()))
        self._random_bytes = random_bytes

    def seal(self, purpose: str, content: bytes) -> bytes:
        """Nonce and ciphertext, to be stored."""
        nonce = self._random_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, purpose.encode())

    def open(self, purpose: str, sealed: bytes) -> bytes:
        """The content.

        Raises:
            UnreadableSealError: another key sealed it, or it was sealed for another purpose.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose.encode())
        except (InvalidTag, ValueError) as error:
            raise UnreadableSealError(f"what was sealed as {purpose!r} does not open with this key") from error
