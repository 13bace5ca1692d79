"""A reconciliation as a table for spreadsheets. Pure."""

import csv
import io
from typing import Final

from control_plane.reconciliation.model import Reconciliation

COLUMNS: Final = (
    *("since", "model", "their_names", "our_names", "measure", "theirs", "ours", "difference", "percent", "verdict"),
    *("estimated", "released", "failed_attempts", "quarantined"),
)


def report_csv(reconciliation: Reconciliation) -> str:
    """One row for each line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for each in reconciliation.report.comparisons:
        why = each.explanation
        for line in each.lines:
            writer.writerow(
                [
                    *(each.since.isoformat(), each.model, " ".join(each.their_names), " ".join(each.our_names)),
                    *(line.measure, line.theirs, line.ours, line.difference, line.percent or "", line.verdict),
                    *(why.estimated, why.released, why.failed_attempts, why.quarantined),
                ]
            )
    return text.getvalue()
