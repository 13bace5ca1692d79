"""The wiring of the translator: one gRPC method, and its health. It keeps nothing and connects to nothing."""

import asyncio
import secrets

from prometheus_client import CollectorRegistry

from gateway_core.clock import monotonic, utc_now
from gateway_core.external_processor import HEADROOM_BYTES, start_processor
from gateway_core.health import always_ready, serving_health
from gateway_core.ids import new_id
from gateway_core.logs import Logger
from translator.servicer import Translations
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
    message_bytes_max = settings.max_body_bytes * 2 + HEADROOM_BYTES
    server = await start_processor(
        service.process,
        f"{settings.translator_host}:{settings.translator_port}",
        settings.tls,
        streams_max=settings.translator_attempts_max,
        received_bytes_max=message_bytes_max,
        sent_bytes_max=message_bytes_max,
    )
    try:
        async with serving_health(
            settings.translator_metrics_host, settings.translator_metrics_port, always_ready, registry
        ):
            await asyncio.Event().wait()
    finally:
        await server.stop(grace=DRAIN_S)
