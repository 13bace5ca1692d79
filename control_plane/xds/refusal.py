"""What Envoy says when it refuses a configuration. It quotes the message it cannot take, and knows of no secret in it. Pure."""

import re
from typing import Final

# As protobuf prints the fields of a filter that signs: `secret_access_key: "..."`. A message may end within one.
_SECRETS: Final = re.compile(r'\b(secret_access_key|session_token)(:\s*)"(?:[^"\\]|\\.)*"?')


def without_secrets(message: str) -> str:
    """The message, less the keys that requests are signed with."""
    return _SECRETS.sub(r'\1\2"[redacted]"', message)
