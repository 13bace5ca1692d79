"""The wiring: which path speaks which dialect, and the life of the process. Start reading here."""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from aiohttp import web

from gateway_core.api_keys import bearer_token
from gateway_core.clock import Now, utc_now
from gateway_core.connections import Bounds
from gateway_core.health import serving
from gateway_core.logs import Logger
from simulator import plain
from simulator.anthropic_messages import AnthropicMessages
from simulator.exchange import BODY_BYTES_MAX, Exchange
from simulator.gemini_generate import Framing, GeminiGenerate
from simulator.openai_batches import OpenAiBatches
from simulator.openai_chat import OpenAiChat
from simulator.openai_completions import OpenAiCompletions
from simulator.openai_kept import OpenAiKept
from simulator.openai_responses import OpenAiResponses
from simulator.plain import PlainEndpoint
from simulator.recorder import Recorder
from simulator.settings import SimulatorSettings
from simulator.shelves import Shelves
from simulator.stripe_stand_in import stand_in

EXCHANGE = web.AppKey("exchange", Exchange)
RECORDER = web.AppKey("recorder", Recorder)
SHELVES = web.AppKey("shelves", Shelves)

PLAIN: Final[Mapping[str, PlainEndpoint]] = {
    "/v1/embeddings": PlainEndpoint(OpenAiChat(), plain.embeddings),
    "/v1beta/openai/embeddings": PlainEndpoint(OpenAiChat(), plain.embeddings),
    "/v1/moderations": PlainEndpoint(OpenAiChat(), plain.moderation),
    "/v1/rerank": PlainEndpoint(OpenAiChat(), plain.rerank),
    "/v1/images/generations": PlainEndpoint(OpenAiChat(), plain.images),
    "/v1beta/openai/images/generations": PlainEndpoint(OpenAiChat(), plain.images),
    "/v1/images/edits": PlainEndpoint(OpenAiChat(), plain.image_edit),
    "/v1/audio/speech": PlainEndpoint(OpenAiChat(), plain.speech),
    "/v1/audio/transcriptions": PlainEndpoint(OpenAiChat(), plain.transcription),
    "/v1/audio/translations": PlainEndpoint(OpenAiChat(), plain.translation),
    "/v1/messages/count_tokens": PlainEndpoint(AnthropicMessages(), plain.token_count),
}

_DRAIN_S = 0.1
_BOUNDS = Bounds(connections_max=20_000, idle_s=3630.0)
"""It stands in for providers: every stream that Envoy has open is a connection, which Envoy keeps for an hour."""


def build_app(settings: SimulatorSettings, log: Logger, now: Now = utc_now) -> web.Application:
    """The application with all its routes; nothing runs yet."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    recorder = None
    if settings.simulator_record:
        recorder = Recorder(settings.simulator_record_max, now)
        app[RECORDER] = recorder
        app.router.add_get("/simulator/requests", get_requests)
        app.router.add_delete("/simulator/requests", delete_requests)
    app[EXCHANGE] = Exchange(knobs=settings.knobs, recorder=recorder, now=now, log=log)
    app[SHELVES] = Shelves(secrets.token_bytes)
    kept = OpenAiKept(app[SHELVES], recorder, now)
    app.router.add_routes([*kept.routes(), *OpenAiBatches(kept, settings.knobs, now).routes()])
    app.router.add_post("/v1/chat/completions", post_chat)
    app.router.add_post("/v1beta/openai/chat/completions", post_chat)
    app.router.add_post("/v1/messages", post_message)
    app.router.add_post("/v1/responses", post_response)
    app.router.add_post("/v1/completions", post_completion)
    for path in PLAIN:
        app.router.add_post(path, post_plain)
    app.router.add_post("/v1beta/models/{model}:generateContent", post_generate)
    app.router.add_post("/v1beta/models/{model}:streamGenerateContent", post_stream_generate)
    app.router.add_get("/v1/realtime", get_realtime)
    app.router.add_get("/v1/models", get_models)
    stripe = stand_in(settings, log, now)
    if stripe is not None:
        app.add_subapp("/stripe/", stripe)
    app.router.add_get("/livez", get_health)
    app.router.add_get("/readyz", get_health)
    return app


async def serve(settings: SimulatorSettings, log: Logger) -> None:
    """Serve until cancelled. Open streams are cut then: clients of a simulator lose nothing."""
    try:
        async with serving(
            build_app(settings, log),
            settings.simulator_host,
            settings.simulator_port,
            bounds=_BOUNDS,
            drain_s=_DRAIN_S,
            # Handlers end with their client, or every abandoned timeout would be held for ten minutes.
            handler_cancellation=True,
        ) as address:
            log.info("simulator_started", host=address.host, port=address.port)
            await asyncio.Event().wait()
    finally:
        log.info("simulator_stopped")


async def post_chat(request: web.Request) -> web.StreamResponse:
    """OpenAI's chat completion, under OpenAI's path or Gemini's."""
    return await request.app[EXCHANGE].answer(request, OpenAiChat())


async def post_message(request: web.Request) -> web.StreamResponse:
    """Anthropic's message."""
    return await request.app[EXCHANGE].answer(request, AnthropicMessages())


async def post_response(request: web.Request) -> web.StreamResponse:
    """OpenAI's response."""
    shelf = request.app[SHELVES].of(bearer_token(request.headers.get("authorization")) or "")
    return await request.app[EXCHANGE].answer(request, OpenAiResponses(shelf))


async def post_completion(request: web.Request) -> web.StreamResponse:
    """OpenAI's completion."""
    return await request.app[EXCHANGE].answer(request, OpenAiCompletions())


async def post_plain(request: web.Request) -> web.StreamResponse:
    """Whatever is no conversation."""
    return await request.app[EXCHANGE].answer_plainly(request, PLAIN[request.path])


async def post_generate(request: web.Request) -> web.StreamResponse:
    """Gemini's answer in one body."""
    dialect = GeminiGenerate(request.match_info["model"], Framing.UNARY)
    return await request.app[EXCHANGE].answer(request, dialect)


async def post_stream_generate(request: web.Request) -> web.StreamResponse:
    """Gemini's answer as events with `?alt=sse`, otherwise as a JSON array that grows."""
    framing = Framing.SSE if request.query.get("alt") == "sse" else Framing.ARRAY
    return await request.app[EXCHANGE].answer(request, GeminiGenerate(request.match_info["model"], framing))


async def get_realtime(request: web.Request) -> web.StreamResponse:
    """OpenAI's session."""
    return await request.app[EXCHANGE].converse(request)


async def get_models(request: web.Request) -> web.Response:
    """OpenAI's list of models."""
    return request.app[EXCHANGE].list_models(request)


async def get_health(_request: web.Request) -> web.Response:
    """Alive and ready are one: there is nothing to wait for."""
    return web.Response(text="ok\n")


async def get_requests(request: web.Request) -> web.Response:
    """What was received, oldest first."""
    return web.json_response({"requests": [asdict(received) for received in request.app[RECORDER].requests()]})


async def delete_requests(request: web.Request) -> web.Response:
    """Forget what was received."""
    request.app[RECORDER].clear()
    return web.Response(status=204)
