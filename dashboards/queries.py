"""Where panels read: the two data sources, the tables of ClickHouse, and what the variables of a dashboard choose."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from gateway_core.histograms import percentile_sql
from gateway_core.usage import INPUT_METERS, OUTPUT_METERS, Meter

CLICKHOUSE: Final = DataSourceRef("grafana-clickhouse-datasource", "tollgate-clickhouse")
PROMETHEUS: Final = DataSourceRef("prometheus", "tollgate-prometheus")

VARIABLES: Final = {"org": "org_id", "model": "model", "provider": "provider"}
"""By the name of a variable, of which several values may be chosen: the column that has them."""


def _any_of(*variables: str) -> str:
    return " AND ".join(
        f"$__conditionalAll({VARIABLES[name]} IN (${{{name}:singlequote}}), ${name})" for name in variables
    )


_CHOSEN: Final = f"mode = ${{mode:singlequote}} AND {_any_of('org', 'model', 'provider')}"
ORG_CHOSEN: Final = _any_of("org")
PROVIDER_CHOSEN: Final = _any_of("provider")
REQUESTS: Final = f"requests FINAL WHERE $__timeFilter(started_at) AND {_CHOSEN}"
"""To select from: single requests, as far as they are kept."""
ATTEMPTS: Final = f"attempts FINAL WHERE $__timeFilter(started_at) AND {_any_of('org', 'provider')}"
"""The same of attempts that failed, of which neither mode nor the client's name of the model is known."""

_SUMS: Final = f"""WITH dateDiff('second', $__fromTime, $__toTime) AS range_s,
  multiIf(range_s <= 86400 AND $__fromTime >= now() - INTERVAL 31 DAY, 60, range_s <= 62 * 86400, 3600, 86400) AS unit_s,
  greatest($__interval_s, unit_s) AS step_s,
  sums AS (
    SELECT * FROM requests_by_minute FINAL WHERE unit_s = 60 AND starts_at BETWEEN toStartOfMinute($__fromTime) AND $__toTime
    UNION ALL
    SELECT * FROM requests_by_hour FINAL WHERE unit_s = 3600 AND starts_at BETWEEN toStartOfHour($__fromTime) AND $__toTime
    UNION ALL
    SELECT * FROM requests_by_day FINAL WHERE unit_s = 86400 AND starts_at BETWEEN toStartOfDay($__fromTime) AND $__toTime
  ),
  chosen AS (SELECT * FROM sums WHERE {_CHOSEN})
"""
"""Requests added up: by the minute up to a day, if it is of the last 31, which they are kept for in any case; by the hour up to 62 days; by the day
beyond. ClickHouse reads one of the three, since the conditions of the others are false before anything is read. `step_s` is between two points of a
chart: as Grafana likes it, but no less than what sums are of."""

TIME: Final = "toStartOfInterval(starts_at, toIntervalSecond(step_s))"
RATE: Final = "sum(requests) / step_s"
FAILED: Final = "(status >= 400 OR status = 0)"
"""Answered with an error, or not at all."""
FAILED_SHARE: Final = f"sumIf(requests, {FAILED}) / greatest(sum(requests), 1)"
SPEND_USD: Final = "sum(price_nano_usd - absorbed_nano_usd) / 1e9"
COST_USD: Final = "sum(cost_nano_usd) / 1e9"
MARGIN_USD: Final = "sum(price_nano_usd - absorbed_nano_usd - cost_nano_usd) / 1e9"


def _tokens(meters: Sequence[Meter]) -> str:
    return "arraySum([{}])".format(", ".join(f"sum(meters['{meter}'])" for meter in meters))


TOKENS_IN: Final = _tokens(INPUT_METERS)
TOKENS_OUT: Final = _tokens(OUTPUT_METERS)


def percentile(duration: str, share: float) -> str:
    """How long so large a share took at the most, in the unit that the duration's name ends in."""
    return percentile_sql(f"sumMap({duration})", share)


@dataclass(frozen=True, slots=True)
class ClickHouseQuery(Builder[Dataquery], Dataquery):
    """A query as Grafana's plugin for ClickHouse reads it. The SDK has none: this one builds itself.

    Attributes:
        sql: with the plugin's macros and the dashboard's variables.
        is_series: whether rows are points of a chart, of which the column `time` says when.
        line: of a chart, the column that says which line a point belongs to; empty where there is a line for each value.
    """

    sql: str
    is_series: bool = False
    line: str = ""

    def build(self) -> Dataquery:
        """Itself."""
        return self

    def to_json(self) -> dict[str, object]:
        """Source: `src/types/sql.ts` of grafana/clickhouse-datasource 4.20.0; `format` is 0 for series and 1 for tables."""
        return {
            "refId": "A",
            "datasource": CLICKHOUSE,
            "editorType": "sql",
            "queryType": "timeseries" if self.is_series else "table",
            "format": 0 if self.is_series else 1,
            "rawSql": self.sql,
        }


PrometheusQuery = prometheus.Dataquery


def number(value: str) -> ClickHouseQuery:
    """One number of all that is chosen."""
    return ClickHouseQuery(f"{_SUMS}SELECT {value} AS value FROM chosen")


def over_time(*values: str, by: str = "", where: str = "1") -> ClickHouseQuery:
    """A line for each value, named after its alias, and for each value of `by`: a column, or an expression with an alias."""
    selected = ", ".join(filter(None, (f"{TIME} AS time", by, *values)))
    groups = ", ".join(filter(None, ("time", _name(by))))
    return ClickHouseQuery(
        f"{_SUMS}SELECT {selected}\nFROM chosen WHERE {where}\nGROUP BY {groups} ORDER BY {groups}",
        is_series=True,
        line=_name(by),
    )


def listed(*values: str, by: Sequence[str], first: str, where: str = "1") -> ClickHouseQuery:
    """A row for each value of `by`, columns or expressions with aliases; those with the most of `first` at the top."""
    groups = ", ".join(map(_name, by))
    selected = ", ".join((*by, *values))
    return ClickHouseQuery(
        f"{_SUMS}SELECT {selected}\nFROM chosen WHERE {where}\nGROUP BY {groups} ORDER BY {first} DESC, {groups} LIMIT 50"
    )


def largest(column: str, value: str) -> str:
    """To group by: the ten values of a column that there is most of, and all others together."""
    ten = f"SELECT {column} FROM chosen GROUP BY {column} ORDER BY {value} DESC, {column} LIMIT 10"
    return f"if({column} IN ({ten}), {column}, 'all others') AS name"


def _name(expression: str) -> str:
    return expression.rpartition(" AS ")[2]


def promql(expression: str, legend: str = "__auto") -> PrometheusQuery:
    """What Prometheus knows, over time. Without a legend, labels are."""
    return PrometheusQuery().datasource(PROMETHEUS).expr(expression).legend_format(legend).range()


def promql_now(expression: str) -> PrometheusQuery:
    """The same at the end of the time."""
    return PrometheusQuery().datasource(PROMETHEUS).expr(expression).instant()
