"""The demo on a real Postgres: what is written once, what follows the day, and what an operator keeps."""

import secrets
from base64 import urlsafe_b64encode

import asyncpg
import pytest
from pydantic import SecretStr

from control_plane.catalog.postgres_store import read_catalog
from control_plane.demo import seed
from control_plane.sealing import Seal, provider_credential
from control_plane.settings import SeedSettings
from gateway_core.api_keys import LIVE_PREFIX, OPERATOR_PREFIX, new_key
from gateway_core.ids import ProviderName
from tests.support.logs import QUIET

CREDENTIAL_KEY = SecretStr(urlsafe_b64encode(bytes(32)).decode())


@pytest.fixture
def settings(database: str, monkeypatch: pytest.MonkeyPatch) -> SeedSettings:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return SeedSettings(
        postgres_dsn=SecretStr(database),
        api_key_pepper=SecretStr("pepper"),
        credential_key=CREDENTIAL_KEY,
        demo_api_key=new_key(LIVE_PREFIX, secrets.token_bytes),
        operator_token=new_key(OPERATOR_PREFIX, secrets.token_bytes),
        simulator_url="http://127.0.0.1:1111",
    )


async def providers(pool: asyncpg.Pool) -> dict[str, tuple[str, str]]:
    """Name to base URL and credential."""
    catalog = await read_catalog(pool, Seal(CREDENTIAL_KEY, secrets.token_bytes), QUIET)
    return {
        name: (provider.base_url, provider.credential.get_secret_value() if provider.credential else "")
        for name, provider in catalog.providers.items()
    }


async def seed_with(pool: asyncpg.Pool, settings: SeedSettings, **changes: object) -> None:
    async with pool.acquire() as connection:
        await seed(connection, settings.model_copy(update=changes))  # type: ignore[arg-type]  # the pool's proxy of a connection


async def test_without_keys_the_simulator_stands_in_for_every_provider(
    pool: asyncpg.Pool, settings: SeedSettings
) -> None:
    await seed_with(pool, settings)
    found = await providers(pool)
    assert {name: url for name, (url, _) in found.items()} == {
        "openai": "http://127.0.0.1:1111/v1",
        "anthropic": "http://127.0.0.1:1111/v1",
        "gemini": "http://127.0.0.1:1111/v1beta",
    }
    assert len({credential for _, credential in found.values()}) == 3


async def test_a_provider_whose_key_is_set_is_the_real_one_and_only_that(
    pool: asyncpg.Pool, settings: SeedSettings
) -> None:
    await seed_with(pool, settings)
    await seed_with(pool, settings, openai_api_key=SecretStr("sk-real"))
    found = await providers(pool)
    assert found["openai"] == ("https://api.openai.com/v1", "sk-real")
    assert found["anthropic"][0] == "http://127.0.0.1:1111/v1"
    stored = await pool.fetchval("SELECT credential FROM catalog.providers WHERE name = 'openai'")
    assert b"sk-real" not in stored
    # The next day without the key, the simulator is back, and the real key is gone.
    await seed_with(pool, settings)
    url, credential = (await providers(pool))["openai"]
    assert url == "http://127.0.0.1:1111/v1"
    assert credential != "sk-real"


async def test_seeding_again_credits_once_and_leaves_an_operators_provider_alone(
    pool: asyncpg.Pool, settings: SeedSettings
) -> None:
    await seed_with(pool, settings)
    await pool.execute(
        "UPDATE catalog.providers SET base_url = 'http://mine/v1', managed_by = 'operator' WHERE name = 'openai'"
    )
    await seed_with(pool, settings, simulator_url="http://127.0.0.1:2222")
    found = await providers(pool)
    assert found["openai"][0] == "http://mine/v1"
    assert found["gemini"][0] == "http://127.0.0.1:2222/v1beta"
    assert (
        await pool.fetchval("SELECT posted_nano_usd FROM billing.accounts WHERE org_id = 'org_demo' AND mode = 'live'")
        == 25 * 10**9
    )


async def test_seeding_with_nothing_to_change_makes_no_revision(pool: asyncpg.Pool, settings: SeedSettings) -> None:
    await seed_with(pool, settings)
    before = await pool.fetchval("SELECT max(revision) FROM catalog.revisions")
    await seed_with(pool, settings)
    assert await pool.fetchval("SELECT max(revision) FROM catalog.revisions") == before


async def test_a_credential_moved_to_another_provider_does_not_open(pool: asyncpg.Pool, settings: SeedSettings) -> None:
    await seed_with(pool, settings)
    sealed = await pool.fetchval("SELECT credential FROM catalog.providers WHERE name = 'openai'")
    seal = Seal(CREDENTIAL_KEY, secrets.token_bytes)
    assert seal.open_secret(provider_credential(ProviderName("openai")), sealed)
    with pytest.raises(RuntimeError, match="does not open"):
        seal.open_secret(provider_credential(ProviderName("gemini")), sealed)
