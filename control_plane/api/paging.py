"""Lists in pages: an opaque, signed cursor that only fits the list it came from. Pure."""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import ClassVar, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from control_plane.errors import InvalidField, InvalidFieldsError
from control_plane.resource import Resource

ItemT = TypeVar("ItemT", bound=BaseModel)

_TAG_BYTES: Final = 12
_POSITION_BYTES: Final = 8


class PageQuery(BaseModel):
    """Which part of a list."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=50, ge=1, le=200, description="How many at most.")
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")


class Page(Resource, Generic[ItemT]):
    """A part of a list."""

    data: list[ItemT]
    next_cursor: str | None = Field(description="Where the next page begins; null on the last one.")


class Cursors:
    """Makes and reads cursors. The place they are signed for is the path of the list."""

    def __init__(self, key: SecretStr) -> None:
        self._key = hmac.digest(key.get_secret_value().encode(), b"cursor", hashlib.sha256)

    def write(self, path: str, position: int) -> str:
        """The cursor behind the item at a position."""
        return urlsafe_b64encode(position.to_bytes(_POSITION_BYTES) + self._tag(path, position)).decode().rstrip("=")

    def read(self, path: str, cursor: str | None) -> int | None:
        """The position a cursor stands for; None for no cursor.

        Raises:
            InvalidFieldsError: it was not made here for this list.
        """
        if cursor is None:
            return None
        try:
            raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except ValueError:
            raw = b""
        position = int.from_bytes(raw[:_POSITION_BYTES])
        if len(raw) != _POSITION_BYTES + _TAG_BYTES or not hmac.compare_digest(
            raw[_POSITION_BYTES:], self._tag(path, position)
        ):
            raise InvalidFieldsError(InvalidField("?cursor", "not a cursor of this list"))
        return position

    def _tag(self, path: str, position: int) -> bytes:
        message = position.to_bytes(_POSITION_BYTES) + path.encode()
        return hmac.digest(self._key, message, hashlib.sha256)[:_TAG_BYTES]
