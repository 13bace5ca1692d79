"""What the billing sink answers Envoy with, on a free port of loopback, over real TLS and on a real Postgres; no provider is asked."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from prometheus_client import CollectorRegistry

from billing_sink.batches.api import BatchesApi
from billing_sink.batches.cancellation import Cancellation
from billing_sink.batches.creation import Creation
from billing_sink.batches.keepers import connected_keepers
from billing_sink.batches.postgres_assortment import PostgresAssortment
from billing_sink.batches.postgres_batches import PostgresBatches
from billing_sink.current_prices import CurrentPrices
from billing_sink.envoy_api import for_envoy
from billing_sink.keeping import Keeping
from billing_sink.postgres_prices import PostgresPrices
from billing_sink.quotes import Quotes
from gateway_core.clock import utc_now
from gateway_core.contract import Peer
from gateway_core.health import serving
from gateway_core.mutual_tls import client_context, server_context
from gateway_core.settings import HostPort
from tests.support.logs import QUIET
from tests.support.planes import Certificates


@asynccontextmanager
async def serving_envoy_api(pool: asyncpg.Pool, certificates: Certificates) -> AsyncIterator[str]:
    """Serve it while the block runs; yields its URL."""
    registry = CollectorRegistry()
    batches = PostgresBatches(pool)
    files = certificates.of(Peer.BILLING_SINK)
    async with connected_keepers(HostPort("127.0.0.1", 1), client_context(files)) as keepers:
        prices = CurrentPrices(PostgresPrices(pool))
        creation = Creation(
            batches,
            keepers,
            PostgresAssortment(pool),
            prices,
            now=utc_now,
            random_bytes=secrets.token_bytes,
            log=QUIET,
        )
        app = for_envoy(
            Quotes(prices, registry, QUIET),
            Keeping(pool, registry, QUIET),
            BatchesApi(batches, creation, Cancellation(batches, keepers)),
            QUIET,
        )
        async with serving(app, "127.0.0.1", 0, tls=server_context(files)) as address:
            yield f"https://127.0.0.1:{address.port}"
