"""What is written into Redis: answers that only this installation reads, under names that tell nothing of the question. Pure.

Stored: nonce (12) | AES-256-GCM of the answer (n + 16), with the name authenticated. So a value that was changed, or that stood under another
name, does not open.
"""

import base64
import hashlib
import hmac
import json
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from gateway_core.ids import RandomBytes
from response_cache.answer import Answer

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class MalformedKeyError(ValueError):
    """A key that is not 32 bytes in URL-safe base64; quotes nothing of it."""


class UnreadableAnswerError(RuntimeError):
    """Something that was not written under this name with this key."""


class Seal:
    """The two uses of the installation's key for cached answers, each under a key of its own."""

    def __init__(self, key: SecretStr, random_bytes: RandomBytes) -> None:
        try:
            master = base64.urlsafe_b64decode(key.get_secret_value())
        except ValueError:
            raise MalformedKeyError("TOLLGATE_RESPONSE_CACHE_KEY is no URL-safe base64") from None
        if len(master) != _KEY_BYTES:
            raise MalformedKeyError(f"TOLLGATE_RESPONSE_CACHE_KEY is not {_KEY_BYTES} bytes")
        self._names = hmac.digest(master, b"names", hashlib.sha256)
        self._answers = AESGCM(hmac.digest(master, b"answers", hashlib.sha256))
        self._random_bytes = random_bytes

    def name(self, text: bytes) -> str:
        """The name of a question."""
        return hmac.digest(self._names, text, hashlib.sha256).hex()

    def close(self, name: str, answer: Answer) -> bytes:
        """The answer as it is cached."""
        nonce = self._random_bytes(_NONCE_BYTES)
        told = json.dumps([answer.content_type, answer.dropped]).encode() + b"\n" + answer.body
        return nonce + self._answers.encrypt(nonce, told, name.encode())

    def open(self, name: str, cached: bytes) -> Answer:
        """The answer again.

        Raises:
            UnreadableAnswerError: it was not cached under this name by this installation.
        """
        try:
            told = self._answers.decrypt(cached[:_NONCE_BYTES], cached[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            raise UnreadableAnswerError("not an answer of this name") from None
        head, _, body = told.partition(b"\n")
        content_type, dropped = json.loads(head)
        return Answer(content_type, dropped, body)
