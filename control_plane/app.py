"""The wiring of the control plane, top to bottom: catalogue to snapshot to Envoy, and the HTTP API beside it."""

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import aiohttp
import asyncpg
from argon2 import PasswordHasher
from prometheus_client import CollectorRegistry

from control_plane.accounts.mail import LogMailSender, MailSender
from control_plane.accounts.passwords import AT_ONCE_MAX, Passwords
from control_plane.accounts.postgres_console_sessions import forget_old_console_sessions
from control_plane.accounts.postgres_identities import forget_old_log_ins
from control_plane.accounts.postgres_propagation import forget_old_uptakes
from control_plane.accounts.postgres_signing import AccessTokens
from control_plane.accounts.redis_counters import RedisCounters
from control_plane.accounts.smtp_mail import SmtpMailSender
from control_plane.accounts.throttle import LocalCounters, Throttle
from control_plane.analytics.clickhouse_analytics import PLACES as ANALYTICS_PLACES
from control_plane.analytics.clickhouse_analytics import WAITING_MAX as ANALYTICS_WAITING_MAX
from control_plane.analytics.clickhouse_analytics import ClickHouseAnalytics
from control_plane.api.app import make_app
from control_plane.api.authentication import Authenticator
from control_plane.api.context import Services
from control_plane.api.paging import Cursors
from control_plane.api.postgres_idempotency import forget_old_answers
from control_plane.catalog.dns_lookup import resolve_host
from control_plane.catalog.postgres_states import forget_old_states
from control_plane.catalog.postgres_store import read_catalog
from control_plane.catalog.watcher import CatalogWatcher
from control_plane.console.app import add_console
from control_plane.console.gateway import gateway_http
from control_plane.health.probes import HEADERS as PROBE_HEADERS
from control_plane.health.probes import Probes
from control_plane.health.watch import HealthWatch
from control_plane.node_reports import NodeReports
from control_plane.oidc.issuer_client import IssuerClient, outgoing_http
from control_plane.payments.low_balance import LowBalance
from control_plane.payments.stripe_payments import StripePayments
from control_plane.price_schedule import PriceSchedule
from control_plane.publisher import Publisher
from control_plane.redis_cached_answers import RedisCachedAnswers
from control_plane.sealing import Seal
from control_plane.settings import Settings
from control_plane.speed_watch import SpeedWatch
from control_plane.statements.closing import InvoiceClosing
from control_plane.threads import threads
from control_plane.webhooks.delivery import WebhookDelivery
from control_plane.webhooks.outgoing import judging_http, webhook_http
from control_plane.webhooks.postgres_events import forget_old_events
from control_plane.workbench import PLACES, Workbench
from control_plane.xds.cache import SnapshotCache
from control_plane.xds.configuration_check import ConfigurationCheck
from control_plane.xds.nodes import NodeRegistry
from control_plane.xds.postgres_nodes import PostgresNodes
from control_plane.xds.server import AggregatedDiscovery, start_server
from control_plane.xds.translate import Translator
from gateway_core.clock import monotonic, utc_now
from gateway_core.connections import Bounds
from gateway_core.contract import Channel, Service
from gateway_core.health import serving, serving_health
from gateway_core.ids import new_id
from gateway_core.logs import Logger
from gateway_core.postgres import Listener, Trouble, connect_pool

POOL_SIZE_MAX = 14
CATALOG_POOL_SIZE_MAX = 6
"""Connections for operations about the catalogue, which change it one at a time and may wait for each other: nobody else waits
for one of these."""
HOUSEKEEPING_S = 600
BODY_S = 30.0


async def serve(settings: Settings, log: Logger) -> None:
    """Run until cancelled."""
    registry = CollectorRegistry()
    instance = new_id("cp", secrets.token_bytes)
    reports = NodeReports(log)
    nodes = NodeRegistry(utc_now, reports.changed, registry)
    cache = SnapshotCache()
    seal = Seal(settings.credential_key, secrets.token_bytes, before=settings.credential_keys_before)

    async with (
        threads(AT_ONCE_MAX, "passwords") as password_threads,
        threads(PLACES, "workbench") as workbench_threads,
        threads(ANALYTICS_PLACES, "analytics") as analytics_threads,
        await connect_pool(settings.postgres_dsn, service=Service.CONTROL_PLANE, size_max=POOL_SIZE_MAX) as pool,
        await connect_pool(
            settings.postgres_dsn, service=Service.CONTROL_PLANE, size_max=CATALOG_POOL_SIZE_MAX
        ) as catalog_pool,
        outgoing_http() as http,
        webhook_http(private_allowed=settings.private_webhooks_allowed) as to_webhooks,
        gateway_http() as to_gateway,
        judging_http(PROBE_HEADERS, private_allowed=settings.private_providers_allowed) as to_providers,
        _mail_sender(settings, registry, log) as mail,
    ):
        listener = Listener(
            settings.postgres_dsn,
            [Channel.CATALOG, Channel.AUTHORIZER, Channel.ATTEMPTS, Channel.PROVIDER_STATES],
            service=Service.CONTROL_PLANE,
            registry=registry,
            log=log,
        )
        health = HealthWatch(pool, utc_now, log, out_for=timedelta(seconds=settings.provider_out_s))
        watcher = CatalogWatcher(
            *(pool, listener, seal, log), authorizer_changed=reports.changed, attempts_recorded=health.news.set
        )
        first = await read_catalog(pool, seal, log)
        publisher = Publisher(first, Translator(settings), cache, reports.changed, registry, log)
        discovery = await start_server(
            AggregatedDiscovery(cache, nodes, log), f"{settings.xds_host}:{settings.xds_port}", settings.xds_tls
        )
        public_url = settings.public_url or f"http://{settings.control_plane_host}:{settings.control_plane_port}"
        public_url = public_url.rstrip("/")
        counters = None if settings.redis_url is None else RedisCounters(settings.redis_url)
        cached_answers = RedisCachedAnswers(settings.redis_url)
        analytics = ClickHouseAnalytics(
            settings.clickhouse_url,
            Workbench(analytics_threads, places=ANALYTICS_PLACES, waiting_max=ANALYTICS_WAITING_MAX),
        )
        access_tokens = AccessTokens(
            pool, seal, utc_now, secrets.token_bytes, log, rotate_after=timedelta(days=settings.signing_key_days)
        )
        services = Services(
            pool=pool,
            catalog_pool=catalog_pool,
            authenticator=Authenticator(pool, access_tokens, settings.api_key_pepper, utc_now),
            access_tokens=access_tokens,
            passwords=Passwords(PasswordHasher(), password_threads),
            throttle=Throttle(counters, LocalCounters(monotonic), log),
            cached_answers=cached_answers,
            analytics=analytics,
            mail=mail,
            issuers={
                issuer.name: IssuerClient(issuer, http, utc_now, log, loopback_http=settings.oidc_loopback_http)
                for issuer in settings.oidc_issuers
            },
            seal=seal,
            cursors=Cursors(settings.api_key_pepper),
            payments=_payments(settings, public_url, http, log),
            stripe_webhook_secret=settings.stripe_webhook_secret,
            pepper=settings.api_key_pepper,
            public_url=public_url,
            has_simulator=settings.simulator_url is not None,
            has_translator=settings.translates,
            require_verified_email=settings.require_verified_email,
            private_providers_allowed=settings.private_providers_allowed,
            private_webhooks_allowed=settings.private_webhooks_allowed,
            own_keys_max=settings.own_keys_max,
            trusted_proxies=settings.trusted_proxies,
            resolve=resolve_host,
            body_s=BODY_S,
            now=utc_now,
            random_bytes=secrets.token_bytes,
            log=log,
            current_catalog=lambda: publisher.catalog,
            configuration_check=ConfigurationCheck(settings),
            workbench=Workbench(workbench_threads),
        )
        app = make_app(services, registry=registry)
        add_console(app, services, gateway_url=settings.gateway_url, http=to_gateway)
        bounds = Bounds(
            per_address_max=settings.control_plane_connections_per_address_max, many_behind=settings.trusted_proxies
        )

        try:
            async with (
                serving(
                    app, settings.control_plane_host, settings.control_plane_port, registry=registry, bounds=bounds
                ),
                serving_health(
                    settings.control_plane_metrics_host,
                    settings.control_plane_metrics_port,
                    lambda: None if cache.snapshot else "the catalogue has not been read yet",
                    registry,
                    counts_connections=False,
                ),
                asyncio.TaskGroup() as group,
            ):
                group.create_task(watcher.listen(), name="catalog_listener")
                group.create_task(publisher.run(watcher), name="publisher")
                group.create_task(reports.run(publisher, nodes, PostgresNodes(pool, instance)), name="node_reports")
                group.create_task(PriceSchedule(pool, utc_now, secrets.token_bytes, log).run(), name="price_schedule")
                group.create_task(SpeedWatch(pool, utc_now, log).run(), name="speed_watch")
                group.create_task(
                    LowBalance(pool, services.payments, mail, public_url, utc_now, secrets.token_bytes, log).run(),
                    name="low_balance",
                )
                closing = InvoiceClosing(pool, utc_now, secrets.token_bytes, log)
                group.create_task(closing.run(), name="invoice_closing")
                group.create_task(
                    WebhookDelivery(
                        *(pool, to_webhooks, seal, mail, public_url, registry, log),
                        now=utc_now,
                        random_bytes=secrets.token_bytes,
                    ).run(),
                    name="webhook_delivery",
                )
                if settings.provider_health:
                    group.create_task(health.run(), name="provider_health")
                if settings.provider_health and settings.provider_probe_interval_s:
                    every = timedelta(seconds=settings.provider_probe_interval_s)
                    probes = Probes(pool, to_providers, lambda: publisher.catalog, utc_now, log, every=every)
                    group.create_task(probes.run(), name="provider_probes")
                group.create_task(_keep_house(pool, log), name="housekeeping")
        finally:
            if counters is not None:
                await counters.close()
            await cached_answers.close()
            await analytics.close()
            await discovery.stop(grace=0.5)


def _payments(settings: Settings, public_url: str, http: aiohttp.ClientSession, log: Logger) -> StripePayments | None:
    if settings.stripe_secret_key is None:
        return None
    return StripePayments(settings.stripe_secret_key, settings.stripe_api_base, public_url, http, log)


@asynccontextmanager
async def _mail_sender(settings: Settings, registry: CollectorRegistry, log: Logger) -> AsyncIterator[MailSender]:
    """Whoever carries mails, at work until nothing more can ask for one."""
    relay = settings.relay
    if relay is None:
        yield LogMailSender(log)
        return
    sender = SmtpMailSender(
        relay, ssl.create_default_context(), registry, log, now=utc_now, random_bytes=secrets.token_bytes
    )
    async with sender.delivering():
        yield sender


async def _keep_house(pool: asyncpg.Pool, log: Logger) -> None:
    """Remove what has outlived its promise, now and then."""
    while True:
        try:
            await forget_old_answers(pool)
            await forget_old_uptakes(pool)
            await forget_old_log_ins(pool, utc_now())
            await forget_old_console_sessions(pool, utc_now())
            await forget_old_events(pool, utc_now())
            await forget_old_states(pool, utc_now())
        except Trouble as error:
            log.warning("housekeeping_failed", error=type(error).__name__)
        await asyncio.sleep(HOUSEKEEPING_S)
