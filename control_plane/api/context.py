"""What handlers find in the application, by typed keys."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import asyncpg
from aiohttp import web
from pydantic import SecretStr

from control_plane.accounts.mail import MailSender
from control_plane.accounts.passwords import Passwords
from control_plane.accounts.postgres_signing import AccessTokens
from control_plane.accounts.throttle import Throttle
from control_plane.analytics.clickhouse_analytics import ClickHouseAnalytics
from control_plane.api.authentication import Authenticator
from control_plane.api.paging import Cursors
from control_plane.catalog.addresses import Resolve
from control_plane.catalog.model import Catalog
from control_plane.circumstances import Circumstances
from control_plane.oidc.issuer_client import IssuerClient
from control_plane.payments.stripe_payments import StripePayments
from control_plane.redis_cached_answers import RedisCachedAnswers
from control_plane.sealing import Seal
from control_plane.workbench import Workbench
from control_plane.xds.configuration_check import ConfigurationCheck
from gateway_core.clock import Now
from gateway_core.ids import RandomBytes
from gateway_core.logs import Logger
from gateway_core.networks import Network

OPERATION_WAITERS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Services:
    """What operations work with.

    Attributes:
        catalog_pool: connections for what is about the catalogue; `pool` is for everything else.
        pepper: the key under which API keys and tokens are hashed.
        has_simulator: whether there is somebody to answer test keys.
        has_translator: whether there is somebody who turns one dialect into another.
        issuers: where users can log in besides here, by name.
        public_url: what links in mails and redirect URIs begin with; no slash at the end.
        payments: Stripe; None if this installation takes no payments.
        stripe_webhook_secret: what Stripe signs its events with; without it none is taken.
        private_providers_allowed: whether a provider may be on loopback or in a private network.
        private_webhooks_allowed: the same for webhooks.
        own_keys_max: how many keys of their own all organisations may have together.
        trusted_proxies: networks whose word for where a request comes from is taken.
        resolve: asks the DNS.
        operation_waiters: places for calls that wait for the end of a change; each asks Postgres again and again.
        body_s: how long a body may take to arrive.
    """

    pool: asyncpg.Pool
    catalog_pool: asyncpg.Pool
    authenticator: Authenticator
    access_tokens: AccessTokens
    passwords: Passwords
    throttle: Throttle
    cached_answers: RedisCachedAnswers
    analytics: ClickHouseAnalytics
    mail: MailSender
    issuers: Mapping[str, IssuerClient]
    seal: Seal
    cursors: Cursors
    payments: StripePayments | None
    stripe_webhook_secret: SecretStr | None
    pepper: SecretStr
    public_url: str
    has_simulator: bool
    has_translator: bool
    require_verified_email: bool
    private_providers_allowed: bool
    private_webhooks_allowed: bool
    own_keys_max: int
    trusted_proxies: Sequence[Network]
    resolve: Resolve
    body_s: float
    now: Now
    random_bytes: RandomBytes
    log: Logger
    current_catalog: Callable[[], Catalog]
    configuration_check: ConfigurationCheck
    workbench: Workbench
    operation_waiters: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OPERATION_WAITERS_MAX))

    @property
    def circumstances(self) -> Circumstances:
        """What bodies are judged by now."""
        return Circumstances(
            now=self.now(),
            private_providers_allowed=self.private_providers_allowed,
            private_webhooks_allowed=self.private_webhooks_allowed,
            issuers=self.issuers.keys(),
        )


SERVICES: Final = web.AppKey("services", Services)
