"""Provider credentials at rest: AES-256-GCM under the installation's credential key.

The provider's name is authenticated with the text, so a credential moved to another provider's row does not open.
"""

from base64 import urlsafe_b64decode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from gateway_core.ids import ProviderName, RandomBytes

_NONCE_BYTES = 12
_KEY_BYTES = 32


class UnreadableCredentialError(RuntimeError):
    """A stored credential that this installation's key does not open."""


class CredentialCipher:
    """Seals and opens credentials. The key is 32 bytes, given as URL-safe base64."""

    def __init__(self, key: SecretStr, random_bytes: RandomBytes) -> None:
        raw = urlsafe_b64decode(key.get_secret_value())
        if len(raw) != _KEY_BYTES:
            raise ValueError("the credential key must be 32 bytes in URL-safe base64")
        self._cipher = AESGCM(raw)
        self._random_bytes = random_bytes

    def seal(self, provider: ProviderName, credential: SecretStr) -> bytes:
        """Nonce and ciphertext, to be stored."""
        nonce = self._random_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, credential.get_secret_value().encode(), provider.encode())

    def open(self, provider: ProviderName, sealed: bytes) -> SecretStr:
        """The credential.

        Raises:
            UnreadableCredentialError: another key sealed it, or it was sealed for another provider.
        """
        try:
            text = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], provider.encode())
        except (InvalidTag, ValueError) as error:  # the latter when even the nonce is cut short
            raise UnreadableCredentialError(
                f"the credential of provider {provider} does not open with this key"
            ) from error
        return SecretStr(text.decode())
