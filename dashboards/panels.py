"""The kinds of panels, and where the names in a table lead."""

import re
from collections.abc import Mapping
from typing import Final

from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.builders.table import Panel as TablePanel
from grafana_foundation_sdk.builders.timeseries import Panel as ChartPanel
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, DynamicConfigValue

from dashboards.queries import CLICKHOUSE, PROMETHEUS, ClickHouseQuery, PrometheusQuery

CONSOLE_URL: Final = "http://127.0.0.1:8081/console"
"""Where compose.yaml serves the console."""

Panel = StatPanel | TablePanel | ChartPanel
Query = ClickHouseQuery | PrometheusQuery

_DASHBOARD: Final = "/d/tollgate-{name}?${{__url_time_range}}&var-mode=${{mode}}&var-{variable}=${{__value.raw}}"
_LINKS: Final[Mapping[str, tuple[str, str]]] = {
    "request_id": ("This request in the console", f"{CONSOLE_URL}/requests?id=${{__value.raw}}"),
    "org_id": ("This organisation", _DASHBOARD.format(name="tenants", variable="org")),
    "provider": ("This provider", _DASHBOARD.format(name="providers", variable="provider")),
    "model": ("Errors of this model", _DASHBOARD.format(name="errors", variable="model")),
}
"""By the name of a column: what a click on one of its values says, and where it leads."""

_UNITS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("spend", "cost", "margin", "absorbed", "spent_before"), units.Dollars),
    **dict.fromkeys(("failed_share", "margin_share"), units.PercentUnit),
    **dict.fromkeys(("p50", "p95", "p99", "first_byte_p50", "first_byte_p95", "duration_ms"), units.Milliseconds),
    **dict.fromkeys(("overhead_p50", "overhead_p95"), units.Microseconds),
}
"""By the name of a column; any other is a bare number or a word."""


def stat(title: str, query: Query, *, unit: str, description: str = "", width: int = 4) -> Panel:
    """A single number."""
    panel = StatPanel().unit(unit).graph_mode(BigValueGraphMode.NONE)
    panel.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]).fields(""))
    panel.with_target(query).datasource(_source(query))
    return panel.title(title).description(description).height(4).span(width)


def chart(
    title: str, *queries: Query, unit: str, description: str = "", is_stacked: bool = False, width: int = 12
) -> Panel:
    """Lines over time; stacked where they add up to something."""
    panel = ChartPanel().unit(unit)
    panel.legend(
        VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
    )
    panel.tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    if is_stacked:
        panel.stacking(StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(30)
    for reference, query in zip("ABCDEF", queries, strict=False):
        panel.with_target(query if isinstance(query, ClickHouseQuery) else query.ref_id(reference))
        if isinstance(query, ClickHouseQuery) and query.line:
            panel.display_name(f"${{__field.labels.{query.line}}}")
    return panel.datasource(_source(queries[0])).title(title).description(description).height(8).span(width)


def table(title: str, query: ClickHouseQuery, *, description: str = "", width: int = 24) -> Panel:
    """Rows; columns have units and lead somewhere by their names, as `_UNITS` and `_LINKS` say."""
    panel = TablePanel()
    for name in sorted({*_UNITS, *_LINKS} & {*re.findall(r"\w+", query.sql)}):
        if name in _UNITS:
            panel.override_by_name(name, [DynamicConfigValue("unit", _UNITS[name])])
        else:
            said, url = _LINKS[name]
            link = {"title": said, "url": url, "targetBlank": True}
            panel.override_by_name(name, [DynamicConfigValue("links", [link])])
    panel.with_target(query).datasource(CLICKHOUSE)
    return panel.title(title).description(description).height(9).span(width)


def _source(query: Query) -> DataSourceRef:
    return CLICKHOUSE if isinstance(query, ClickHouseQuery) else PROMETHEUS
