"""What providers say was used: files of their consoles, read and added up. Pure; every amount is exact.

A file is known by the columns it has. Each tells a part: OpenAI and Anthropic have tokens in one file and money in another. A column
that is not known is an error, since it may count something.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Final

from gateway_core.export_layouts import (
    COST,
    COST_ROUNDING,
    DAY,
    HOUR,
    LAYOUTS,
    MODEL,
    ExportFormat,
    UnreadableExportError,
    format_of,
)
from gateway_core.money import NanoUsd, format_usd, round_half_even

MODEL_LENGTH_MAX: Final = 200

Slot = tuple[datetime, str]
"""The hour or day in which something was used, by its beginning in UTC, and the model by the provider's name."""


@dataclass(frozen=True, slots=True)
class UsageExport:
    """A file, added up.

    Attributes:
        measures: what it tells, whether or not there was any of it.
        is_hourly: whether it tells hours apart; else the times are those of days.
        amounts: what was used, by slot and measure.
    """

    format: ExportFormat
    measures: frozenset[str]
    is_hourly: bool
    amounts: Mapping[Slot, Mapping[str, int]]

    def by_day(self) -> "UsageExport":
        """The same with hours added up to days, in UTC."""
        days: dict[Slot, dict[str, int]] = {}
        for (at, model), amounts in self.amounts.items():
            _add(days.setdefault((at.replace(hour=0), model), {}), amounts)
        return UsageExport(self.format, self.measures, is_hourly=False, amounts=days)

    def as_plain(self) -> str:
        """The text of a file of format `PLAIN` that says the same."""
        text = io.StringIO()
        measures = sorted(self.measures)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([HOUR if self.is_hourly else DAY, MODEL, *measures])
        for (at, model), amounts in sorted(self.amounts.items()):
            moment = f"{at:%Y-%m-%dT%H:00Z}" if self.is_hourly else f"{at:%Y-%m-%d}"
            writer.writerow([moment, model, *(_told(each, amounts.get(each, 0)) for each in measures)])
        return text.getvalue()


def read_export(lines: Iterable[str], expected: ExportFormat | None = None) -> UsageExport:
    """Read a file.

    Args:
        lines: with their ends, as a file opened with `newline=""` has them.
        expected: what it has to be, if that is known.

    Raises:
        UnreadableExportError: it is not of that format or of any, or a row is not as it should be.
    """
    rows = csv.reader(_without_mark(lines), strict=True)
    try:
        header = next(rows, [])
        columns = [name.strip() for name in header]
        found = format_of(columns, expected)
        layout = LAYOUTS[found]
        totals: dict[Slot, dict[str, Fraction | int]] = {}
        is_hourly = True
        for row in rows:
            if not row:
                continue
            cells = _cells(columns, row)
            amounts = dict(layout.amounts(cells))
            if not amounts:
                continue
            at, is_hour = layout.time(cells)
            is_hourly = is_hourly and is_hour
            sums = totals.setdefault((at, _model(layout.model(cells))), {})
            for measure, amount in amounts.items():
                sums[measure] = sums.get(measure, 0) + amount
    except (csv.Error, UnreadableExportError) as error:
        raise UnreadableExportError(f"line {max(rows.line_num, 1)}: {error}") from error
    if not totals:
        raise UnreadableExportError("it has no usage in it")
    rounded = {
        slot: {measure: round_half_even(Fraction(amount)) for measure, amount in sums.items()}
        for slot, sums in totals.items()
    }
    export = UsageExport(found, layout.measures(columns), is_hourly, rounded)
    return export if is_hourly else export.by_day()


def model_key(name: str) -> str:
    """What names of one model have in common: without the date of a snapshot, and for `Claude Opus 4.6` as for `claude-opus-4-6`.

    A provider may be asked for a model by a name that follows its newest snapshot, and then tells the name of that.
    """
    words = name.strip().lower()
    if " " in words:
        words = re.sub(r"[ .]+", "-", words)
    return _SNAPSHOT.sub("", words)


_SNAPSHOT: Final = re.compile(r"[-@](?:20[0-9]{2}-[0-9]{2}-[0-9]{2}|20[0-9]{6}|[0-9]{4}|latest)$")


def _without_mark(lines: Iterable[str]) -> Iterator[str]:
    """Programs for spreadsheets put a mark in front."""
    rest = iter(lines)
    yield next(rest, "").removeprefix("\ufeff")
    yield from rest


def _cells(columns: Sequence[str], row: Sequence[str]) -> Mapping[str, str]:
    if len(row) != len(columns):
        raise UnreadableExportError(f"it has {len(row)} values for {len(columns)} columns")
    return dict(zip(columns, row, strict=True))


def _model(name: str) -> str:
    text = name.strip()
    if not text:
        raise UnreadableExportError("it does not say which model; export it grouped by model or line item")
    if len(text) > MODEL_LENGTH_MAX or not text.isprintable():
        raise UnreadableExportError("the model has no name that a model could have")
    return text


def _told(measure: str, amount: int) -> str:
    return format_usd(NanoUsd(amount)) if measure in {COST, COST_ROUNDING} else str(amount)


def _add(sums: dict[str, int], amounts: Mapping[str, int]) -> None:
    for measure, amount in amounts.items():
        sums[measure] = sums.get(measure, 0) + amount
