"""Settings of the translator; the table in README.md explains each. It has no database, hence no `ServiceSettings`."""

import os
from pathlib import Path
from typing import ClassVar, Final, Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway_core.settings import TlsFiles

MIB: Final = 1024 * 1024


class Settings(BaseSettings):
    """What `python -m translator` needs to know."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="TOLLGATE_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

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
    log_level: str = "INFO"

    @classmethod
    def load(cls) -> Self:
        """Read the environment and, if TOLLGATE_SECRETS_DIR is set, the files in it. The environment wins."""
        directory = os.environ.get("TOLLGATE_SECRETS_DIR")  # noqa: TID251 - this is where settings are read
        return cls(_secrets_dir=directory)

    @property
    def tls(self) -> TlsFiles:
        """What it shows to Envoy, and what Envoy has to show."""
        return TlsFiles(self.translator_tls_certificate, self.translator_tls_key, self.translator_tls_ca)
