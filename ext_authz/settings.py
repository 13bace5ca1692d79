"""Settings of ext_authz; the table in README.md explains each."""

from pathlib import Path

from pydantic import Field, SecretStr

from gateway_core.contract import REQUEST_S_MAX
from gateway_core.settings import HostPorts, ServiceSettings, TlsFiles


class Settings(ServiceSettings):
    """What `python -m ext_authz` needs to know."""

    api_key_pepper: SecretStr
    redis_url: SecretStr | None = None
    # As the control plane has it: whether what needs a translator can be bought.
    translator_endpoints: HostPorts = ()
    ext_authz_host: str = "127.0.0.1"
    ext_authz_port: int = 9002
    ext_authz_tls_certificate: Path
    ext_authz_tls_key: Path
    ext_authz_tls_ca: Path
    ext_authz_metrics_host: str = "127.0.0.1"
    ext_authz_metrics_port: int = 9102
    key_cache_ttl_ms: int = Field(default=60_000, ge=0, le=3_600_000)
    key_cache_stale_ms: int = Field(default=120_000, ge=0, le=3_600_000)
    key_cache_entries: int = Field(default=100_000, ge=1, le=10_000_000)
    hold_ttl_ms: int = Field(default=3_600_000, ge=(REQUEST_S_MAX + 60) * 1000, le=86_400_000)
    # Of one organisation, with providers together; those of test keys beside them.
    files_max: int = Field(default=1000, ge=0, le=1_000_000)
    file_bytes_max: int = Field(default=10 * 2**30, ge=0, le=2**50)
    # Of what is free in a balance, in millionths; 0: every request has a hold of its own.
    slice_share_ppm: int = Field(default=20_000, ge=0, le=500_000)
    # 0: Envoy asks about every request.
    lease_ttl_ms: int = Field(default=500, ge=0, le=900)
    # Of a session: each at its dearest. Where there is the money for fewer, it may have fewer.
    session_responses_held: int = Field(default=4, ge=1, le=1000)
    checks_max: int = Field(default=1000, ge=1, le=100_000)

    @property
    def tls(self) -> TlsFiles:
        """What it shows to Envoy, and what Envoy has to show."""
        return TlsFiles(self.ext_authz_tls_certificate, self.ext_authz_tls_key, self.ext_authz_tls_ca)
