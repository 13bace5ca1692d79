"""What balances have, what of it is held, and what waits for a person to decide, as metrics."""

from prometheus_client import CollectorRegistry, Gauge

from billing_sink.postgres_books import Standing


class StandingMetrics:
    """Shows how things stood when somebody looked last."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._balances = Gauge(
            "tollgate_billing_sink_balances_nano_usd",
            "What all balances have together, held or not",
            ["mode"],
            registry=registry,
        )
        self._held = Gauge("tollgate_billing_sink_held_nano_usd", "What is held of them", ["mode"], registry=registry)
        self._quarantined = Gauge(
            "tollgate_billing_sink_quarantine_waiting",
            "Lines set aside that nobody has decided about",
            registry=registry,
        )

    def show(self, standing: Standing) -> None:
        """As it is now."""
        for mode, balances in standing.balances.items():
            self._balances.labels(mode).set(balances.posted_nano_usd)
            self._held.labels(mode).set(balances.held_nano_usd)
        self._quarantined.set(standing.quarantined)
