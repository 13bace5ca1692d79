"""The key with which requests to AWS are signed, as it is kept: one text, like any other credential. Pure."""

import re
from dataclasses import dataclass
from typing import Final, Self

from pydantic import SecretStr

_FORM: Final = "ACCESS_KEY_ID:SECRET_ACCESS_KEY or ACCESS_KEY_ID:SECRET_ACCESS_KEY:SESSION_TOKEN"
_SEPARATOR: Final = ":"

# Narrow on purpose: what Envoy refuses about a key it quotes, so nothing may reach it that it would refuse.
_KEY: Final = re.compile(
    r"(?P<access_key_id>[0-9A-Za-z]{16,128}):(?P<secret_access_key>[0-9A-Za-z/+=]{16,128})"
    r"(:(?P<session_token>[0-9A-Za-z/+=._-]{16,8000}))?"
)


class InvalidAwsKeyError(ValueError):
    """A text that is no key. The message does not quote it."""


@dataclass(frozen=True, slots=True)
class AwsKey:
    """An access key; a temporary one comes with a token."""

    access_key_id: str
    secret_access_key: SecretStr
    session_token: SecretStr | None

    @classmethod
    def find(cls, credential: SecretStr) -> Self | None:
        """The key in a credential; None if that is an API key, which is sent as it is: none has a colon in it.

        Raises:
            InvalidAwsKeyError: it is neither.
        """
        if _SEPARATOR not in credential.get_secret_value():
            return None
        found = _KEY.fullmatch(credential.get_secret_value())
        if found is None:
            raise InvalidAwsKeyError(f"must be {_FORM}")
        token = found["session_token"]
        return cls(
            found["access_key_id"], SecretStr(found["secret_access_key"]), None if token is None else SecretStr(token)
        )
