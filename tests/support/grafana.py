"""Grafana's part in a panel's query: the dashboards as it reads them, and what it and its plugins put in the place of macros and variables."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

DASHBOARDS = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"


@dataclass(frozen=True)
class Shown:
    """What somebody looks at: a time, how far apart points are, and the values of variables; a variable without any is `All`."""

    since: datetime
    until: datetime
    interval_s: int = 60
    chosen: Mapping[str, Sequence[str]] = field(default_factory=lambda: {"mode": ["live"]})


@dataclass(frozen=True)
class Target:
    """A query of a panel, or of a variable."""

    board: str
    title: str
    kind: str
    sql: str | None = None
    expression: str | None = None


def boards() -> Sequence[str]:
    """The names of all dashboards."""
    return sorted(path.stem for path in DASHBOARDS.glob("*.json"))


def read(board: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DASHBOARDS / f"{board}.json").read_text(encoding="utf-8"))
    return found


def panels(board: str) -> Iterator[dict[str, Any]]:
    """Its panels, without the headings between them."""
    return (panel for panel in read(board)["panels"] if panel["type"] != "row")


def targets(board: str) -> Iterator[Target]:
    """All queries of a dashboard."""
    for variable in read(board)["templating"].get("list", []):
        if variable["type"] == "query":
            yield Target(board, variable["name"], "variable", sql=variable["query"])
    for panel in panels(board):
        for target in panel["targets"]:
            yield Target(board, panel["title"], panel["type"], target.get("rawSql"), target.get("expr"))


def expanded(sql: str, shown: Shown) -> str:
    """As ClickHouse is sent it.

    Source: `pkg/macros/macros.go` and `applyConditionalAll` of grafana/clickhouse-datasource 4.20.0; `singlequote` of Grafana.
    """
    since, until = (f"toDateTime({moment.timestamp():.0f})" for moment in (shown.since, shown.until))

    def where_chosen(found: re.Match[str]) -> str:
        return found[1] if shown.chosen.get(found[2]) else "1=1"

    def quoted(found: re.Match[str]) -> str:
        escaped = (value.replace("'", r"\'") for value in shown.chosen[found[1]])
        return ",".join(f"'{value}'" for value in escaped)

    sql = re.sub(r"\$__conditionalAll\((.*?), \$(\w+)\)", where_chosen, sql)
    sql = re.sub(r"\$\{(\w+):singlequote\}", quoted, sql)
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 >= {since} AND \1 <= {until}", sql)
    interval = rf"toStartOfInterval(toDateTime(\1), INTERVAL {shown.interval_s} second)"
    sql = re.sub(r"\$__timeInterval\((\w+)\)", interval, sql)
    for macro, value in (("fromTime", since), ("toTime", until), ("interval_s", str(shown.interval_s))):
        sql = sql.replace(f"$__{macro}", value)
    assert "$" not in sql, f"nobody knows what this is: {sql}"
    return sql
