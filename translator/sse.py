"""Server-sent events out of bytes that come in any pieces. Pure.

Source: the event stream format of the HTML standard: lines end with LF, CR or CR LF, a blank line ends an event.
"""

from collections.abc import Iterable
from typing import Final

EVENT_BYTES_MAX: Final = 16 * 1024 * 1024


class OversizedEventError(ValueError):
    """An event that does not end."""


class EventReader:
    """Takes pieces, gives the data of each event that has ended; names and ids are passed over, since the data repeats them."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._skip_lf = False

    def feed(self, piece: bytes) -> Iterable[bytes]:
        """The data of the events that end in this piece.

        Raises:
            OversizedEventError: one has become longer than `EVENT_BYTES_MAX`.
        """
        if self._skip_lf and piece:
            self._skip_lf = False
            if piece.startswith(b"\n"):
                piece = piece[1:]
        text = self._rest + piece if self._rest else piece
        if b"\r" in piece:
            # A CR at the end may be half of a CR LF: it ends the line now, and an LF that follows is passed over.
            self._skip_lf = text.endswith(b"\r")
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._rest = text.split(b"\n")
        found = []
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                found.append(b"\n".join(self._data))
                self._data, self._data_bytes = [], 0
        if len(self._rest) + self._data_bytes > EVENT_BYTES_MAX:
            raise OversizedEventError("an event of the stream is too long")
        return found

    def end(self) -> Iterable[bytes]:
        """The data of a last event whose blank line never came."""
        if self._rest:
            self._take(self._rest)
        found = [b"\n".join(self._data)] if self._data else []
        self._rest, self._data = b"", []
        return found

    def _take(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            value = line[6:] if line.startswith(b"data: ") else line[5:]
            self._data.append(value)
            self._data_bytes += len(value)


def event(data: str, name: str | None = None) -> bytes:
    """One event; its data is one line."""
    return (f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n").encode()
