"""What the gateway is made of, and how each part does. From Prometheus alone."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.board import processes_board
from dashboards.panels import chart, stat
from dashboards.queries import PrometheusQuery, promql, promql_now

_ACTIVE = "and on (instance) tollgate_billing_sink_active == 1"
_GATEWAY = '{envoy_http_conn_manager_prefix="gateway"}'
_SHARES = (0.5, 0.95, 0.99)


def internals() -> Dashboard:
    """ext_authz, the sink, discovery, the translator, the cache."""
    return processes_board(
        *("internals", "internals", "How each part of the gateway does."),
        [
            (
                "",
                [
                    stat("Processes that answer", promql_now("sum(up)"), unit=units.Short),
                    stat("That do not", promql_now("count(up == 0) or vector(0)"), unit=units.Short),
                    stat("Envoys connected", promql_now("max(tollgate_control_plane_xds_nodes)"), unit=units.Short),
                    stat(
                        "Catalogue's revision",
                        promql_now("max(tollgate_control_plane_catalog_revision)"),
                        unit=units.Short,
                    ),
                    stat(
                        "Not in the ledger yet", promql_now("max(tollgate_billing_sink_lag_bytes)"), unit=units.BytesIEC
                    ),
                    stat(
                        "ClickHouse is behind by",
                        promql_now(f"time() - tollgate_billing_sink_export_caught_up_timestamp_seconds {_ACTIVE}"),
                        unit=units.Seconds,
                    ),
                ],
            ),
            (
                "Envoy",
                [
                    chart(
                        "Requests, by class of status",
                        promql(
                            f"sum by (envoy_response_code_class) (rate(envoy_http_downstream_rq_xx{_GATEWAY}[$__rate_interval]))",
                            "{{envoy_response_code_class}}xx",
                        ),
                        unit=units.RequestsPerSecond,
                        is_stacked=True,
                    ),
                    chart(
                        "Open",
                        promql(f"sum(envoy_http_downstream_rq_active{_GATEWAY})", "requests"),
                        promql(f"sum(envoy_http_downstream_cx_active{_GATEWAY})", "connections"),
                        unit=units.Short,
                    ),
                    chart(
                        "Scripts that failed",
                        promql("sum(increase(envoy_http_lua_errors[$__rate_interval]))", "in front"),
                        promql("sum(increase(envoy_cluster_lua_errors[$__rate_interval]))", "at providers"),
                        unit=units.Short,
                        description="Zero. What a script has not done for a request, nothing else does.",
                    ),
                    chart(
                        "Memory",
                        promql("envoy_server_memory_physical_size", "{{instance}}"),
                        unit=units.BytesIEC,
                    ),
                    chart(
                        "Overload",
                        promql(
                            "envoy_overload_envoy_resource_monitors_fixed_heap_pressure / 100", "memory, {{instance}}"
                        ),
                        promql(
                            "envoy_overload_envoy_resource_monitors_global_downstream_max_connections_pressure / 100",
                            "connections, {{instance}}",
                        ),
                        unit=units.PercentUnit,
                        description="From 90 % of the memory on, requests are refused and the largest ones end.",
                    ),
                    chart(
                        "Could not be reached",
                        promql(
                            "sum by (envoy_cluster_name) (increase(envoy_cluster_upstream_cx_connect_fail[$__rate_interval])) > 0",
                            "{{envoy_cluster_name}}",
                        ),
                        unit=units.Short,
                        description="Connections that did not come about, by cluster: a provider, or a part of the gateway.",
                    ),
                ],
            ),
            (
                "ext_authz",
                [
                    chart(
                        "Decisions",
                        promql("sum by (decision) (rate(tollgate_ext_authz_decisions_total[$__rate_interval]))"),
                        unit=units.RequestsPerSecond,
                        is_stacked=True,
                        description="Requests that Envoy let pass by a lease are in none; they are beside it.",
                    ),
                    chart("Time to decide", *_percentiles("tollgate_ext_authz_seconds"), unit=units.Seconds),
                    chart(
                        "Leases",
                        promql("sum by (what) (rate(tollgate_ext_authz_lease_uses_total[$__rate_interval]))"),
                        unit=units.RequestsPerSecond,
                        description="Requests that Envoy was lent the right to let pass, and those given back.",
                    ),
                    chart(
                        "Refused by a limit",
                        promql("sum by (limit, scope) (rate(tollgate_ext_authz_limited_total[$__rate_interval]))"),
                        unit=units.RequestsPerSecond,
                        is_stacked=True,
                    ),
                    chart(
                        "Hears of changes, counts with the others",
                        promql("tollgate_ext_authz_listening", "hears, {{instance}}"),
                        promql("tollgate_ext_authz_limits_shared", "counts, {{instance}}"),
                        unit=units.Short,
                    ),
                    chart(
                        "Dropped, or not ours",
                        promql(
                            "sum(increase(tollgate_ext_authz_ends_dropped_total[$__rate_interval]))",
                            "ends not noted down",
                        ),
                        promql(
                            "sum(increase(tollgate_ext_authz_foreign_announcements_total[$__rate_interval]))",
                            "announcements of somebody else",
                        ),
                        unit=units.Short,
                    ),
                ],
            ),
            (
                "Billing sink",
                [
                    chart(
                        "Requests recorded",
                        promql("sum by (outcome) (rate(tollgate_billing_sink_requests_total[$__rate_interval]))"),
                        unit=units.RequestsPerSecond,
                        is_stacked=True,
                    ),
                    chart(
                        *("Not in the ledger yet", promql("tollgate_billing_sink_lag_bytes", "{{instance}}")),
                        unit=units.BytesIEC,
                    ),
                    chart(
                        "Rows copied to ClickHouse",
                        promql("sum(rate(tollgate_billing_sink_exported_rows_total[$__rate_interval]))", "rows"),
                        unit=units.OpsPerSecond,
                    ),
                    chart("Works", promql("tollgate_billing_sink_active", "{{instance}}"), unit=units.Short),
                    chart(
                        "What Envoy asked",
                        promql(
                            "sum by (outcome) (rate(tollgate_billing_sink_quotes_total[$__rate_interval]))",
                            "cost, {{outcome}}",
                        ),
                        promql(
                            "sum by (outcome) (rate(tollgate_billing_sink_kept_total[$__rate_interval]))",
                            "kept, {{outcome}}",
                        ),
                        unit=units.RequestsPerSecond,
                    ),
                    chart(
                        "Batches that are open",
                        promql("max(tollgate_billing_sink_batches_open)", "batches"),
                        unit=units.Short,
                    ),
                ],
            ),
            (
                "Discovery",
                [
                    chart(
                        "ACKs and NACKs",
                        promql(
                            "sum by (type, answer) (increase(tollgate_control_plane_xds_answers_total[$__rate_interval]))"
                        ),
                        unit=units.Short,
                    ),
                    chart(
                        "Envoys",
                        promql("sum(tollgate_control_plane_xds_nodes)", "connected"),
                        promql("sum(tollgate_control_plane_xds_silent_nodes)", "silent"),
                        unit=units.Short,
                    ),
                    chart(
                        "Revision that Envoys are told",
                        promql("tollgate_control_plane_catalog_revision", "{{instance}}"),
                        unit=units.Short,
                    ),
                    chart(
                        "Revisions no configuration could be made of",
                        promql(
                            "sum(increase(tollgate_control_plane_catalog_untranslatable_total[$__rate_interval]))",
                            "revisions",
                        ),
                        unit=units.Short,
                    ),
                ],
            ),
            (
                "Control plane",
                [
                    chart(
                        "Connections",
                        promql("tollgate_http_connections", "{{job}} {{instance}}"),
                        unit=units.Short,
                    ),
                    chart(
                        "Connections cut",
                        promql(
                            "sum by (job, reason) (increase(tollgate_http_connections_cut_total[$__rate_interval]))"
                        ),
                        unit=units.Short,
                    ),
                    chart(
                        "Webhooks and mails waiting",
                        promql("max(tollgate_control_plane_webhook_deliveries_waiting)", "webhooks"),
                        promql("sum(tollgate_control_plane_mails_waiting)", "mails"),
                        unit=units.Short,
                    ),
                    chart(
                        "Webhooks, mails and Stripe's events",
                        promql(
                            "sum by (outcome) (increase(tollgate_control_plane_webhook_deliveries_total[$__rate_interval]))",
                            "webhooks, {{outcome}}",
                        ),
                        promql(
                            "sum by (outcome) (increase(tollgate_control_plane_mails_total[$__rate_interval]))",
                            "mails, {{outcome}}",
                        ),
                        promql(
                            "sum by (outcome) (increase(tollgate_control_plane_stripe_events_total[$__rate_interval]))",
                            "events, {{outcome}}",
                        ),
                        unit=units.Short,
                    ),
                ],
            ),
            (
                "Translator and cache",
                [
                    chart(
                        "Attempts translated",
                        promql(
                            "sum by (client, provider, outcome) (rate(tollgate_translator_attempts_total[$__rate_interval]))"
                        ),
                        unit=units.RequestsPerSecond,
                        is_stacked=True,
                    ),
                    chart("Time for one message", *_percentiles("tollgate_translator_seconds"), unit=units.Seconds),
                    chart(
                        "Asked for a cached answer",
                        promql("sum by (outcome) (rate(tollgate_response_cache_requests_total[$__rate_interval]))"),
                        unit=units.RequestsPerSecond,
                        is_stacked=True,
                    ),
                    chart(
                        "Time until the cache lets go",
                        *_percentiles("tollgate_response_cache_seconds"),
                        unit=units.Seconds,
                    ),
                ],
            ),
        ],
    )


def _percentiles(histogram: str) -> list[PrometheusQuery]:
    return [
        promql(
            f"histogram_quantile({share}, sum by (le) (rate({histogram}_bucket[$__rate_interval])))",
            f"p{share * 100:.0f}",
        )
        for share in _SHARES
    ]
