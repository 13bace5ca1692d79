"""What every dashboard has: variables, links to the others, and a place and a number for each panel."""

import json
from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders.dashboard import (
    CustomVariable,
    Dashboard,
    DashboardLink,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
)

from dashboards.panels import Panel
from dashboards.queries import CLICKHOUSE, VARIABLES
from gateway_core.mode import Mode

_TAG: Final = "tollgate"
_ALL: Final = VariableOption(selected=True, text=["All"], value=["$__all"])

Rows = Sequence[tuple[str, Sequence[Panel]]]
"""Panels under headings; the first heading is empty where a dashboard begins without one."""


def requests_board(name: str, title: str, description: str, rows: Rows) -> Dashboard:
    """A dashboard about requests: its variables choose which."""
    board = _board(name, title, description, rows)
    board.with_variable(_mode())
    for variable, label in (("org", "Organisation"), ("model", "Model"), ("provider", "Provider")):
        board.with_variable(_names(variable, label, VARIABLES[variable]))
    return board


def processes_board(name: str, title: str, description: str, rows: Rows) -> Dashboard:
    """A dashboard about what runs; there is nothing to choose."""
    return _board(name, title, description, rows)


def as_json(board: Dashboard) -> str:
    """The file that Grafana reads."""
    return json.dumps(board.build(), cls=JSONEncoder, indent=2) + "\n"


def _board(name: str, title: str, description: str, rows: Rows) -> Dashboard:
    board = Dashboard(f"Tollgate: {title}").uid(f"tollgate-{name}").description(description).tags([_TAG])
    board.timezone("utc").readonly().annotations([]).refresh("30s").time("now-6h", "now").tooltip(
        DashboardCursorSync.CROSSHAIR
    )
    board.link(
        DashboardLink("Tollgate").type(DashboardLinkType.DASHBOARDS).tags([_TAG]).include_vars(True).keep_time(True)
    )
    number = 0
    for heading, panels in rows:
        if heading:
            number += 1
            board.with_row(Row(heading).id(number))
        for panel in panels:
            number += 1
            board.with_panel(panel.id(number))
    return board


def _mode() -> CustomVariable:
    live, test = (VariableOption(selected=mode is Mode.LIVE, text=mode, value=mode) for mode in Mode)
    return CustomVariable("mode").label("Mode").values(",".join(Mode)).options([live, test]).current(live)


def _names(variable: str, label: str, column: str) -> QueryVariable:
    """Those that the requests of the last days have."""
    sql = (
        f"SELECT DISTINCT {column} FROM requests_by_day FINAL"
        f" WHERE starts_at BETWEEN toStartOfDay($__fromTime) AND $__toTime AND {column} != '' ORDER BY {column}"
    )
    names = QueryVariable(variable).label(label).datasource(CLICKHOUSE).query(sql)
    return names.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True).current(_ALL)
