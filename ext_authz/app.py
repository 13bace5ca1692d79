"""The wiring of ext_authz, top to bottom: keys and catalogue in memory, holds in Postgres, one gRPC method."""

import asyncio
import re
from datetime import timedelta

from prometheus_client import CollectorRegistry

from ext_authz.keys import KeyCache
from ext_authz.postgres_holds import PostgresHolds
from ext_authz.postgres_offers import PostgresOffers
from ext_authz.servicer import Authorization, start_server
from ext_authz.settings import Settings
from gateway_core.api_keys import KeyHash
from gateway_core.clock import monotonic, utc_now
from gateway_core.contract import Channel
from gateway_core.health import always_ready, serving_health
from gateway_core.logs import Logger
from gateway_core.postgres import Notification, Trouble, connect_pool, notifications
from gateway_core.postgres_keys import PostgresKeys

POOL_SIZE_MAX = 16
STATEMENT_TIMEOUT_S = 1.5
"""Shorter than Envoy waits for an answer (`EXT_AUTHZ_ATTEMPT_TIMEOUT` in control_plane/xds/http_filters.py)."""
RETRY_S = 0.5

_HASH = re.compile("[0-9a-f]{64}")


async def serve(settings: Settings, log: Logger) -> None:
    """Run until cancelled."""
    registry = CollectorRegistry()
    async with await connect_pool(
        settings.postgres_dsn, service="ext_authz", size_max=POOL_SIZE_MAX, timeout_s=STATEMENT_TIMEOUT_S
    ) as pool:
        offers = await PostgresOffers.read(pool)
        keys = KeyCache(
            PostgresKeys(pool),
            entries_max=settings.key_cache_entries,
            ttl_ms=settings.key_cache_ttl_ms,
            monotonic=monotonic,
        )
        service = Authorization(
            keys=keys,
            offers=offers,
            holds=PostgresHolds(pool, utc_now),
            pepper=settings.api_key_pepper,
            hold_ttl=timedelta(milliseconds=settings.hold_ttl_ms),
            now=utc_now,
            monotonic=monotonic,
            registry=registry,
            log=log,
        )
        address = f"{settings.ext_authz_host}:{settings.ext_authz_port}"
        server = await start_server(service, address, checks_max=settings.checks_max)
        stale = asyncio.Event()
        try:
            async with (
                serving_health(
                    settings.ext_authz_metrics_host, settings.ext_authz_metrics_port, always_ready, registry
                ),
                asyncio.TaskGroup() as group,
            ):
                group.create_task(_follow_changes(settings, keys, stale), name="follow_changes")
                group.create_task(_refresh_offers(offers, stale, log), name="refresh_offers")
        finally:
            await server.stop(grace=1.0)


async def _follow_changes(settings: Settings, keys: KeyCache, stale: asyncio.Event) -> None:
    channels = [Channel.API_KEY, Channel.CATALOG]
    async for change in notifications(settings.postgres_dsn, channels, service="ext_authz"):
        match change:
            case Notification(channel=Channel.API_KEY, payload=payload) if _HASH.fullmatch(payload):
                keys.forget(KeyHash(bytes.fromhex(payload)))
            case Notification(channel=Channel.CATALOG):
                stale.set()
            case _:
                # Something was missed, or is not understood.
                keys.forget_all()
                stale.set()


async def _refresh_offers(offers: PostgresOffers, stale: asyncio.Event, log: Logger) -> None:
    while True:
        await stale.wait()
        stale.clear()
        try:
            await offers.refresh()
        except Trouble as error:
            log.warning("offers_unreadable", error=type(error).__name__)
            stale.set()
            await asyncio.sleep(RETRY_S)
