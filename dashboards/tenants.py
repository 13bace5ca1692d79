"""What organisations do: what they spend and on what, what they were refused, who came and who left."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.board import requests_board
from dashboards.panels import chart, stat, table
from dashboards.queries import (
    COST_USD,
    FAILED_SHARE,
    MARGIN_USD,
    RATE,
    REQUESTS,
    SPEND_USD,
    TOKENS_IN,
    TOKENS_OUT,
    ClickHouseQuery,
    largest,
    listed,
    number,
    over_time,
)

_REFUSED = (
    "error_code IN ('insufficient_quota', 'budget_exceeded', 'budget_held') OR (status = 429 AND error_code != '')"
)
_SUMMED_UP = (
    "sum(requests) AS request_count",
    f"{TOKENS_IN} AS tokens_in",
    f"{TOKENS_OUT} AS tokens_out",
    f"{FAILED_SHARE} AS failed_share",
    f"{SPEND_USD} AS spend",
)
_EARNED = (f"{COST_USD} AS cost", f"{MARGIN_USD} AS margin")

_ORGS_OF_BOTH = """
    SELECT org_id, sumIf(requests, starts_at >= $__fromTime) AS now_count, sumIf(requests, starts_at < $__fromTime) AS before_count,
      sumIf(price_nano_usd - absorbed_nano_usd, starts_at < $__fromTime) / 1e9 AS spent_before, max(starts_at) AS last_seen
    FROM requests_by_hour FINAL
    WHERE starts_at BETWEEN $__fromTime - toIntervalSecond(dateDiff('second', $__fromTime, $__toTime)) AND $__toTime
      AND mode = ${mode:singlequote} AND org_id != ''
    GROUP BY org_id"""
"""To select from: organisations that had requests in the time that is shown, or in the time of the same length before it."""


def tenants() -> Dashboard:
    """Spend, top keys and models, budgets, churn."""
    return requests_board(
        *("tenants", "tenants", "Spend, keys, models, budgets, and who comes and leaves."),
        [
            (
                "",
                [
                    stat("Active organisations", number("uniqExactIf(org_id, org_id != '')"), unit=units.Short),
                    stat("Active keys", number("uniqExactIf(key_id, key_id != '')"), unit=units.Short),
                    stat("Spend", number(SPEND_USD), unit=units.Dollars),
                    stat(
                        *("Came", _orgs("countIf(now_count > 0 AND before_count = 0)")),
                        unit=units.Short,
                        description="Organisations that had no requests in the time of the same length before.",
                    ),
                    stat(
                        *("Left", _orgs("countIf(now_count = 0 AND before_count > 0)")),
                        unit=units.Short,
                        description="Organisations that had requests in the time of the same length before, and none since.",
                    ),
                    stat(
                        *("Stayed", _orgs("countIf(now_count > 0 AND before_count > 0)")),
                        unit=units.Short,
                    ),
                ],
            ),
            (
                "Spend",
                [
                    chart(
                        "Spend by organisation",
                        over_time(f"{SPEND_USD} AS spend", by=largest("org_id", SPEND_USD)),
                        unit=units.Dollars,
                        is_stacked=True,
                    ),
                    chart(
                        "Requests by organisation",
                        over_time(f"{RATE} AS rate", by=largest("org_id", "sum(requests)")),
                        unit=units.RequestsPerSecond,
                        is_stacked=True,
                    ),
                    table("Organisations", listed(*_SUMMED_UP, *_EARNED, by=["org_id"], first="spend")),
                    table("Keys", listed(*_SUMMED_UP, by=["org_id", "project_id", "key_id"], first="spend")),
                    table("Models", listed(*_SUMMED_UP, *_EARNED, by=["model"], first="spend"), width=12),
                    table("Endpoints", listed(*_SUMMED_UP, by=["endpoint"], first="spend"), width=12),
                ],
            ),
            (
                "Budgets and limits",
                [
                    chart(
                        "Refused for money or limits",
                        over_time("sum(requests) AS refused", by="error_code", where=_REFUSED),
                        unit=units.Short,
                        is_stacked=True,
                        description="No balance left, a budget used up, or too many requests or tokens at once. What is left of each budget is in the console.",
                    ),
                    table(
                        "Who is refused",
                        listed(
                            "sum(requests) AS refused",
                            by=["org_id", "key_id", "error_code"],
                            first="refused",
                            where=_REFUSED,
                        ),
                        width=12,
                    ),
                ],
            ),
            (
                "Who left, and whose costs they are",
                [
                    table(
                        "Who left",
                        ClickHouseQuery(
                            f"SELECT org_id, before_count, spent_before, last_seen FROM ({_ORGS_OF_BOTH})"
                            " WHERE now_count = 0 ORDER BY spent_before DESC, org_id LIMIT 50"
                        ),
                        width=12,
                        description="Organisations that had requests in the time of the same length before, and none since.",
                    ),
                    table(
                        "Programs",
                        ClickHouseQuery(
                            f"SELECT client, count() AS request_count, uniqExact(org_id) AS organisations FROM {REQUESTS}"
                            " GROUP BY client ORDER BY request_count DESC, client LIMIT 50"
                        ),
                        width=12,
                    ),
                    table(
                        "Cost tags",
                        ClickHouseQuery(
                            "SELECT org_id, tag.1 AS tag_name, tag.2 AS tag_value, count() AS request_count,"
                            f" {SPEND_USD} AS spend FROM (SELECT *, arrayJoin(tags) AS tag FROM {REQUESTS})"
                            " GROUP BY org_id, tag_name, tag_value ORDER BY spend DESC, org_id, tag_name, tag_value LIMIT 50"
                        ),
                        description="A request counts once for each of its tags.",
                    ),
                ],
            ),
        ],
    )


def _orgs(value: str) -> ClickHouseQuery:
    return ClickHouseQuery(f"SELECT {value} AS value FROM ({_ORGS_OF_BOTH})")
