"""The wiring of the translator: one gRPC method, and its health. It keeps nothing and connects to nothing."""

import asyncio
import secrets

from prometheus_client import CollectorRegistry

from gateway_core.clock import monotonic, utc_now
from gateway_core.health import always_ready, serving_health
from gateway_core.ids import new_id
from gateway_core.logs import Logger
from translator.servicer import Translations, start_server
from translator.settings import Settings

DRAIN_S = 1.0


async def serve(settings: Settings, log: Logger) -> None:
    """Run until cancelled."""
    registry = CollectorRegistry()
    service = Translations(
        new_call_id=lambda: new_id("call", secrets.token_bytes),
        now=utc_now,
        monotonic=monotonic,
        registry=registry,
        log=log,
    )
    server = await start_server(
        service,
        f"{settings.translator_host}:{settings.translator_port}",
        settings.tls,
        attempts_max=settings.translator_attempts_max,
        max_body_bytes=settings.max_body_bytes,
    )
    try:
        async with serving_health(
            settings.translator_metrics_host, settings.translator_metrics_port, always_ready, registry
        ):
            await asyncio.Event().wait()
    finally:
        await server.stop(grace=DRAIN_S)
