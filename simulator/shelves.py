"""What the simulator keeps for its clients: responses, files and batches, in memory, each good for the credential it was made with alone."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from gateway_core.ids import RandomBytes, new_id
from simulator.chat import JsonObject, Message
from simulator.refusal import RefusalError

OBJECTS_MAX: Final = 1000
BYTES_MAX: Final = 256 * 1024 * 1024
"""Of files; beyond either, what was kept first is forgotten."""


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """A response and the conversation up to it."""

    said: JsonObject
    input_items: tuple[JsonObject, ...]
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file, and what is said of it."""

    said: JsonObject
    content: bytes


@dataclass(frozen=True, slots=True)
class BatchLine:
    """A line of a batch and its answer, which nobody is told before its time.

    Attributes:
        takes: None: it is never answered.
    """

    custom_id: str
    answer: JsonObject
    takes: timedelta | None
    is_good: bool

    def is_done(self, began_at: datetime, now: datetime) -> bool:
        """Whether its time has come."""
        return self.takes is not None and began_at + self.takes <= now


@dataclass(frozen=True, slots=True)
class KeptBatch:
    """A batch, and what is said of it however far it is."""

    said: JsonObject
    lines: tuple[BatchLine, ...]
    created_at: datetime
    cancelled_at: datetime | None = None


Kept = KeptResponse | KeptFile | KeptBatch


class Shelves:
    """Everything that is kept, oldest first."""

    def __init__(self, random_bytes: RandomBytes) -> None:
        self._random_bytes = random_bytes
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._bytes = 0

    def of(self, credential: str) -> "Shelf":
        """What is kept for one credential."""
        return Shelf(self, credential)

    def new_id(self, prefix: str) -> str:
        """An id that nothing else has, whatever was asked for."""
        return new_id(prefix, self._random_bytes)

    def find(self, credential: str, object_id: str) -> Kept | None:
        """What has that id there."""
        return self._kept.get((credential, object_id))

    def put(self, credential: str, object_id: str, kept: Kept) -> None:
        """Keep something, in the place of what had the id before."""
        if (before := self._kept.get((credential, object_id))) is not None:
            self._bytes -= _size(before)
        self._kept[credential, object_id] = kept
        self._bytes += _size(kept)
        while len(self._kept) > OBJECTS_MAX or self._bytes > BYTES_MAX:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= _size(gone)

    def remove(self, credential: str, object_id: str) -> None:
        """Keep it no longer."""
        self._bytes -= _size(self._kept.pop((credential, object_id)))

    def files(self, credential: str) -> list[KeptFile]:
        """All files there, the newest first."""
        return [
            kept
            for (owner, _), kept in reversed(self._kept.items())
            if owner == credential and isinstance(kept, KeptFile)
        ]

    def batches(self, credential: str) -> list[KeptBatch]:
        """The same of batches."""
        return [
            kept
            for (owner, _), kept in reversed(self._kept.items())
            if owner == credential and isinstance(kept, KeptBatch)
        ]


@dataclass(frozen=True, slots=True)
class Shelf:
    """What is kept for one credential."""

    shelves: Shelves
    credential: str

    def response(self, response_id: str, *, param: str | None = None) -> KeptResponse:
        """One response.

        Raises:
            RefusalError: there is none of that id; in the place of `param`, if the id stands in a field.
        """
        kept = self.shelves.find(self.credential, response_id)
        if not isinstance(kept, KeptResponse):
            status = 404 if param is None else 400
            raise RefusalError(status, f"Response with id '{response_id}' not found.", param=param)
        return kept

    def file(self, file_id: str) -> KeptFile:
        """One file.

        Raises:
            RefusalError: there is none of that id.
        """
        kept = self.shelves.find(self.credential, file_id)
        if not isinstance(kept, KeptFile):
            raise RefusalError(404, f"No such File object: {file_id}", param="id")
        return kept

    def batch(self, batch_id: str) -> KeptBatch:
        """One batch.

        Raises:
            RefusalError: there is none of that id.
        """
        kept = self.shelves.find(self.credential, batch_id)
        if not isinstance(kept, KeptBatch):
            raise RefusalError(404, f"No batch found with id '{batch_id}'.", param="id")
        return kept

    def put(self, object_id: str, kept: Kept) -> None:
        """Keep something."""
        self.shelves.put(self.credential, object_id, kept)

    def remove(self, object_id: str) -> None:
        """Keep it no longer."""
        self.shelves.remove(self.credential, object_id)


def _size(kept: Kept) -> int:
    return len(kept.content) if isinstance(kept, KeptFile) else 0
