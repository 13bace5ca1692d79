"""The demo: a small catalogue, an organisation with a balance, a key and an operator token. For the local stack.

Running it again changes nothing that an operator has made their own; only the providers' addresses follow the simulator,
whose port may be another one today.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import asyncpg
from pydantic import SecretStr

from control_plane.catalog.kinds import TEMPLATES
from control_plane.catalog.postgres_prices import write_price
from control_plane.catalog.price_specs import MeterPrice, PriceSpec, Unit
from control_plane.sealing import Seal, provider_credential
from control_plane.settings import SeedSettings
from gateway_core.api_keys import hash_key, hint
from gateway_core.clock import utc_now
from gateway_core.endpoints import SOLD_UNLESS_TOLD, Endpoint
from gateway_core.ids import ProviderName
from gateway_core.money import parse_usd
from gateway_core.providers import ProviderKind
from gateway_core.usage import Meter

ORG_ID: Final = "org_demo"
PROJECT_ID: Final = "prj_demo"
KEY_ID: Final = "key_demo"
TOKEN_ID: Final = "tok_demo_operator"  # noqa: S105 - an id, not the token
BALANCE_USD: Final = "25.00"


@dataclass(frozen=True, slots=True)
class _DemoProvider:
    name: ProviderName
    kind: ProviderKind
    simulated_path: str


@dataclass(frozen=True, slots=True)
class _DemoModel:
    name: str
    provider: ProviderName
    context_tokens: int
    max_output_tokens: int
    usd_per_million: Mapping[Meter, str]
    endpoints: tuple[Endpoint, ...] = SOLD_UNLESS_TOLD


OPENAI, ANTHROPIC, GEMINI = ProviderName("openai"), ProviderName("anthropic"), ProviderName("gemini")

PROVIDERS: Final = (
    _DemoProvider(OPENAI, ProviderKind.OPENAI, "/v1"),
    _DemoProvider(ANTHROPIC, ProviderKind.ANTHROPIC, "/v1"),
    _DemoProvider(GEMINI, ProviderKind.GEMINI, "/v1beta"),
)

_UNITS: Final = {
    Meter.CHARACTER: Unit.MILLION_CHARACTERS,
    Meter.REQUEST: Unit.MILLION_REQUESTS,
    Meter.AUDIO_SECOND: Unit.MINUTE,
}
_CHAT_AND_GENERATE: Final = (*SOLD_UNLESS_TOLD, Endpoint.GENERATE, Endpoint.STREAM_GENERATE)
_CHAT_AND_RESPONSES: Final = (*SOLD_UNLESS_TOLD, Endpoint.RESPONSES)

# List prices as the providers publish them, in US dollars per million tokens, characters or requests, or per minute.
MODELS: Final = (
    _DemoModel(
        "gpt-4o-mini",
        OPENAI,
        128_000,
        16_384,
        {Meter.INPUT: "0.15", Meter.CACHED_INPUT: "0.075", Meter.OUTPUT: "0.60", Meter.REASONING: "0.60"},
        _CHAT_AND_RESPONSES,
    ),
    _DemoModel(
        "gpt-4o",
        OPENAI,
        128_000,
        16_384,
        {Meter.INPUT: "2.50", Meter.CACHED_INPUT: "1.25", Meter.OUTPUT: "10.00", Meter.REASONING: "10.00"},
        _CHAT_AND_RESPONSES,
    ),
    _DemoModel(
        "claude-sonnet-4-6",
        ANTHROPIC,
        200_000,
        64_000,
        {
            Meter.INPUT: "3.00",
            Meter.CACHED_INPUT: "0.30",
            Meter.CACHE_WRITE_5M: "3.75",
            Meter.CACHE_WRITE_1H: "6.00",
            Meter.OUTPUT: "15.00",
        },
    ),
    _DemoModel(
        "gemini-2.5-flash",
        GEMINI,
        1_048_576,
        65_536,
        {Meter.INPUT: "0.30", Meter.CACHED_INPUT: "0.03", Meter.OUTPUT: "2.50", Meter.REASONING: "2.50"},
        _CHAT_AND_GENERATE,
    ),
    _DemoModel(
        "gpt-3.5-turbo-instruct",
        OPENAI,
        4096,
        4096,
        {Meter.INPUT: "1.50", Meter.OUTPUT: "2.00"},
        (Endpoint.COMPLETIONS,),
    ),
    _DemoModel("text-embedding-3-small", OPENAI, 8191, 1, {Meter.INPUT: "0.02"}, (Endpoint.EMBEDDINGS,)),
    _DemoModel("omni-moderation-latest", OPENAI, 32_768, 1, {Meter.REQUEST: "0"}, (Endpoint.MODERATIONS,)),
    _DemoModel(
        "gpt-image-1",
        OPENAI,
        32_000,
        6240,
        {Meter.INPUT: "5.00", Meter.IMAGE_INPUT: "10.00", Meter.IMAGE_OUTPUT: "40.00"},
        (Endpoint.IMAGES, Endpoint.IMAGE_EDITS),
    ),
    _DemoModel("tts-1", OPENAI, 4096, 1, {Meter.CHARACTER: "15.00"}, (Endpoint.SPEECH,)),
    _DemoModel(
        "whisper-1",
        OPENAI,
        448,
        448,
        {Meter.AUDIO_SECOND: "0.006"},
        (Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS),
    ),
    _DemoModel(
        "gpt-4o-transcribe",
        OPENAI,
        16_000,
        2000,
        {Meter.INPUT: "2.50", Meter.AUDIO_INPUT: "6.00", Meter.OUTPUT: "10.00"},
        (Endpoint.TRANSCRIPTIONS,),
    ),
    _DemoModel(
        "gpt-realtime",
        OPENAI,
        32_000,
        4096,
        {
            Meter.INPUT: "4.00",
            Meter.CACHED_INPUT: "0.40",
            Meter.AUDIO_INPUT: "32.00",
            Meter.CACHED_AUDIO_INPUT: "0.40",
            Meter.OUTPUT: "16.00",
            Meter.AUDIO_OUTPUT: "64.00",
        },
        (Endpoint.REALTIME,),
    ),
)


async def seed(connection: asyncpg.Connection, settings: SeedSettings) -> None:
    """Write what is missing, in one transaction."""
    async with connection.transaction():
        await _seed_accounts(connection, settings)
        await _seed_providers(connection, settings)
        await _seed_models(connection)


async def _seed_accounts(connection: asyncpg.Connection, settings: SeedSettings) -> None:
    is_new = await connection.fetchval(
        "INSERT INTO accounts.organizations (org_id, name) VALUES ($1, 'Demo') ON CONFLICT DO NOTHING RETURNING true",
        ORG_ID,
    )
    await connection.execute(
        "INSERT INTO accounts.projects (project_id, org_id, name) VALUES ($1, $2, 'Default') ON CONFLICT DO NOTHING",
        PROJECT_ID,
        ORG_ID,
    )
    await connection.execute(
        """
        INSERT INTO accounts.api_keys (key_id, org_id, project_id, name, key_hash, hint)
        VALUES ($1, $2, $3, 'Demo key', $4, $5) ON CONFLICT DO NOTHING
        """,
        KEY_ID,
        ORG_ID,
        PROJECT_ID,
        hash_key(settings.demo_api_key.get_secret_value(), settings.api_key_pepper),
        hint(settings.demo_api_key),
    )
    await connection.execute(
        """
        INSERT INTO accounts.machine_tokens (token_id, name, token_hash, role)
        VALUES ($1, 'Demo operator', $2, 'platform_operator') ON CONFLICT DO NOTHING
        """,
        TOKEN_ID,
        hash_key(settings.operator_token.get_secret_value(), settings.api_key_pepper),
    )
    if is_new:
        await connection.execute("SELECT billing.open_balance($1)", ORG_ID)
        await connection.execute("SELECT billing.credit($1, $2, 'demo balance')", ORG_ID, parse_usd(BALANCE_USD))


async def _seed_providers(connection: asyncpg.Connection, settings: SeedSettings) -> None:
    seal = Seal(settings.credential_key, secrets.token_bytes)
    credentials = {
        OPENAI: settings.openai_api_key,
        ANTHROPIC: settings.anthropic_api_key,
        GEMINI: settings.gemini_api_key,
    }
    for provider in PROVIDERS:
        real = credentials[provider.name]
        url = (
            TEMPLATES[provider.kind].base_url if real else settings.simulator_url.rstrip("/") + provider.simulated_path
        )
        credential = real or SecretStr("simulated-" + secrets.token_urlsafe(16))
        sealed = seal.seal_secret(provider_credential(provider.name), credential)
        known = await connection.fetchrow(
            "SELECT base_url, managed_by, credential FROM catalog.providers WHERE name = $1", provider.name
        )
        if known is None:
            await connection.execute(
                """
                INSERT INTO catalog.providers (name, kind, base_url, credential, managed_by)
                VALUES ($1, $2, $3, $4, 'demo')
                """,
                provider.name,
                provider.kind,
                url,
                sealed,
            )
        elif known["managed_by"] == "demo" and (known["base_url"] != url or real or known["credential"] is None):
            await connection.execute(
                "UPDATE catalog.providers SET base_url = $2, credential = $3 WHERE name = $1",
                provider.name,
                url,
                sealed,
            )


async def _seed_models(connection: asyncpg.Connection) -> None:
    known = {row["name"] for row in await connection.fetch("SELECT name FROM catalog.models")}
    for model in MODELS:
        if model.name in known:
            continue
        await connection.execute(
            """
            INSERT INTO catalog.models (name, owned_by, context_tokens, max_output_tokens, endpoints)
            VALUES ($1, $2, $3, $4, $5)
            """,
            model.name,
            model.provider,
            model.context_tokens,
            model.max_output_tokens,
            model.endpoints,
        )
        await connection.execute(
            "INSERT INTO catalog.deployments (model, provider, upstream_model) VALUES ($1, $2, $1)",
            model.name,
            model.provider,
        )
        await connection.execute("INSERT INTO catalog.routes (name, match) VALUES ($1, $1)", model.name)
        await connection.execute(
            "INSERT INTO catalog.route_members (route, provider) VALUES ($1, $2)", model.name, model.provider
        )
        prices = [
            MeterPrice(meter=meter, unit=_UNITS.get(meter, Unit.MILLION_TOKENS), cost=cost)
            for meter, cost in model.usd_per_million.items()
        ]
        await write_price(connection, model.name, model.provider, PriceSpec(prices=prices), now=utc_now())
