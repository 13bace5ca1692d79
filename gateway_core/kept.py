"""What a provider keeps for one organisation under an id of its own, and how requests name it. Pure.

All organisations share our account there, so an id is good for whoever is known to own it, and at the provider that has said it.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

ObjectId = NewType("ObjectId", str)

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""kept.lua reads no others: nothing in them means anything in a path."""


class KeptKind(StrEnum):
    """What it is."""

    RESPONSE = "response"
    FILE = "file"
    BATCH = "batch"
    """Requests that a provider answers within a day. Its id is ours."""


class InvalidKeptNameError(ValueError):
    """A name that the front filter does not write, or an id that it would not read. The message does not quote it."""


@dataclass(frozen=True, slots=True)
class KeptName:
    """Something kept, as a request names it."""

    kind: KeptKind
    object_id: ObjectId

    def __str__(self) -> str:
        return f"{self.kind}/{self.object_id}"

    @staticmethod
    def parse(text: str) -> "KeptName":
        """Read what `str` has written.

        Raises:
            InvalidKeptNameError: it has not.
        """
        kind, _, object_id = text.partition("/")
        try:
            return KeptName(KeptKind(kind), checked_id(object_id))
        except ValueError as error:
            raise InvalidKeptNameError("not the name of something kept") from error


def checked_id(text: str) -> ObjectId:
    """An id as one.

    Raises:
        InvalidKeptNameError: it is longer, or of other characters.
    """
    if _ID.fullmatch(text) is None:
        raise InvalidKeptNameError("not an id")
    return ObjectId(text)
