"""From rows of ClickHouse to what the API answers with. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from control_plane.analytics.model import ErrorRow, LatencyRow, Percentiles, Row, TimedRow
from control_plane.analytics.plan import DURATIONS
from control_plane.spreadsheet import csv_text
from gateway_core.histograms import percentiles
from gateway_core.money import NanoUsd, format_usd

_SHARES: Final = (0.5, 0.9, 0.95, 0.99)

Found = Mapping[str, Any]
"""A row by the names of its columns; what they hold, plan.py says."""


def row_of(found: Found, groups: Sequence[str]) -> Row:
    """What some requests came to."""
    return Row(**_sums(found, groups))


def timed_row_of(found: Found, groups: Sequence[str]) -> TimedRow:
    """The same of one step."""
    return TimedRow(starts_at=found["begins_at"], **_sums(found, groups))


def latency_row_of(found: Found, groups: Sequence[str]) -> LatencyRow:
    """How long some requests took."""
    return LatencyRow(
        starts_at=found.get("begins_at"),
        group=_group(found, groups),
        requests=found["request_count"],
        **{name: _percentiles(found[f"{name}_counts"]) for name in DURATIONS},
    )


def error_row_of(found: Found, groups: Sequence[str]) -> ErrorRow:
    """How many ended in one way."""
    return ErrorRow(
        status=found["answered"],
        error_code=found["refusal"],
        group=_group(found, groups),
        requests=found["request_count"],
    )


def csv_of(found: Iterable[Found], groups: Sequence[str], *, has_steps: bool) -> bytes:
    """Rows as a table for spreadsheets, in UTF-8: a column for each meter that there is."""
    row_of_one = timed_row_of if has_steps else row_of
    rows = [row_of_one(each, groups) for each in found]
    meters = sorted({meter for row in rows for meter in row.meters})
    has_cost = any(row.cost is not None for row in rows)
    head = [
        *(["starts_at"] if has_steps else []),
        *groups,
        *("requests", "errors", "cached", "tokens"),
        *meters,
        *("amount_usd", "absorbed_usd"),
        *(["cost_usd"] if has_cost else []),
    ]
    text = csv_text(
        [
            head,
            *(
                [
                    *([row.starts_at.isoformat()] if isinstance(row, TimedRow) else []),
                    *row.group.values(),
                    *(row.requests, row.errors, row.cached, row.tokens),
                    *(row.meters.get(meter, 0) for meter in meters),
                    *(row.amount, row.absorbed),
                    *([row.cost] if has_cost else []),
                ]
                for row in rows
            ),
        ]
    )
    return text.encode()


def _sums(found: Found, groups: Sequence[str]) -> dict[str, Any]:
    return {
        "group": _group(found, groups),
        "requests": found["request_count"],
        "errors": found["error_count"],
        "cached": found["cached_count"],
        "tokens": found["token_count"],
        "meters": {meter: count for meter, count in sorted(found["meter_counts"].items()) if count},
        "amount": format_usd(NanoUsd(found["amount"])),
        "absorbed": format_usd(NanoUsd(found["absorbed"])),
        "cost": format_usd(NanoUsd(found["cost"])) if "cost" in found else None,
    }


def _group(found: Found, groups: Sequence[str]) -> dict[str, str]:
    return {name: found[f"group_{number}"] for number, name in enumerate(groups)}


def _percentiles(counts: Mapping[int, int]) -> Percentiles | None:
    found = percentiles(counts, _SHARES)
    if found is None:
        return None
    p50, p90, p95, p99 = (round(each, 1) for each in found)
    return Percentiles(p50=p50, p90=p90, p95=p95, p99=p99)
