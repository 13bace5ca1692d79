"""What may be asked of our account at a provider, over two Envoys and two processes of ext_authz; and nobody takes it all."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
import pytest_asyncio

from ext_authz.attempts import requests_kept, tokens_kept
from tests.support.flood import Flood, Pair, running_pair
from tests.support.stack import Stack, add_model, add_provider, wait_until_routed

CONNECTIONS = 50
LASTS_S = 14
SETTLED_S = 4
"""By then what was kept of the time before is used up."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with running_pair(tmp_path_factory.mktemp("providers") / "data") as running:
        await add_provider(running.stack, "behind", f"{running.stack.simulator_url}/v1", "behind-secret")
        yield running


async def limited_model(pair: Pair, name: str, limits: Mapping[str, int], *, backup: bool = False) -> None:
    """A model at a provider of the same name that has these limits, and perhaps at another one behind it."""
    stack = pair.stack
    await add_provider(stack, name, f"{stack.simulator_url}/v1", f"{name}-secret")
    async with stack.database() as database:
        for column, limit in limits.items():
            await database.execute(
                f"UPDATE catalog.providers SET {column} = $2, probed = false WHERE name = $1",
                *(name, limit),
            )
    await add_model(stack, name, [(name, name), *([("behind", name)] if backup else [])])
    await wait_until_routed(stack, name)
    # What processes of ext_authz and the second Envoy know of it.
    await asyncio.sleep(1)


@dataclass(frozen=True)
class Asked:
    """What a provider was asked in a span of time."""

    requests: int
    tokens: int


async def asked_of(stack: Stack, provider: str, since: datetime, until: datetime) -> Asked:
    async with stack.database() as database:
        row = await database.fetchrow(
            """
            SELECT count(*) AS requests, coalesce(sum(tokens), 0)::bigint AS tokens FROM billing.requests
            CROSS JOIN LATERAL (SELECT sum(value::bigint) AS tokens FROM jsonb_each_text(meters)) used
            WHERE provider = $1 AND started_at >= $2 AND started_at < $3 AND status = 200
            """,
            *(provider, since, until),
        )
    assert row is not None
    return Asked(**dict(row))


async def test_a_provider_is_asked_as_often_as_it_may_be_and_the_next_one_gets_the_rest(pair: Pair) -> None:
    per_minute = 600
    await limited_model(pair, "minutely", {"requests_per_minute_max": per_minute}, backup=True)
    key = await pair.stack.make_key("flooding", balance="10")
    before = await pair.requests_of_each_envoy()
    flood = Flood(pair.stack.url, key, "minutely")
    began = datetime.now(UTC)
    # Ten times as many as may be.
    await flood.run(seconds=LASTS_S, connections=CONNECTIONS, pause_s=CONNECTIONS * 60 / per_minute / 10)
    ended = began + timedelta(seconds=LASTS_S - 1)
    after = await pair.requests_of_each_envoy()
    assert set(flood.statuses) == {200}
    assert flood.statuses[200] > 5 * per_minute * LASTS_S / 60
    assert all(more - less > 100 for less, more in zip(before, after, strict=True)), (before, after)
    await pair.stack.settled()
    since = began + timedelta(seconds=SETTLED_S)
    lasted_s = (ended - since).total_seconds()
    asked = await asked_of(pair.stack, "minutely", since, ended)
    assert asked.requests >= 0.98 * per_minute * lasted_s / 60 - 1, (asked, lasted_s)
    assert asked.requests <= per_minute * lasted_s / 60 + requests_kept(per_minute), (asked, lasted_s)
    in_all = await asked_of(pair.stack, "minutely", began, ended)
    assert in_all.requests <= per_minute * (ended - began).total_seconds() / 60 + requests_kept(per_minute)


async def test_a_provider_reads_and_writes_as_many_tokens_as_it_may_also_in_streams(pair: Pair) -> None:
    per_minute = 24_000
    await limited_model(pair, "wordy", {"tokens_per_minute_max": per_minute})
    key = await pair.stack.make_key("talking", balance="10")
    # Expected to be ten times as long as they are.
    flood = Flood(pair.stack.url, key, "wordy", directives="output_tokens=60", fields={"stream": True})
    began = datetime.now(UTC)
    await flood.run(seconds=LASTS_S, connections=CONNECTIONS, pause_s=0)
    ended = began + timedelta(seconds=LASTS_S - 1)
    assert set(flood.statuses) == {200, 429}
    for refusal in flood.refusals:
        assert refusal.error["code"] == "rate_limit_exceeded"
        assert int(refusal.headers["retry-after"]) >= 1
        # What is left of our account is nobody's business.
        assert not [name for name in refusal.headers if name.lower().startswith(("x-ratelimit", "x-tg", "x-envoy"))]
    await pair.stack.settled()
    since = began + timedelta(seconds=SETTLED_S)
    lasted_s = (ended - since).total_seconds()
    asked = await asked_of(pair.stack, "wordy", since, ended)
    one = asked.tokens / asked.requests
    # Each has to end before it is known how much of what it was expected to take is there for the next one, on slow machines later.
    assert asked.tokens >= 0.9 * per_minute * lasted_s / 60 - 2 * one, (asked, lasted_s)
    assert asked.tokens <= per_minute * lasted_s / 60 + tokens_kept(per_minute) + one, (asked, lasted_s)


@pytest.mark.parametrize(
    ("limits", "directives"),
    [({"requests_per_minute_max": 600}, "output_tokens=5"), ({"requests_max": 5}, "output_tokens=5 latency_ms=200")],
)
async def test_nobody_takes_a_whole_provider(pair: Pair, limits: Mapping[str, int], directives: str) -> None:
    [name] = (f"shared-{each.split('_')[1]}" for each in limits)
    await limited_model(pair, name, limits)
    greedy = Flood(pair.stack.url, await pair.stack.make_key(f"greedy-{name}", balance="10"), name, directives)
    modest = Flood(pair.stack.url, await pair.stack.make_key(f"modest-{name}", balance="10"), name, directives)
    async with asyncio.TaskGroup() as group:
        group.create_task(greedy.run(seconds=LASTS_S, connections=100, pause_s=0))
        # When it comes, all there is is taken.
        await asyncio.sleep(2)
        group.create_task(modest.run(seconds=LASTS_S - 3, connections=1, pause_s=0.25))
    served = modest.statuses[200] / modest.statuses.total()
    waits = sorted(each.waited_s for each in modest.answers)
    assert greedy.statuses[429] + greedy.statuses[503] > 100, greedy.statuses
    assert served >= 0.98, modest.statuses
    assert modest.statuses.total() > 15
    assert waits[int(0.9 * len(waits))] < 1, waits


async def test_a_translated_attempt_counts_and_goes_elsewhere_as_well(pair: Pair) -> None:
    stack = pair.stack
    await add_provider(stack, "foreign", f"{stack.simulator_url}/v1", "foreign-secret", "anthropic")
    async with stack.database() as database:
        await database.execute(
            "UPDATE catalog.providers SET requests_per_minute_max = 1, probed = false WHERE name = 'foreign'"
        )
    await add_model(stack, "foreign", [("foreign", "m"), ("behind", "m")])
    await wait_until_routed(stack, "foreign")
    await asyncio.sleep(1)
    asking = Flood(stack.url, await stack.make_key("translating", balance="10"), "foreign")
    async with aiohttp.ClientSession() as session:
        assert [await asking.one(session) for _ in range(3)] == [200, 200, 200]
    await stack.settled()
    async with stack.database() as database:
        found = await database.fetch(
            "SELECT provider, attempts FROM billing.requests WHERE model = 'foreign' ORDER BY started_at"
        )
        told = await database.fetchval("SELECT count(*) FROM billing.provider_limits WHERE provider = 'foreign'")
    assert [tuple(row) for row in found] == [("foreign", 1), ("behind", 2), ("behind", 2)]
    # Full is not ill, and nothing that it said.
    assert told == 0
