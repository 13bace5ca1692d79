"""The wiring of the control plane, top to bottom: catalogue to snapshot to Envoy, and the HTTP API beside it."""

import asyncio
import secrets

from prometheus_client import CollectorRegistry

from control_plane.api.app import make_app
from control_plane.api.auth import Authenticator
from control_plane.catalog.credentials import CredentialCipher
from control_plane.catalog.postgres_store import read_catalog
from control_plane.catalog.watcher import CatalogWatcher
from control_plane.publisher import Publisher
from control_plane.settings import Settings
from control_plane.xds.cache import SnapshotCache
from control_plane.xds.nodes import NodeRegistry
from control_plane.xds.server import AggregatedDiscovery, start_server
from control_plane.xds.translate import Translator
from gateway_core.clock import utc_now
from gateway_core.health import serving
from gateway_core.logs import Logger
from gateway_core.postgres import connect_pool

POOL_SIZE_MAX = 10


async def serve(settings: Settings, log: Logger) -> None:
    """Run until cancelled."""
    registry = CollectorRegistry()
    nodes = NodeRegistry(utc_now, registry)
    cache = SnapshotCache()

    async with await connect_pool(settings.postgres_dsn, service="control_plane", size_max=POOL_SIZE_MAX) as pool:
        cipher = CredentialCipher(settings.credential_key, secrets.token_bytes)
        watcher = CatalogWatcher(pool, settings.postgres_dsn, cipher, log)
        publisher = Publisher(await read_catalog(pool, cipher, log), Translator(settings), cache, registry, log)
        discovery = await start_server(
            AggregatedDiscovery(cache, nodes, log), f"{settings.xds_host}:{settings.xds_port}"
        )
        app = make_app(
            authenticator=Authenticator(pool, settings.api_key_pepper, utc_now),
            nodes=nodes,
            current_catalog=lambda: publisher.catalog,
            ready=lambda: None if cache.snapshot else "the catalogue has not been read yet",
            registry=registry,
            log=log,
        )

        try:
            async with (
                serving(app, settings.control_plane_host, settings.control_plane_port),
                asyncio.TaskGroup() as group,
            ):
                group.create_task(watcher.listen(), name="catalog_listener")
                group.create_task(publisher.run(watcher), name="publisher")
        finally:
            await discovery.stop(grace=0.5)
