"""What the billing sink answers Envoy with, on a free port of loopback, over real TLS and on a real Postgres; no provider is asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from prometheus_client import CollectorRegistry

from billing_sink.app import envoy_api
from billing_sink.batches.keepers import connected_keepers
from billing_sink.batches.postgres_batches import PostgresBatches
from billing_sink.current_prices import CurrentPrices
from billing_sink.postgres_prices import PostgresPrices
from gateway_core.contract import Peer
from gateway_core.health import serving
from gateway_core.mutual_tls import client_context, server_context
from gateway_core.settings import HostPort
from tests.support.logs import QUIET
from tests.support.planes import Certificates


@asynccontextmanager
async def serving_envoy_api(pool: asyncpg.Pool, certificates: Certificates) -> AsyncIterator[str]:
    """Serve it while the block runs; yields its URL."""
    files = certificates.of(Peer.BILLING_SINK)
    async with connected_keepers(HostPort("127.0.0.1", 1), client_context(files)) as keepers:
        app = envoy_api(
            pool, PostgresBatches(pool), keepers, CurrentPrices(PostgresPrices(pool)), CollectorRegistry(), QUIET
        )
        async with serving(app, "127.0.0.1", 0, tls=server_context(files)) as address:
            yield f"https://127.0.0.1:{address.port}"
