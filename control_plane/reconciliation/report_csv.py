"""A reconciliation as a table for spreadsheets. Pure."""

from collections.abc import Iterator
from typing import Final

from control_plane.reconciliation.model import Reconciliation
from control_plane.spreadsheet import csv_text

COLUMNS: Final = (
    *("since", "model", "their_names", "our_names", "measure", "theirs", "ours", "difference", "percent", "verdict"),
    *("estimated", "released", "failed_attempts", "quarantined"),
)


def report_csv(reconciliation: Reconciliation) -> str:
    """One row for each line."""
    return csv_text([COLUMNS, *_rows(reconciliation)])


def _rows(reconciliation: Reconciliation) -> Iterator[list[object]]:
    for each in reconciliation.report.comparisons:
        why = each.explanation
        for line in each.lines:
            yield [
                *(each.since.isoformat(), each.model, " ".join(each.their_names), " ".join(each.our_names)),
                *(line.measure, line.theirs, line.ours, line.difference, line.percent or "", line.verdict),
                *(why.estimated, why.released, why.failed_attempts, why.quarantined),
            ]
