"""The wiring of the response cache: one gRPC method, Redis behind it, and its health."""

import secrets

from prometheus_client import CollectorRegistry

from gateway_core.clock import monotonic
from gateway_core.external_processor import HEADROOM_BYTES, start_processor
from gateway_core.health import always_ready, serving_health
from gateway_core.logs import Logger
from response_cache.cached_answers import CachedAnswers
from response_cache.redis_answers import RedisAnswers
from response_cache.sealing import Seal
from response_cache.servicer import Lookups
from response_cache.settings import Settings

DRAIN_S = 1.0
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
"""Of what Envoy sends: a body that the front filter lets through, or a piece of an answer."""


async def serve(settings: Settings, log: Logger) -> None:
    """Run until cancelled."""
    registry = CollectorRegistry()
    answers = RedisAnswers(
        settings.redis_url,
        bytes_max=settings.response_cache_bytes_max,
        org_bytes_max=settings.response_cache_org_bytes_max,
    )
    cached = CachedAnswers(
        answers,
        Seal(settings.response_cache_key, secrets.token_bytes),
        ttl_s=settings.response_cache_ttl_s,
        wait_s=settings.response_cache_wait_s,
        new_token=secrets.token_hex,
        monotonic=monotonic,
        registry=registry,
        log=log,
    )
    service = Lookups(
        cached, answer_bytes_max=settings.response_cache_answer_bytes_max, monotonic=monotonic, registry=registry
    )
    server = await start_processor(
        service.process,
        f"{settings.response_cache_host}:{settings.response_cache_port}",
        settings.tls,
        streams_max=settings.response_cache_requests_max,
        received_bytes_max=MESSAGE_BYTES_MAX,
        sent_bytes_max=settings.response_cache_answer_bytes_max + HEADROOM_BYTES,
    )
    try:
        async with serving_health(
            settings.response_cache_metrics_host, settings.response_cache_metrics_port, always_ready, registry
        ):
            # Runs for ever: ends with this, or ends this.
            await cached.stay()
    finally:
        await server.stop(grace=DRAIN_S)
        await answers.close()
