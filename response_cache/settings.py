"""Settings of the response cache; the table in README.md explains each."""

from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr

from gateway_core.contract import CACHE_WAIT_S_MAX
from gateway_core.settings import ProcessSettings, TlsFiles

MIB: Final = 1024 * 1024


class Settings(ProcessSettings):
    """What `python -m response_cache` needs to know."""

    redis_url: SecretStr
    # 32 bytes in URL-safe base64; without the same one nobody reads what was cached.
    response_cache_key: SecretStr
    response_cache_host: str = "127.0.0.1"
    response_cache_port: int = 9006
    response_cache_tls_certificate: Path
    response_cache_tls_key: Path
    response_cache_tls_ca: Path
    response_cache_metrics_host: str = "127.0.0.1"
    response_cache_metrics_port: int = 9106
    response_cache_requests_max: int = Field(default=2000, ge=1, le=100_000)
    response_cache_ttl_s: int = Field(default=3600, ge=1, le=2_592_000)
    response_cache_answer_bytes_max: int = Field(default=MIB, ge=1024, le=64 * MIB)
    response_cache_bytes_max: int = Field(default=64 * MIB, ge=MIB, le=1024 * 1024 * MIB)
    response_cache_org_bytes_max: int = Field(default=16 * MIB, ge=MIB, le=1024 * 1024 * MIB)
    response_cache_wait_s: int = Field(default=15, ge=0, le=CACHE_WAIT_S_MAX)

    @property
    def tls(self) -> TlsFiles:
        """What it shows to Envoy, and what Envoy has to show."""
        return TlsFiles(self.response_cache_tls_certificate, self.response_cache_tls_key, self.response_cache_tls_ca)
