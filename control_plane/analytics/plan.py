"""From a question to a statement for ClickHouse: for which time, from which table, and in which words. Pure.

What is added up by the minute, hour or day answers whatever it knows; single requests the rest. Values of callers are parameters, never text of
the statement.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from control_plane.analytics.model import TAG, AnalyticsQuery, Dimension, Metric
from control_plane.analytics.steps import Step, begin, end, offsets
from gateway_core.histograms import counted_sql
from gateway_core.usage import TOKEN_METERS

TIMEOUT_S: Final = 20
MINUTES_KNOWN: Final = timedelta(days=31)
"""Sums by the minute may be removed when they are older."""
DURATIONS: Final = ("duration_ms", "first_byte_ms", "output_token_us", "overhead_us")

_FAILED: Final = "(status >= 400 OR status = 0)"
_COLUMNS: Final[Mapping[str, str]] = {
    Dimension.ORG: "org_id",
    Dimension.PROJECT: "project_id",
    Dimension.KEY: "key_id",
    Dimension.MODEL: "model",
    Dimension.PROVIDER: "provider",
    Dimension.ENDPOINT: "endpoint",
    Dimension.STATUS: "status",
    Dimension.ERROR_CODE: "error_code",
    Dimension.OUTCOME: "outcome",
    Dimension.STREAM: "stream",
    Dimension.CACHED: "cached",
    Dimension.OWN_KEY: "own_key",
}
_OF_SINGLE_REQUESTS: Final[Mapping[str, str]] = {Dimension.ASKED_MODEL: "asked_model", Dimension.CLIENT: "client"}
"""What is not added up: there would be as many sums as requests."""
_BEGIN_OF: Final[Mapping[Step, str]] = {
    Step.MINUTE: "toStartOfMinute({moment})",
    Step.HOUR: "toStartOfHour({moment}, '{zone}')",
    Step.DAY: "toStartOfDay({moment}, '{zone}')",
    Step.WEEK: "toDateTime(toMonday({moment}, '{zone}'), '{zone}')",
    Step.MONTH: "toDateTime(toStartOfMonth({moment}, '{zone}'), '{zone}')",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A table, and how its rows are counted."""

    table: str
    moment: str
    count: str
    count_if: str
    histograms: Mapping[str, str]


_REQUESTS: Final = Source(
    "requests", "started_at", "count()", "countIf({})", {name: counted_sql(name) for name in DURATIONS}
)


def _added_up(table: str) -> Source:
    sums = {name: f"sumMap({name})" for name in DURATIONS}
    return Source(table, "starts_at", "sum(requests)", "sumIf(requests, {})", sums)


_MINUTES: Final = _added_up("requests_by_minute")
_HOURS: Final = _added_up("requests_by_hour")
_DAYS: Final = _added_up("requests_by_day")


@dataclass(frozen=True, slots=True)
class Question:
    """A query as one caller may ask it.

    Attributes:
        org_id: whose requests; None: everybody's, for operators.
        zone: by whose clock steps begin.
        now: the present moment.
    """

    query: AnalyticsQuery
    org_id: str | None
    zone: str
    now: datetime

    @property
    def step(self) -> Step:
        """What begin and end are moved to."""
        if self.query.interval is not None:
            return self.query.interval
        length = self.query.until - self.query.since
        if length <= timedelta(hours=6):
            return Step.MINUTE
        return Step.HOUR if length <= timedelta(days=40) else Step.DAY

    @property
    def since(self) -> datetime:
        """When it begins, in UTC."""
        return begin(self.query.since, self.step, self.zone)

    @property
    def until(self) -> datetime:
        """When it ends, in UTC."""
        return end(self.query.until, self.step, self.zone)

    @property
    def source(self) -> Source:
        """The coarsest table that can tell."""
        if not {*self.query.groups, *self.query.filters} <= _COLUMNS.keys():
            return _REQUESTS
        if self.step is Step.MINUTE:
            return _MINUTES if self.since >= self.now - MINUTES_KNOWN else _REQUESTS
        found = offsets(self.since, self.until, self.zone)
        if any(offset % timedelta(hours=1) for offset in found):
            return _REQUESTS
        return _DAYS if self.step is not Step.HOUR and found == {timedelta()} else _HOURS


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL, and the values of its parameters. Columns of groups are called `group_0`, `group_1`, ... in their order."""

    sql: str
    parameters: Mapping[str, str | int | bool] = field(default_factory=dict)


def sums(question: Question, *, rows_max: int, metric: Metric | None = None, for_files: bool = False) -> Statement:
    """What requests came to.

    Args:
        question: which requests.
        rows_max: so many rows at the most.
        metric: by what they are ordered; by time, where there are steps, and by amount where this is left out.
        for_files: whether amounts are US dollars and columns have the names of what they are of, as readers of files want it.
    """
    source = question.source
    tokens = "arraySum([{}])".format(", ".join(f"sum(meters['{meter}'])" for meter in TOKEN_METERS))
    amounts = {
        "amount": "sum(price_nano_usd - absorbed_nano_usd)",
        "absorbed": "sum(absorbed_nano_usd)",
        **({"cost": "sum(cost_nano_usd)"} if question.org_id is None else {}),
    }
    if for_files:
        amounts = {f"{name}_usd": f"toDecimal128({value}, 9) / 1000000000" for name, value in amounts.items()}
    columns = {
        "request_count": source.count,
        "error_count": source.count_if.format(_FAILED),
        "cached_count": source.count_if.format("cached"),
        "token_count": tokens,
        "meter_counts": "sumMap(meters)",
        **amounts,
    }
    order = {
        None: amounts[next(iter(amounts))],
        Metric.AMOUNT: amounts[next(iter(amounts))],
        Metric.REQUESTS: source.count,
        Metric.ERRORS: columns["error_count"],
        Metric.TOKENS: tokens,
    }[metric]
    return _statement(question, columns, order=f"{order} DESC", rows_max=rows_max, for_files=for_files)


def durations(question: Question, *, rows_max: int) -> Statement:
    """How long requests took: the counts of each bucket, by the name of the duration."""
    columns = {
        "request_count": question.source.count,
        **{f"{name}_counts": sql for name, sql in question.source.histograms.items()},
    }
    return _statement(question, columns, order=f"{question.source.count} DESC", rows_max=rows_max)


def errors(question: Question, *, rows_max: int) -> Statement:
    """How many requests ended in each way that is an error."""
    count = question.source.count
    columns = {"answered": "status", "refusal": "error_code", "request_count": count}
    return _statement(
        *(question, columns),
        order=f"{count} DESC",
        rows_max=rows_max,
        also=(_FAILED,),
        grouped_by=("status", "error_code"),
    )


def count(question: Question) -> Statement:
    """How many requests there were."""
    conditions, parameters = _conditions(question)
    sql = f"SELECT {question.source.count} AS request_count FROM {question.source.table} FINAL WHERE {' AND '.join(conditions)} {_SETTINGS}"  # noqa: S608 - names of ours
    return Statement(sql, parameters)


_SETTINGS: Final = f"SETTINGS max_execution_time = {TIMEOUT_S}, do_not_merge_across_partitions_select_final = 1, prefer_column_name_to_alias = 1"


def _statement(
    question: Question,
    columns: Mapping[str, str],
    *,
    order: str,
    rows_max: int,
    also: Sequence[str] = (),
    grouped_by: Sequence[str] = (),
    for_files: bool = False,
) -> Statement:
    source, query = question.source, question.query
    conditions, parameters = _conditions(question)
    groups = [_column(name) for name in query.groups]
    names = [f"`{name}`" for name in query.groups] if for_files else [f"group_{n}" for n, _ in enumerate(groups)]
    selected = [f"toString({sql}) AS {name}" for name, sql in zip(names, groups, strict=True)]
    by = [*grouped_by, *groups]
    if query.interval is not None:
        step = _BEGIN_OF[query.interval].format(moment=source.moment, zone=question.zone)
        selected.insert(0, f"{step} AS begins_at")
        by.insert(0, step)
        order = f"begins_at, {order}"
    selected += [f"{sql} AS {name}" for name, sql in columns.items()]
    grouping = f"GROUP BY {', '.join(by)}" if by else ""
    # Without groups ClickHouse has a row for nothing, too.
    having = "" if by else f"HAVING {source.count} > 0"
    ties = "".join(f", {name}" for name in names)
    sql = f"""
        SELECT {", ".join(selected)} FROM {source.table} FINAL WHERE {" AND ".join([*conditions, *also])}
        {grouping} {having} ORDER BY {order}{ties} LIMIT {rows_max:d} {_SETTINGS}
        """  # noqa: S608 - names of ours
    return Statement(sql, parameters)


def _conditions(question: Question) -> tuple[list[str], dict[str, str | int | bool]]:
    moment = question.source.moment
    conditions = [
        f"{moment} >= toDateTime({question.since.timestamp():.0f})",
        f"{moment} < toDateTime({question.until.timestamp():.0f})",
        "mode = {mode:String}",
    ]
    parameters: dict[str, str | int | bool] = {"mode": question.query.mode}
    if question.org_id is not None:
        conditions.append("org_id = {org_id:String}")
        parameters["org_id"] = question.org_id
    for number, (name, value) in enumerate(question.query.filters.items()):
        kind = "Bool" if isinstance(value, bool) else "UInt16" if isinstance(value, int) else "String"
        conditions.append(f"{_column(name)} = {{value_{number}:{kind}}}")
        parameters[f"value_{number}"] = value
    return conditions, parameters


def _column(name: str) -> str:
    if name.startswith(TAG):
        # No name of a tag has a quotation mark.
        return f"tags['{name.removeprefix(TAG)}']"
    return _COLUMNS.get(name) or _OF_SINGLE_REQUESTS[name]
