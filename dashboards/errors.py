"""What failed, where, and for whom, down to the single request."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.board import requests_board
from dashboards.panels import chart, stat, table
from dashboards.queries import (
    ATTEMPTS,
    FAILED,
    FAILED_SHARE,
    REQUESTS,
    ClickHouseQuery,
    listed,
    number,
    over_time,
)

_OURS = "error_code != ''"
_PROVIDERS = f"{FAILED} AND error_code = '' AND provider != ''"
_HOW = "if(error_code = '', toString(status), error_code) AS error"


def errors() -> Dashboard:
    """Codes by provider and model, down to a request."""
    return requests_board(
        *("errors", "errors", "Codes by provider and model, down to the request."),
        [
            (
                "",
                [
                    stat("Failed", number(f"sumIf(requests, {FAILED})"), unit=units.Short),
                    stat("Share", number(FAILED_SHARE), unit=units.PercentUnit),
                    stat(
                        *("Refused by us", number(f"sumIf(requests, {FAILED} AND {_OURS})")),
                        unit=units.Short,
                        description="With a code of our own: no money, no such model, too many at once, nobody to ask, ...",
                    ),
                    stat("Failed at a provider", number(f"sumIf(requests, {_PROVIDERS})"), unit=units.Short),
                    stat(
                        *("Without an answer", number("sumIf(requests, status = 0)")),
                        unit=units.Short,
                        description="Mostly clients that went away.",
                    ),
                    stat(
                        "Our own faults",
                        number("sumIf(requests, status >= 500 AND error_code != '')"),
                        unit=units.Short,
                    ),
                ],
            ),
            (
                "Codes",
                [
                    chart(
                        *("By code", over_time("sum(requests) AS failed", by=_HOW, where=FAILED)),
                        unit=units.Short,
                        is_stacked=True,
                        description="Our own code where we refused, the provider's status otherwise; 0 without an answer.",
                    ),
                    chart(
                        *(
                            "By status",
                            over_time("sum(requests) AS failed", by="toString(status) AS answered", where=FAILED),
                        ),
                        unit=units.Short,
                        is_stacked=True,
                    ),
                    chart(
                        "Share, by provider",
                        over_time(f"{FAILED_SHARE} AS failed_share", by="provider", where="provider != ''"),
                        unit=units.PercentUnit,
                    ),
                    chart(
                        *(
                            "Share, by model",
                            over_time(f"{FAILED_SHARE} AS failed_share", by="model", where="model != ''"),
                        ),
                        unit=units.PercentUnit,
                    ),
                    table(
                        "By provider and model",
                        listed(
                            "sum(requests) AS failed",
                            "uniqExact(org_id) AS organisations",
                            by=["provider", "model", _HOW],
                            first="failed",
                            where=FAILED,
                        ),
                        width=12,
                    ),
                    table(
                        "By organisation",
                        listed("sum(requests) AS failed", by=["org_id", _HOW], first="failed", where=FAILED),
                        width=12,
                    ),
                ],
            ),
            (
                "Single requests",
                [
                    table(
                        "Latest that failed",
                        ClickHouseQuery(
                            "SELECT started_at, request_id, org_id, model, provider, status, error_code, attempts, duration_ms, endpoint, client"
                            f" FROM {REQUESTS} AND {FAILED} ORDER BY started_at DESC, request_id LIMIT 100"
                        ),
                        description="Each leads to its page in the console: why it went there, and what became of every attempt.",
                    ),
                    table(
                        "Latest attempts that failed",
                        ClickHouseQuery(
                            "SELECT started_at, request_id, org_id, provider, upstream_model, status, response_flags, response_details, duration_ms, own_key, own_reply"
                            f" FROM {ATTEMPTS} ORDER BY started_at DESC, request_id LIMIT 100"
                        ),
                        description="Of requests that were answered by another provider, too.",
                    ),
                ],
            ),
        ],
    )
