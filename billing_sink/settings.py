"""Settings of the billing sink; the table in README.md explains each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr

from gateway_core.settings import HostPort, ServiceSettings, TlsFiles

MINUTES_DAYS: Final = 40


class MigrationSettings(ServiceSettings):
    """What `python -m billing_sink migrate` needs to know."""

    clickhouse_url: SecretStr


class Settings(MigrationSettings):
    """What `python -m billing_sink` needs to know."""

    billing_sink_host: str = "127.0.0.1"
    billing_sink_port: int = 9003
    billing_sink_tls_certificate: Path
    billing_sink_tls_key: Path
    billing_sink_tls_ca: Path
    # Where Envoy leads to providers: `keepers_host` and `keepers_port` of the control plane, as seen from here.
    keepers_host: str = "127.0.0.1"
    keepers_port: int = 8082
    batches_poll_ms: int = Field(default=15_000, ge=10, le=600_000)
    spool_dir: str = "/var/lib/tollgate/spool"
    billing_sink_metrics_host: str = "127.0.0.1"
    billing_sink_metrics_port: int = 9104
    spool_batch_lines: int = Field(default=2000, ge=1, le=100_000)
    spool_poll_ms: int = Field(default=100, ge=1, le=10_000)
    export_batch_rows: int = Field(default=5000, ge=1, le=100_000)
    export_poll_ms: int = Field(default=1000, ge=1, le=60_000)
    roll_up_ms: int = Field(default=5000, ge=100, le=600_000)
    # None: for ever. Minutes are read for a month, so there is more than that of them.
    clickhouse_requests_days: int | None = Field(default=None, ge=MINUTES_DAYS, le=20_000)
    clickhouse_minutes_days: int | None = Field(default=MINUTES_DAYS, ge=MINUTES_DAYS, le=20_000)
    books_inspected_at_hour: int = Field(default=3, ge=0, le=23)
    hold_sweep_ms: int = Field(default=5000, ge=10, le=600_000)

    @property
    def kept_in_clickhouse(self) -> Mapping[str, int | None]:
        """For how many days, of the tables that do not keep everything for ever."""
        return {
            "requests": self.clickhouse_requests_days,
            "attempts": self.clickhouse_requests_days,
            "requests_by_minute": self.clickhouse_minutes_days,
        }

    @property
    def keepers(self) -> HostPort:
        """The listener of Envoy's."""
        return HostPort(self.keepers_host, self.keepers_port)

    @property
    def tls(self) -> TlsFiles:
        """What Envoy is shown, and the authority of what it shows."""
        return TlsFiles(self.billing_sink_tls_certificate, self.billing_sink_tls_key, self.billing_sink_tls_ca)
