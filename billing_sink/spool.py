"""The spool: the file Envoy appends a JSON line to for every finished request. Read only here; nothing is ever removed.

A spool file is told apart by its first line, which holds a request id and so is like no other. That survives a restart, a
rename and a copy, and a file that replaced another is never read from the middle.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NewType

SpoolId = NewType("SpoolId", str)
"""Which spool a line is of. A client's batch stands as one too, by its own id: what is made of its answers are lines like a spool's."""

READ_BYTES: Final = 4 * 1024 * 1024
"""How much is read at once; also the longest line. A longer one is cut there, and its pieces are quarantined."""


class SpoolTruncatedError(RuntimeError):
    """The spool is shorter than what was already committed from it: lines are missing, and a person has to look."""


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line without its newline, and where it begins; of a client's batch the line's place in the files of answers, counted from 1."""

    byte_offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Consecutive lines, and the offsets between which they stand."""

    begin: int
    end: int
    lines: Sequence[RawLine]


def spool_id(path: Path) -> SpoolId | None:
    """The identity of a spool file, or None while it has no complete first line."""
    try:
        with path.open("rb") as file:
            first = file.readline(READ_BYTES)
    except FileNotFoundError:
        return None
    complete = first.endswith(b"\n") or len(first) == READ_BYTES
    return SpoolId(hashlib.sha256(first).hexdigest()[:32]) if complete else None


def read_lines(path: Path, begin: int, *, lines_max: int) -> RawBatch:
    """Complete lines from an offset on, up to `lines_max`; the batch is empty when there are none yet.

    Raises:
        SpoolTruncatedError: the file ends before `begin`.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < begin:
            raise SpoolTruncatedError(f"the spool ends at {size}, but {begin} bytes of it are in the ledger")
        file.seek(begin)
        content = file.read(READ_BYTES)
    lines: list[RawLine] = []
    position = 0
    while len(lines) < lines_max and (newline := content.find(b"\n", position)) >= 0:
        lines.append(RawLine(begin + position, content[position:newline]))
        position = newline + 1
    if not lines and len(content) == READ_BYTES:
        lines.append(RawLine(begin, content))
        position = READ_BYTES
    return RawBatch(begin, begin + position, lines)
