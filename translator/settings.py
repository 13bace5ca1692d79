"""Settings of the translator; the table in README.md explains each."""

from pathlib import Path
from typing import Final

from pydantic import Field

from gateway_core.settings import ProcessSettings, TlsFiles

MIB: Final = 1024 * 1024


class Settings(ProcessSettings):
    """What `python -m translator` needs to know."""

    translator_host: str = "127.0.0.1"
    translator_port: int = 9005
    translator_tls_certificate: Path
    translator_tls_key: Path
    translator_tls_ca: Path
    translator_metrics_host: str = "127.0.0.1"
    translator_metrics_port: int = 9105
    translator_attempts_max: int = Field(default=2000, ge=1, le=100_000)
    # As Envoy has it; what becomes of a body may be twice as long.
    max_body_bytes: int = Field(default=32 * MIB, ge=1024, le=256 * MIB)

    @property
    def tls(self) -> TlsFiles:
        """What it shows to Envoy, and what Envoy has to show."""
        return TlsFiles(self.translator_tls_certificate, self.translator_tls_key, self.translator_tls_ca)
