"""`/orgs/{org_id}/analytics/...`, and `/analytics/...` for operators: what requests came to, for charts and tables."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from control_plane.accounts.permissions import Permission
from control_plane.analytics import answers, plan
from control_plane.analytics.model import (
    EXPORTED_ROWS_MAX,
    ROWS_MAX,
    AnalyticsQuery,
    Breakdown,
    Dimension,
    ErrorRow,
    Errors,
    GroupedQuery,
    Latencies,
    LatencyQuery,
    PlatformBreakdownQuery,
    PlatformLatencyQuery,
    PlatformTimeseriesQuery,
    PlatformTopQuery,
    Timeseries,
    TimeseriesQuery,
    TopQuery,
)
from control_plane.analytics.plan import Question, Statement
from control_plane.analytics.postgres_progress import counted_until, time_zone_of
from control_plane.api.download import Csv, Parquet
from control_plane.api.operation import Call, found, operation
from control_plane.errors import InvalidField, InvalidFieldsError

TAG: Final = "analytics"

_UTC: Final = "UTC"


@operation("GET", "/orgs/{org_id}/analytics/timeseries", tag=TAG, access=Permission.BILLING_READ)
async def timeseries_of_org(call: Call, query: TimeseriesQuery) -> Timeseries:
    """What the requests of an organisation came to, step by step."""
    return await _timeseries(call, query)


@operation("GET", "/orgs/{org_id}/analytics/timeseries/csv", tag=TAG, access=Permission.BILLING_READ)
async def timeseries_csv_of_org(call: Call, query: TimeseriesQuery) -> Csv:
    """The same as a table for spreadsheets."""
    return await _csv(call, query)


@operation("GET", "/orgs/{org_id}/analytics/timeseries/parquet", tag=TAG, access=Permission.BILLING_READ)
async def timeseries_parquet_of_org(call: Call, query: TimeseriesQuery) -> Parquet:
    """The same as a table for programs."""
    return await _parquet(call, query)


@operation("GET", "/orgs/{org_id}/analytics/breakdown", tag=TAG, access=Permission.BILLING_READ)
async def breakdown_of_org(call: Call, query: GroupedQuery) -> Breakdown:
    """What the requests of an organisation came to, by model, project, tag or whatever is asked for."""
    return await _breakdown(call, query)


@operation("GET", "/orgs/{org_id}/analytics/breakdown/csv", tag=TAG, access=Permission.BILLING_READ)
async def breakdown_csv_of_org(call: Call, query: GroupedQuery) -> Csv:
    """The same as a table for spreadsheets."""
    return await _csv(call, query)


@operation("GET", "/orgs/{org_id}/analytics/breakdown/parquet", tag=TAG, access=Permission.BILLING_READ)
async def breakdown_parquet_of_org(call: Call, query: GroupedQuery) -> Parquet:
    """The same as a table for programs."""
    return await _parquet(call, query)


@operation("GET", "/orgs/{org_id}/analytics/top", tag=TAG, access=Permission.BILLING_READ)
async def top_of_org(call: Call, query: TopQuery) -> Breakdown:
    """Which keys, models, tags, ... of an organisation came to the most."""
    return await _top(call, query)


@operation("GET", "/orgs/{org_id}/analytics/latency", tag=TAG, access=Permission.ORG_READ)
async def latency_of_org(call: Call, query: LatencyQuery) -> Latencies:
    """How long the requests of an organisation took."""
    return await _latency(call, query)


@operation("GET", "/orgs/{org_id}/analytics/errors", tag=TAG, access=Permission.ORG_READ)
async def errors_of_org(call: Call, query: GroupedQuery) -> Errors:
    """How the requests of an organisation failed, and how many."""
    return await _errors(call, query)


@operation("GET", "/analytics/timeseries", tag=TAG, access=Permission.PLATFORM_READ)
async def timeseries(call: Call, query: PlatformTimeseriesQuery) -> Timeseries:
    """What the requests of all organisations came to, step by step."""
    return await _timeseries(call, query)


@operation("GET", "/analytics/timeseries/csv", tag=TAG, access=Permission.PLATFORM_READ)
async def timeseries_csv(call: Call, query: PlatformTimeseriesQuery) -> Csv:
    """The same as a table for spreadsheets."""
    return await _csv(call, query)


@operation("GET", "/analytics/timeseries/parquet", tag=TAG, access=Permission.PLATFORM_READ)
async def timeseries_parquet(call: Call, query: PlatformTimeseriesQuery) -> Parquet:
    """The same as a table for programs."""
    return await _parquet(call, query)


@operation("GET", "/analytics/breakdown", tag=TAG, access=Permission.PLATFORM_READ)
async def breakdown(call: Call, query: PlatformBreakdownQuery) -> Breakdown:
    """What the requests of all organisations came to, by organisation, provider or whatever is asked for."""
    return await _breakdown(call, query)


@operation("GET", "/analytics/breakdown/csv", tag=TAG, access=Permission.PLATFORM_READ)
async def breakdown_csv(call: Call, query: PlatformBreakdownQuery) -> Csv:
    """The same as a table for spreadsheets."""
    return await _csv(call, query)


@operation("GET", "/analytics/breakdown/parquet", tag=TAG, access=Permission.PLATFORM_READ)
async def breakdown_parquet(call: Call, query: PlatformBreakdownQuery) -> Parquet:
    """The same as a table for programs."""
    return await _parquet(call, query)


@operation("GET", "/analytics/top", tag=TAG, access=Permission.PLATFORM_READ)
async def top(call: Call, query: PlatformTopQuery) -> Breakdown:
    """Which organisations, models, providers, ... came to the most."""
    return await _top(call, query)


@operation("GET", "/analytics/latency", tag=TAG, access=Permission.PLATFORM_READ)
async def latency(call: Call, query: PlatformLatencyQuery) -> Latencies:
    """How long the requests of all organisations took."""
    return await _latency(call, query)


@operation("GET", "/analytics/errors", tag=TAG, access=Permission.PLATFORM_READ)
async def errors(call: Call, query: PlatformBreakdownQuery) -> Errors:
    """How the requests of all organisations failed, and how many."""
    return await _errors(call, query)


@operation("POST", "/analytics/rebuild", tag=TAG, access=Permission.PLATFORM_WRITE, status=202)
async def rebuild_analytics(call: Call) -> None:
    """Have ClickHouse emptied and filled anew from the ledger; `complete_until` of any analysis tells how far that is."""
    await call.db.execute("SELECT billing.refill_analytics()")
    await call.audit("analytics.rebuild", "clickhouse")


async def _timeseries(call: Call, query: TimeseriesQuery) -> Timeseries:
    question, frame = await _asked(call, query)
    rows = await _rows(call, question, plan.sums(question, rows_max=ROWS_MAX + 1))
    return Timeseries(**frame, data=[answers.timed_row_of(row, query.groups) for row in rows])


async def _breakdown(call: Call, query: GroupedQuery) -> Breakdown:
    question, frame = await _asked(call, query)
    rows = await _rows(call, question, plan.sums(question, rows_max=ROWS_MAX + 1))
    return Breakdown(**frame, data=[answers.row_of(row, query.groups) for row in rows])


async def _top(call: Call, query: TopQuery) -> Breakdown:
    question, frame = await _asked(call, query)
    rows = await _rows(call, question, plan.sums(question, rows_max=query.limit, metric=query.metric))
    return Breakdown(**frame, data=[answers.row_of(row, query.groups) for row in rows])


async def _latency(call: Call, query: LatencyQuery) -> Latencies:
    question, frame = await _asked(call, query)
    rows = await _rows(call, question, plan.durations(question, rows_max=ROWS_MAX + 1))
    return Latencies(**frame, data=[answers.latency_row_of(row, query.groups) for row in rows])


async def _errors(call: Call, query: GroupedQuery) -> Errors:
    question, frame = await _asked(call, query)
    rows = await _rows(call, question, plan.errors(question, rows_max=ROWS_MAX + 1))
    [counted] = await call.services.analytics.rows(plan.count(question), question.org_id)
    data: list[ErrorRow] = [answers.error_row_of(row, query.groups) for row in rows]
    return Errors(**frame, requests=counted["request_count"], data=data)


async def _csv(call: Call, query: GroupedQuery) -> Csv:
    question = await _question(call, query)
    rows = await _rows(call, question, plan.sums(question, rows_max=EXPORTED_ROWS_MAX + 1), EXPORTED_ROWS_MAX)
    content = await call.services.analytics.aside(
        question.org_id, answers.csv_of, rows, query.groups, has_steps=query.interval is not None
    )
    return Csv(filename=_file(query, "csv"), content=content)


async def _parquet(call: Call, query: GroupedQuery) -> Parquet:
    question = await _question(call, query)
    statement = plan.sums(question, rows_max=EXPORTED_ROWS_MAX + 1, for_files=True)
    content = await call.services.analytics.parquet(statement, question.org_id, rows_max=EXPORTED_ROWS_MAX)
    if content is None:
        raise _too_many(EXPORTED_ROWS_MAX)
    return Parquet(filename=_file(query, "parquet"), content=content)


def _file(query: AnalyticsQuery, kind: str) -> str:
    return f"{'breakdown' if query.interval is None else 'timeseries'}-{query.since:%Y-%m-%d}.{kind}"


async def _question(call: Call, query: AnalyticsQuery) -> Question:
    org_id = call.request.match_info.get("org_id")
    zone = _UTC
    if org_id is not None:
        zone = found(await time_zone_of(call.db, org_id))
        if Dimension.ORG in query.groups:
            raise InvalidFieldsError(
                InvalidField("?of" if isinstance(query, TopQuery) else "?by", "`org` is for operators")
            )
    return Question(query, org_id, query.time_zone or zone, call.services.now())


async def _rows(
    call: Call, question: Question, statement: Statement, rows_max: int = ROWS_MAX
) -> Sequence[Mapping[str, Any]]:
    rows = await call.services.analytics.rows(statement, question.org_id)
    if len(rows) > rows_max:
        raise _too_many(rows_max)
    return rows


def _too_many(rows_max: int) -> InvalidFieldsError:
    return InvalidFieldsError(InvalidField("?by", f"more than {rows_max} rows; ask for a shorter time, or by less"))


async def _asked(call: Call, query: AnalyticsQuery) -> tuple[Question, dict[str, Any]]:
    """The question, and what stands around the answer: read before the rows, so that it promises nothing that they do not have."""
    question = await _question(call, query)
    return question, {
        "since": question.since,
        "until": question.until,
        "time_zone": question.zone,
        "complete_until": await counted_until(call.db, question.now),
    }
