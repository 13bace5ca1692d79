"""Secrets and signatures as the specification "Standard Webhooks" has them, so that its libraries verify what we send. Pure."""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from pydantic import SecretStr

from gateway_core.ids import RandomBytes

_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32


def new_secret(random_bytes: RandomBytes) -> SecretStr:
    """A new secret, as it is shown and sealed: `whsec_` and the key in base64."""
    return SecretStr(_PREFIX + base64.b64encode(random_bytes(_SECRET_BYTES)).decode())


def signed_headers(secrets: Sequence[SecretStr], message_id: str, at: datetime, body: bytes) -> Mapping[str, str]:
    """The headers that prove a body.

    Args:
        secrets: each signs; the receiver needs to know one of them.
        message_id: the same in every attempt, so that the receiver can tell a repetition.
        at: of this attempt; the receiver refuses what is old.
        body: as it is sent.
    """
    timestamp = str(int(at.timestamp()))
    content = f"{message_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{_signature(secret, content)}" for secret in secrets),
    }


def _signature(secret: SecretStr, content: bytes) -> str:
    key = base64.b64decode(secret.get_secret_value().removeprefix(_PREFIX))
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
