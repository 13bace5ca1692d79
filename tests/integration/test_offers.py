"""Admission and routing read one catalogue from a real Postgres, and agree on what is offered."""

import asyncio
import secrets
from base64 import urlsafe_b64encode

import asyncpg
import pytest
from pydantic import SecretStr

from control_plane.catalog.model import Catalog
from control_plane.catalog.postgres_store import read_catalog
from control_plane.sealing import Seal, provider_credential
from ext_authz.postgres_offers import PostgresOffers
from gateway_core.clock import utc_now
from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, ProviderName
from gateway_core.offering import Offering
from gateway_core.usage import Meter
from tests.support.logs import QUIET

SEAL = Seal(SecretStr(urlsafe_b64encode(bytes(32)).decode()), secrets.token_bytes)


async def add_model(pool: asyncpg.Pool, model: str, *providers: str) -> None:
    await pool.execute("INSERT INTO catalog.models VALUES ($1, 'x', 1000, 100)", model)
    await pool.execute("INSERT INTO catalog.routes (name, match) VALUES ($1, $1)", model)
    for provider in providers:
        await pool.execute("INSERT INTO catalog.deployments VALUES ($1, $2, 'up')", model, provider)
        await pool.execute("INSERT INTO catalog.route_members VALUES ($1, $2)", model, provider)


async def add_provider(pool: asyncpg.Pool, name: str, kind: str = "openai", credential: bytes | None = None) -> None:
    await pool.execute(
        "INSERT INTO catalog.providers (name, kind, base_url, credential) VALUES ($1, $2, 'http://x/v1', $3)",
        *(name, kind, credential),
    )


async def add_price(pool: asyncpg.Pool, model: str, provider: str, price: int, meter: str = "input") -> int:
    """Returns the revision the price holds from."""
    revision: int = await pool.fetchval(
        "INSERT INTO catalog.prices VALUES ($1, $2, 0, $3, $4, $4) RETURNING revision", model, provider, meter, price
    )
    return revision


def routed(catalog: Catalog) -> set[tuple[Endpoint, str, int]]:
    """Endpoint, model and how many deployments."""
    return {(chain.endpoint, chain.name, sum(map(len, chain.groups))) for chain in catalog.chains()}


async def test_a_deployment_nobody_priced_is_neither_sold_nor_routed(pool: asyncpg.Pool) -> None:
    await add_provider(pool, "one")
    await add_provider(pool, "two")
    await add_model(pool, "priced", "one", "two")
    await add_model(pool, "unpriced", "one")
    await add_price(pool, "priced", "one", 5)
    offers = (await PostgresOffers.read(pool, utc_now, QUIET)).offers
    assert set(offers.by_model) == {"priced"}
    assert len(offers.by_model[ModelName("priced")].prices[Endpoint.CHAT]) == 1
    assert routed(await read_catalog(pool, SEAL, QUIET)) == {(Endpoint.CHAT, "priced", 1)}


async def test_with_a_translator_what_is_sold_on_an_endpoint_is_what_is_routed_there(pool: asyncpg.Pool) -> None:
    await add_provider(pool, "one")
    await add_provider(pool, "two", "anthropic")
    await add_model(pool, "m", "one", "two")
    await add_price(pool, "m", "one", 5)
    await add_price(pool, "m", "two", 7)
    offers = (await PostgresOffers.read(pool, utc_now, QUIET, translated=True)).offers
    sold = {(endpoint, len(prices)) for endpoint, prices in offers.by_model[ModelName("m")].prices.items()}
    assert sold == {(Endpoint.CHAT, 2), (Endpoint.MESSAGES, 2), (Endpoint.COUNT_TOKENS, 1)}
    catalog = await read_catalog(pool, SEAL, QUIET)
    assert {(each.endpoint, len(each.groups[0])) for each in catalog.chains(translated=True)} == sold


async def test_the_newest_price_is_in_force_and_older_ones_stay(pool: asyncpg.Pool) -> None:
    await add_provider(pool, "one", "anthropic")
    await add_model(pool, "m", "one")
    first = await add_price(pool, "m", "one", 5)
    second = await add_price(pool, "m", "one", 7)
    assert first < second
    offers = (await PostgresOffers.read(pool, utc_now, QUIET)).offers
    [deployment] = offers.by_model[ModelName("m")].prices[Endpoint.MESSAGES]
    row = deployment.price
    assert (row.version, row.rates[Meter.INPUT].price_nano_usd_per_mtok) == (second, 7)
    assert offers.version == second
    assert await pool.fetchval("SELECT count(*) FROM catalog.prices") == 2


async def test_a_meter_from_the_future_disturbs_nobody(pool: asyncpg.Pool) -> None:
    await add_provider(pool, "one")
    await add_model(pool, "m", "one")
    async with pool.acquire() as connection, connection.transaction():
        for meter in ("input", "telepathy"):
            await connection.execute("INSERT INTO catalog.prices VALUES ('m', 'one', 0, $1, 1, 1)", meter)
    [deployment] = (
        (await PostgresOffers.read(pool, utc_now, QUIET)).offers.by_model[ModelName("m")].prices[Endpoint.CHAT]
    )
    assert set(deployment.price.rates) == {Meter.INPUT}


async def test_a_provider_whose_credential_does_not_open_is_left_out_and_the_others_stay(pool: asyncpg.Pool) -> None:
    await add_provider(
        pool, "good", credential=SEAL.seal_secret(provider_credential(ProviderName("good")), SecretStr("k"))
    )
    await add_provider(pool, "bad", credential=b"sealed with another key, long ago")
    await add_model(pool, "m", "good", "bad")
    await add_price(pool, "m", "good", 1)
    await add_price(pool, "m", "bad", 1)
    catalog = await read_catalog(pool, SEAL, QUIET)
    assert set(catalog.providers) == {"good"}
    assert routed(catalog) == {(Endpoint.CHAT, "m", 1)}


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/v1", "http://[::1/v1", "http://a b/v1", "http://:80/v1"])
async def test_a_provider_with_a_url_that_is_none_is_left_out_and_the_others_stay(pool: asyncpg.Pool, url: str) -> None:
    await add_provider(pool, "good")
    await add_provider(pool, "bad")
    await pool.execute("UPDATE catalog.providers SET base_url = $1 WHERE name = 'bad'", url)
    catalog = await read_catalog(pool, SEAL, QUIET)
    assert set(catalog.providers) == {"good"}
    assert catalog.providers[ProviderName("good")].port == 80


async def test_revisions_are_committed_in_the_order_of_their_numbers(pool: asyncpg.Pool) -> None:
    await add_provider(pool, "one")
    seen: list[int] = []

    async def write(name: str, pause_s: float) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO catalog.models VALUES ($1, 'x', 1, 1)", name)
            revision = await connection.fetchval("SELECT catalog.current_revision()")
            await asyncio.sleep(pause_s)
            seen.append(revision)

    await asyncio.gather(*(write(f"m{number}", 0.05 if number % 2 == 0 else 0) for number in range(8)))
    assert seen == sorted(seen)
    assert len(set(seen)) == 8


async def test_a_transaction_that_changes_nothing_makes_no_revision_and_one_that_changes_much_makes_one(
    pool: asyncpg.Pool,
) -> None:
    before = await pool.fetchval("SELECT count(*) FROM catalog.revisions")
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("UPDATE catalog.models SET owned_by = 'y'")
    assert await pool.fetchval("SELECT count(*) FROM catalog.revisions") == before
    async with pool.acquire() as connection, connection.transaction():
        for number in range(5):
            await connection.execute("INSERT INTO catalog.models VALUES ($1, 'x', 1, 1)", f"m{number}")
    assert await pool.fetchval("SELECT count(*) FROM catalog.revisions") == before + 1


async def test_a_moved_name_is_sold_as_what_it_was_to_a_route_that_has_not_moved_yet(pool: asyncpg.Pool) -> None:
    await add_provider(pool, "one")
    for model in ("cheap", "dear"):
        await add_model(pool, model, "one")
        await add_price(pool, model, "one", 5)
    await pool.execute("INSERT INTO catalog.model_aliases (alias, model) VALUES ('fast', 'cheap')")
    source = await PostgresOffers.read(pool, utc_now, QUIET)
    before = source.offers
    [chain] = [each for each in (await read_catalog(pool, SEAL, QUIET)).chains() if each.name == "fast"]
    await pool.execute("UPDATE catalog.model_aliases SET model = 'dear'")

    waiting = asyncio.create_task(source.wait_for_next(5))
    await asyncio.sleep(0)
    await source.refresh()
    assert await waiting
    assert not await source.wait_for_next(0.01)

    [[deployment]] = chain.groups
    route = Offering(chain.model, {deployment.provider: deployment.upstream_model})
    standing = source.offers.standing_for(ModelName("fast"), Endpoint.CHAT, route, utc_now())
    assert standing is not None
    assert (standing.version, standing.by_model[ModelName("fast")].model) == (before.version, "cheap")
    assert source.offers.by_model[ModelName("fast")].model == "dear"
