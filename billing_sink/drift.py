"""How far providers' own accounts were from ours when they were last compared, as metrics."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Gauge

from billing_sink.postgres_books import Drift

PPM = 1_000_000


class DriftMetrics:
    """Shows what the newest reconciliation with each provider has found."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._drift = Gauge(
            "tollgate_billing_sink_reconciliation_drift_ratio",
            "Largest difference between a provider's totals and ours when they were last compared",
            ["provider"],
            registry=registry,
        )
        self._beyond = Gauge(
            "tollgate_billing_sink_reconciliation_lines_beyond",
            "Lines of that comparison that were not within its threshold",
            ["provider"],
            registry=registry,
        )
        self._made_at = Gauge(
            "tollgate_billing_sink_reconciliation_timestamp_seconds",
            "When a provider's account was last compared with ours",
            ["provider"],
            registry=registry,
        )

    def show(self, drifts: Sequence[Drift]) -> None:
        """Of each provider, the newest."""
        for each in drifts:
            self._drift.labels(each.provider).set(each.drift_ppm / PPM)
            self._beyond.labels(each.provider).set(each.beyond)
            self._made_at.labels(each.provider).set(each.made_at.timestamp())
