"""Settings of the billing sink; the table in README.md explains each."""

from pathlib import Path

from pydantic import Field, SecretStr

from gateway_core.settings import HostPort, ServiceSettings, TlsFiles


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
    books_inspected_at_hour: int = Field(default=3, ge=0, le=23)
    hold_sweep_ms: int = Field(default=5000, ge=10, le=600_000)

    @property
    def keepers(self) -> HostPort:
        """The listener of Envoy's."""
        return HostPort(self.keepers_host, self.keepers_port)

    @property
    def tls(self) -> TlsFiles:
        """What Envoy is shown, and the authority of what it shows."""
        return TlsFiles(self.billing_sink_tls_certificate, self.billing_sink_tls_key, self.billing_sink_tls_ca)
