"""The scripts that count attempts at providers, on a real Valkey."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from ext_authz.attempts import Attempt, AttemptOver, AttemptRunning, Counted, Full, TokensUsed, requests_kept
from ext_authz.redis_attempts import RedisAttempts
from ext_authz.shared_counts import CountsUnavailableError
from gateway_core.ids import OrgId, ProviderName
from gateway_core.limits import Limits

ONE = ProviderName("one")
EVE, ADA = OrgId("org_eve"), OrgId("org_ada")
HERE, THERE = "host/envoy-1", "host/envoy-2"


@asynccontextmanager
async def counting(url: SecretStr, *, open_s: int = 30) -> AsyncIterator[RedisAttempts]:
    """One process that counts."""
    numbers = itertools.count()
    process = RedisAttempts(url, new_id=lambda: f"{id(numbers)}_{next(numbers)}", open_s=open_s)
    try:
        yield process
    finally:
        await process.close()


@pytest.fixture
async def process(empty: SecretStr) -> AsyncIterator[RedisAttempts]:
    async with counting(empty) as created:
        yield created


def by(org_id: OrgId, tokens: int = 0, envoy: str = HERE) -> Attempt:
    return Attempt(ONE, envoy, org_id, tokens)


async def test_two_processes_that_ask_without_pause_get_just_what_flows_in(empty: SecretStr) -> None:
    limits = Limits(requests_per_minute=3000)
    made = 0

    async def ask(process: RedisAttempts, until: float) -> None:
        nonlocal made
        while time.monotonic() < until:
            found = await process.count(by(EVE), limits)
            made += isinstance(found, Counted)

    async with counting(empty) as one, counting(empty) as other:
        began = time.monotonic()
        await asyncio.gather(*(ask(process, began + 3) for process in (one, other) for _ in range(4)))
        lasted_s = time.monotonic() - began
    kept = requests_kept(3000)
    # Half of what is kept is for organisations that have had less than their share.
    assert 0.98 * 50 * lasted_s + kept / 2 - 2 <= made <= 50 * lasted_s + kept


async def test_who_has_had_less_than_its_share_finds_something_kept_for_it(process: RedisAttempts) -> None:
    limits = Limits(requests_per_minute=600)
    while isinstance(await process.count(by(EVE), limits), Counted):
        pass
    # She asks on and on; he comes now and then, for less than half.
    for _ in range(10):
        assert isinstance(await process.count(by(ADA), limits), Counted)
        await asyncio.gather(*(process.count(by(EVE), limits) for _ in range(20)))


async def test_two_that_ask_for_more_than_there_is_get_half_each(process: RedisAttempts) -> None:
    limits = Limits(requests_per_minute=1200)
    made = {EVE: 0, ADA: 0}

    async def ask(org_id: OrgId, until: float, pause_s: float) -> None:
        while time.monotonic() < until:
            found = await process.count(by(org_id), limits)
            made[org_id] += isinstance(found, Counted)
            await asyncio.sleep(pause_s)

    until = time.monotonic() + 8
    # One of them ten times as often.
    await asyncio.gather(*(ask(EVE, until, 0.01) for _ in range(5)), ask(ADA, until, 0.02))
    assert made[ADA] > 0.4 * sum(made.values()), made


async def test_tokens_count_as_expected_until_it_is_known_what_was_used(process: RedisAttempts) -> None:
    limits = Limits(tokens_per_minute=6000)
    assert isinstance(await process.count(by(EVE, 4000), limits), Counted)
    # More than there was is owed: 3,400 of it, and for her besides the 300 that are kept for others.
    found = await process.count(by(EVE, 1), limits)
    assert isinstance(found, Full)
    assert 36 <= found.retry_after_s <= 37
    await process.tell(TokensUsed(ONE, -3900))
    assert isinstance(await process.count(by(EVE, 1), limits), Counted)
    await process.tell(TokensUsed(ONE, 5000))
    assert isinstance(await process.count(by(ADA, 1), limits), Full)


async def test_an_attempt_that_failed_gives_back_what_it_did_not_use_and_only_once(process: RedisAttempts) -> None:
    limits = Limits(requests_per_minute=1, tokens_per_minute=60)
    found = await process.count(by(EVE, 60), limits)
    assert isinstance(found, Counted)
    assert found.attempt_id is not None
    assert isinstance(await process.count(by(EVE), limits), Full)
    over = AttemptOver(ONE, HERE, found.attempt_id, requests_back=1, tokens_back=60)
    await process.tell(over)
    await process.tell(over)
    assert isinstance(await process.count(by(EVE, 60), limits), Counted)
    assert isinstance(await process.count(by(EVE, 60), limits), Full)


async def test_of_the_places_at_an_envoy_each_that_asks_has_its_share(empty: SecretStr) -> None:
    limits = Limits(concurrency=10)
    async with counting(empty, open_s=2) as process:
        # Alone, an organisation has them all: beyond them it is Envoy that refuses.
        eves = [await process.count(by(EVE), limits) for _ in range(12)]
        assert all(isinstance(each, Counted) for each in eves)
        assert isinstance(await process.count(by(ADA), limits), Counted)
        assert await process.count(by(EVE), limits) == Full(1)
        # Another Envoy has places of its own.
        assert isinstance(await process.count(by(EVE, envoy=THERE), limits), Counted)
        kept, *others = (each.attempt_id for each in eves if isinstance(each, Counted) and each.attempt_id is not None)
        for attempt_id in others[:6]:
            await process.tell(AttemptOver(ONE, HERE, attempt_id, requests_back=0, tokens_back=0))
        assert isinstance(await process.count(by(EVE), limits), Counted)
        # Those of which nothing is heard are given up.
        await process.tell(AttemptRunning(ONE, HERE, kept))
        await asyncio.sleep(1.5)
        await process.tell(AttemptRunning(ONE, HERE, kept))
        await asyncio.sleep(1)
        await process.count(by(ADA), limits)
        redis = Redis.from_url(empty.get_secret_value(), decode_responses=True)
        by_org = await redis.hgetall(f"tollgate:attempts:{{one}}:open_by_org:{HERE}")
        await redis.aclose()
        assert by_org == {EVE: "1", ADA: "1"}


async def test_one_that_is_not_there_is_a_trouble(tmp_path: Path) -> None:
    async with counting(SecretStr(f"unix://{tmp_path}/nobody.sock")) as process:
        with pytest.raises(CountsUnavailableError):
            await process.count(by(EVE), Limits(1))
