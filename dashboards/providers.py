"""How each provider does: who is out, how fast it answers, how often it fails or is full, and what it costs."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.board import requests_board
from dashboards.panels import chart, stat, table
from dashboards.queries import (
    ATTEMPTS,
    COST_USD,
    FAILED,
    FAILED_SHARE,
    MARGIN_USD,
    PROVIDER_CHOSEN,
    RATE,
    REQUESTS,
    SPEND_USD,
    TOKENS_IN,
    TOKENS_OUT,
    ClickHouseQuery,
    listed,
    over_time,
    percentile,
    promql,
    promql_now,
)

_ASKED = "provider != ''"
_TRIED = "provider != '' AND NOT own_reply"
"""Attempts that a provider has answered, or should have."""


def providers() -> Dashboard:
    """Health, latency, failovers, 429s, cost."""
    return requests_board(
        *("providers", "providers", "Health, latency, failovers, 429s and cost of each provider."),
        [
            (
                "",
                [
                    stat(
                        "Left out now",
                        promql_now("sum(max by (provider, state) (tollgate_control_plane_providers_out)) or vector(0)"),
                        unit=units.Short,
                        description="Providers, or models at them, that get no requests: down, cooling or paused.",
                    ),
                    stat(
                        "Attempts that failed",
                        ClickHouseQuery(f"SELECT count() AS value FROM {ATTEMPTS} AND {_TRIED}"),
                        unit=units.Short,
                    ),
                    stat(
                        "Answered with 429",
                        ClickHouseQuery(f"SELECT countIf(status = 429) AS value FROM {ATTEMPTS} AND {_TRIED}"),
                        unit=units.Short,
                    ),
                    stat(
                        "Saved by another provider",
                        ClickHouseQuery(
                            f"SELECT countIf(attempts > 1 AND status BETWEEN 1 AND 399) AS value FROM {REQUESTS}"
                        ),
                        unit=units.Short,
                        width=6,
                        description="Requests whose first attempt failed, and whose client has an answer all the same.",
                    ),
                    stat(
                        "Share that needed more than one attempt",
                        ClickHouseQuery(
                            f"SELECT countIf(attempts > 1) / greatest(countIf(attempts > 0), 1) AS value FROM {REQUESTS}"
                        ),
                        unit=units.PercentUnit,
                        width=6,
                    ),
                ],
            ),
            (
                "Health",
                [
                    chart(
                        "Left out of routes",
                        promql("max by (provider, state) (tollgate_control_plane_providers_out)"),
                        unit=units.Short,
                    ),
                    chart(
                        "Share that failed",
                        over_time(f"{FAILED_SHARE} AS failed_share", by="provider", where=_ASKED),
                        unit=units.PercentUnit,
                        description="Of the requests that ended at a provider; attempts before the last one are below.",
                    ),
                    table(
                        "States",
                        ClickHouseQuery(
                            "SELECT since, until, provider, upstream_model, condition, why, times, actor_kind, actor_id FROM provider_health FINAL"
                            f" WHERE $__timeFilter(since) AND {PROVIDER_CHOSEN} ORDER BY since DESC, seq DESC LIMIT 100"
                        ),
                        description="Each state that a provider, or a model at it, has come into.",
                    ),
                ],
            ),
            (
                "Latency",
                [
                    chart(
                        f"{said}, {share:.0%} took at most",
                        over_time(
                            f"{percentile(duration, share)} AS took", by="provider", where=f"{_ASKED} AND NOT {FAILED}"
                        ),
                        unit=units.Milliseconds,
                        width=6,
                    )
                    for duration, said in (("duration_ms", "Whole answers"), ("first_byte_ms", "First byte"))
                    for share in (0.5, 0.95)
                ],
            ),
            (
                "Failovers and limits",
                [
                    chart(
                        "Attempts that failed",
                        _attempts_over_time(
                            "concat(provider, ' ', if(status = 0, response_flags, toString(status))) AS how", _TRIED
                        ),
                        unit=units.Short,
                        is_stacked=True,
                        description="By provider and status, or Envoy's response flags where there was no answer. Play money included: an attempt does not know.",
                    ),
                    chart(
                        "Answered with 429",
                        _attempts_over_time("provider", f"{_TRIED} AND status = 429"),
                        unit=units.Short,
                        is_stacked=True,
                    ),
                    chart(
                        "Passed over since it was full",
                        promql("sum by (provider) (rate(tollgate_ext_authz_provider_full_total[$__rate_interval]))"),
                        unit=units.OpsPerSecond,
                        description="Attempts that were not made: our account's limits there, or an organisation's share of them, were used up.",
                    ),
                    table(
                        "From whom to whom",
                        ClickHouseQuery(
                            "SELECT failed.provider AS failed_at, answered.provider AS answered_by, failed.status AS failed_with, count() AS attempt_count"
                            f" FROM (SELECT request_id, provider, status FROM {ATTEMPTS} AND {_TRIED}) AS failed"
                            f" INNER JOIN (SELECT request_id, provider FROM {REQUESTS} AND attempts > 1 AND status BETWEEN 1 AND 399) AS answered"
                            " USING (request_id) GROUP BY failed_at, answered_by, failed_with"
                            " ORDER BY attempt_count DESC, failed_at, answered_by, failed_with LIMIT 50"
                        ),
                        width=12,
                        description="Attempts that failed, of requests that were answered in the end.",
                    ),
                ],
            ),
            (
                "Cost",
                [
                    chart(
                        "Cost",
                        over_time(f"{COST_USD} AS cost", by="provider", where=_ASKED),
                        unit=units.Dollars,
                        is_stacked=True,
                    ),
                    chart(
                        "Requests",
                        over_time(f"{RATE} AS rate", by="provider", where=_ASKED),
                        unit=units.RequestsPerSecond,
                        is_stacked=True,
                    ),
                    table(
                        "Providers and models",
                        listed(
                            "sum(requests) AS request_count",
                            f"{FAILED_SHARE} AS failed_share",
                            f"{percentile('duration_ms', 0.5)} AS p50",
                            f"{percentile('duration_ms', 0.95)} AS p95",
                            f"{percentile('first_byte_ms', 0.95)} AS first_byte_p95",
                            f"{TOKENS_IN} AS tokens_in",
                            f"{TOKENS_OUT} AS tokens_out",
                            f"{COST_USD} AS cost",
                            f"{SPEND_USD} AS spend",
                            f"{MARGIN_USD} AS margin",
                            by=["provider", "model"],
                            first="cost",
                            where=_ASKED,
                        ),
                    ),
                ],
            ),
        ],
    )


def _attempts_over_time(by: str, where: str) -> ClickHouseQuery:
    name = by.rpartition(" AS ")[2]
    return ClickHouseQuery(
        f"SELECT $__timeInterval(started_at) AS time, {by}, count() AS attempt_count FROM {ATTEMPTS} AND {where}"
        f" GROUP BY time, {name} ORDER BY time, {name}",
        is_series=True,
        line=name,
    )
