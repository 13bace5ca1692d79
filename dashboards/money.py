"""What the platform earns and pays, and whether the books can be believed."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.board import requests_board
from dashboards.panels import chart, stat, table
from dashboards.queries import (
    COST_USD,
    MARGIN_USD,
    SPEND_USD,
    listed,
    number,
    over_time,
    promql,
    promql_now,
)

_ABSORBED_USD = "sum(absorbed_nano_usd) / 1e9"
_MARGIN_SHARE = f"{MARGIN_USD} / nullIf({SPEND_USD}, 0)"
_EARNED = (
    "sum(requests) AS request_count",
    f"{SPEND_USD} AS spend",
    f"{COST_USD} AS cost",
    f"{MARGIN_USD} AS margin",
    f"{_MARGIN_SHARE} AS margin_share",
    f"{_ABSORBED_USD} AS absorbed",
)
_ACTIVE = "and on (instance) tollgate_billing_sink_active == 1"


def money() -> Dashboard:
    """Revenue, cost, margin, holds, quarantine, reconciliation."""
    return requests_board(
        *("money", "money", "Revenue, cost and margin; what is held and set aside; and whether the books are proven."),
        [
            (
                "",
                [
                    stat(*("Revenue", number(SPEND_USD)), unit=units.Dollars, description="What tenants were charged."),
                    stat(
                        *("Cost", number(COST_USD)),
                        unit=units.Dollars,
                        description="What providers charge us. Requests with an organisation's own key cost us nothing.",
                    ),
                    stat("Margin", number(MARGIN_USD), unit=units.Dollars),
                    stat("Margin, share", number(_MARGIN_SHARE), unit=units.PercentUnit),
                    stat(
                        *("Paid by the platform", number(_ABSORBED_USD)),
                        unit=units.Dollars,
                        description="Cost beyond a hold that no balance had.",
                    ),
                    stat(
                        "Set aside, undecided",
                        promql_now(f"sum(tollgate_billing_sink_quarantine_waiting {_ACTIVE})"),
                        unit=units.Short,
                        description="Lines that nobody could price. `tollgate quarantine list` has them.",
                    ),
                ],
            ),
            (
                "Revenue and cost",
                [
                    chart(
                        "Revenue, cost and margin",
                        over_time(f"{SPEND_USD} AS revenue", f"{COST_USD} AS cost", f"{MARGIN_USD} AS margin"),
                        unit=units.Dollars,
                    ),
                    chart(
                        "Margin by provider",
                        over_time(f"{MARGIN_USD} AS margin", by="provider", where="provider != ''"),
                        unit=units.Dollars,
                    ),
                    table("Models and providers", listed(*_EARNED, by=["model", "provider"], first="-margin")),
                    table("Organisations", listed(*_EARNED, by=["org_id"], first="-margin")),
                ],
            ),
            (
                "Holds and quarantine",
                [
                    chart(
                        "Balances, and held of them",
                        promql(f"tollgate_billing_sink_balances_nano_usd {_ACTIVE}", "all of {{mode}}"),
                        promql(f"tollgate_billing_sink_held_nano_usd {_ACTIVE}", "held of {{mode}}"),
                        unit=units.Short,
                        description="In nano-USD, of all organisations together, whatever the variables say.",
                    ),
                    chart(
                        "Set aside",
                        promql("sum(increase(tollgate_billing_sink_quarantined_total[$__rate_interval]))", "lines"),
                        promql(
                            "sum(increase(tollgate_billing_sink_batch_lines_quarantined_total[$__rate_interval]))",
                            "lines of batches",
                        ),
                        unit=units.Short,
                    ),
                    chart(
                        "Never heard of again",
                        promql("sum(increase(tollgate_billing_sink_holds_expired_total[$__rate_interval]))", "holds"),
                        promql("sum(increase(tollgate_billing_sink_slices_closed_total[$__rate_interval]))", "slices"),
                        unit=units.Short,
                    ),
                    chart(
                        "Beyond their hold",
                        promql(
                            "sum by (mode) (increase(tollgate_billing_sink_beyond_hold_total[$__rate_interval]))",
                            "{{mode}}",
                        ),
                        unit=units.Short,
                        description="Requests that cost more than was held for them.",
                    ),
                ],
            ),
            (
                "Books",
                [
                    chart(
                        "Found wrong",
                        promql(f"tollgate_billing_sink_books_wrong {_ACTIVE}", "{{check}}"),
                        unit=units.Short,
                        description="Zero, all of it, unless something is.",
                    ),
                    chart(
                        "Since the books were inspected",
                        promql(
                            f"time() - tollgate_billing_sink_books_inspected_timestamp_seconds {_ACTIVE}", "inspected"
                        ),
                        unit=units.Seconds,
                    ),
                    chart(
                        "Providers' accounts against ours",
                        promql(f"tollgate_billing_sink_reconciliation_drift_ratio {_ACTIVE}", "{{provider}}"),
                        unit=units.PercentUnit,
                        description="The largest difference of a total when they were last compared.",
                    ),
                    chart(
                        "Lines that differ",
                        promql(f"tollgate_billing_sink_reconciliation_lines_beyond {_ACTIVE}", "{{provider}}"),
                        unit=units.Short,
                    ),
                ],
            ),
        ],
    )
