"""What a change changes, line by line: two documents as text, compared. Pure."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_CONTEXT: Final = 100


class Side(StrEnum):
    """Where a line stands; also the class of its row."""

    BOTH = "both"
    BEFORE = "before"
    AFTER = "after"


_SIDE_BY_MARK: Final = {" ": Side.BOTH, "-": Side.BEFORE, "+": Side.AFTER}


@dataclass(frozen=True, slots=True)
class Line:
    """One line."""

    side: Side
    text: str

    @property
    def mark(self) -> str:
        """What stands before it, for who sees no colours."""
        return next(mark for mark, side in _SIDE_BY_MARK.items() if side is self.side)


def difference(before: Mapping[str, object] | None, after: Mapping[str, object]) -> Sequence[Line]:
    """Every line of either, with where it stands; nothing if they are the same. None: there was nothing before."""
    compared = difflib.unified_diff(_lines(before), _lines(after), n=_CONTEXT, lineterm="")
    return [Line(_SIDE_BY_MARK[line[0]], line[1:]) for line in compared if not line.startswith(("---", "+++", "@@"))]


def _lines(document: Mapping[str, object] | None) -> list[str]:
    return [] if document is None else json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True).split("\n")
