"""Tables for spreadsheets. Pure."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

_FORMULA: Final = ("=", "+", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula. `-` too, but so do amounts."""


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV (RFC 4180). A text that a spreadsheet would run is made plain by an apostrophe: names are not only ours."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    return text.getvalue()


def _plain(cell: object) -> object:
    if isinstance(cell, str) and (cell.startswith(_FORMULA) or (cell.startswith("-") and not _is_number(cell))):
        return f"'{cell}"
    return cell


def _is_number(text: str) -> bool:
    return text[1:].replace(".", "", 1).isdecimal()
