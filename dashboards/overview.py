"""Where Grafana begins: traffic, spend, errors and latency, and what was changed meanwhile."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.board import requests_board
from dashboards.panels import chart, stat, table
from dashboards.queries import (
    COST_USD,
    FAILED,
    FAILED_SHARE,
    MARGIN_USD,
    ORG_CHOSEN,
    RATE,
    SPEND_USD,
    TOKENS_IN,
    TOKENS_OUT,
    ClickHouseQuery,
    largest,
    listed,
    number,
    over_time,
    percentile,
)


def overview() -> Dashboard:
    """Traffic, spend, errors and latency."""
    return requests_board(
        *("overview", "overview", "Traffic, spend, errors and latency."),
        [
            (
                "",
                [
                    stat("Requests", number("sum(requests)"), unit=units.Short),
                    stat("Spend", number(SPEND_USD), unit=units.Dollars, description="What tenants were charged."),
                    stat(
                        *("Margin", number(MARGIN_USD)),
                        unit=units.Dollars,
                        description="Charged, less what the providers charge us.",
                    ),
                    stat(
                        *("Errors", number(FAILED_SHARE)),
                        unit=units.PercentUnit,
                        description="Share of requests answered with 400 or above, refusals included, or not at all.",
                    ),
                    stat("Nine of ten took at most", number(percentile("duration_ms", 0.9)), unit=units.Milliseconds),
                    stat(
                        *("From the cache", number("sumIf(requests, cached) / greatest(sum(requests), 1)")),
                        unit=units.PercentUnit,
                    ),
                ],
            ),
            (
                "Traffic and spend",
                [
                    chart(
                        *("Requests by outcome", over_time(f"{RATE} AS rate", by="outcome")),
                        unit=units.RequestsPerSecond,
                        is_stacked=True,
                    ),
                    chart(
                        *("Spend by model", over_time(f"{SPEND_USD} AS spend", by=largest("model", SPEND_USD))),
                        unit=units.Dollars,
                        is_stacked=True,
                    ),
                    chart(
                        *("Requests by provider", over_time(f"{RATE} AS rate", by="provider")),
                        unit=units.RequestsPerSecond,
                        is_stacked=True,
                        description="Without a name: no provider was asked.",
                    ),
                    chart(
                        "Tokens per second",
                        over_time(f"{TOKENS_IN} / step_s AS read", f"{TOKENS_OUT} / step_s AS written"),
                        unit=units.Short,
                    ),
                ],
            ),
            (
                "Errors and latency",
                [
                    chart(
                        "Errors by code",
                        over_time(
                            "sum(requests) AS failed",
                            by="if(error_code = '', toString(status), error_code) AS error",
                            where=FAILED,
                        ),
                        unit=units.Short,
                        is_stacked=True,
                        description="Our own code where we refused, the provider's status otherwise; 0 without an answer.",
                    ),
                    chart(
                        "Latency",
                        over_time(
                            *(
                                f"{percentile('duration_ms', share)} AS p{share * 100:.0f}"
                                for share in (0.5, 0.95, 0.99)
                            ),
                            f"{percentile('first_byte_ms', 0.95)} AS first_byte_p95",
                            where=f"NOT {FAILED}",
                        ),
                        unit=units.Milliseconds,
                        description="Whole answers; the first byte is what a reader of a stream waits for.",
                    ),
                ],
            ),
            (
                "Who and what",
                [
                    table(
                        "Who spends",
                        listed(
                            "sum(requests) AS request_count",
                            f"{TOKENS_IN} AS tokens_in",
                            f"{TOKENS_OUT} AS tokens_out",
                            f"{FAILED_SHARE} AS failed_share",
                            f"{SPEND_USD} AS spend",
                            f"{COST_USD} AS cost",
                            by=["org_id", "model", "provider"],
                            first="spend",
                        ),
                    ),
                    table(
                        "What was changed",
                        ClickHouseQuery(
                            "SELECT at, action, target_id, org_id, actor_kind, actor_id FROM audit FINAL"
                            f" WHERE $__timeFilter(at) AND {ORG_CHOSEN} ORDER BY at DESC, seq DESC LIMIT 50"
                        ),
                        description="By people and by the platform; from what to what is in the console.",
                    ),
                ],
            ),
        ],
    )
