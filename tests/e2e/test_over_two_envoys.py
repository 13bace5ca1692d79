"""Limits of keys, and the end of a key, over two Envoys and two processes of ext_authz under load."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from ext_authz.redis_limits import LEASE_PART
from gateway_core.limits import WINDOW_S
from tests.support.flood import Flood, Pair, running_pair
from tests.support.stack import add_model, wait_until_routed

MODEL = "for-two"
CONNECTIONS = 40
UNSPENT_S = 15
"""Long enough for what workers were lent and did not spend to have gone back and been spent."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with running_pair(tmp_path_factory.mktemp("two") / "data") as running:
        await add_model(running.stack, MODEL, [("openai", MODEL)])
        await wait_until_routed(running.stack, MODEL)
        yield running


async def limited(pair: Pair, name: str, **limits: int) -> Flood:
    """A key with limits, which every process knows."""
    flood = Flood(pair.stack.url, await pair.stack.make_key(name, balance="10"), MODEL)
    headers = {"Authorization": f"Bearer {pair.stack.endpoints['operator_token']}", "If-Match": "*"}
    url = f"{pair.stack.endpoints['control_plane_url']}/api/v1/orgs/org_{name}/keys/key_{name}"
    async with aiohttp.ClientSession() as session, session.patch(url, json=limits, headers=headers) as response:
        assert response.status == 200, await response.text()
    await asyncio.sleep(1)
    return flood


async def test_ten_times_as_many_requests_as_a_key_may_begin_pass_as_often_as_they_may(pair: Pair) -> None:
    per_minute = 640
    flood = await limited(pair, "asking", requests_per_minute_max=per_minute)
    before = await pair.requests_of_each_envoy()
    began = time.monotonic()
    # What workers were lent and did not spend goes back after a while, and is spent then.
    while len(flood.answers) < 10 * per_minute or flood.statuses[200] < 0.98 * per_minute:
        assert time.monotonic() < began + WINDOW_S / 2, flood.statuses
        await flood.run(seconds=1, connections=CONNECTIONS, pause_s=0)
    await flood.run(seconds=UNSPENT_S, connections=CONNECTIONS, pause_s=0)
    after = await pair.requests_of_each_envoy()
    assert all(more - less > per_minute for less, more in zip(before, after, strict=True)), (before, after)
    assert flood.statuses[200] <= per_minute, flood.statuses
    assert set(flood.statuses) == {200, 429}
    for refusal in flood.refusals:
        assert 1 <= int(refusal.headers["retry-after"]) <= WINDOW_S
        assert refusal.headers["x-ratelimit-limit-requests"] == str(per_minute)
        assert int(refusal.headers["x-ratelimit-remaining-requests"]) < LEASE_PART


async def test_streams_use_as_many_tokens_as_their_key_may_and_no_more(pair: Pair) -> None:
    per_minute = 24_000
    flood = await limited(pair, "telling", tokens_per_minute_max=per_minute)
    flood.directives, flood.fields = "output_tokens=60", {"stream": True, "max_tokens": 80}
    began = time.monotonic()
    while len(flood.answers) < 4000 or time.monotonic() < began + UNSPENT_S:
        assert time.monotonic() < began + WINDOW_S / 2
        await flood.run(seconds=1, connections=CONNECTIONS, pause_s=0)
    await pair.stack.settled()
    async with pair.stack.database() as database:
        used = await database.fetchval(
            """
            SELECT sum(value::bigint)::bigint FROM billing.requests CROSS JOIN jsonb_each_text(meters)
            WHERE key_id = 'key_telling' AND status = 200
            """
        )
    one = used / flood.statuses[200]
    # Bodies are guessed at on the way in, so near the end a request may be refused that would have fitted.
    assert 0.98 * per_minute - 2 * one <= used <= per_minute + one, (used, one, flood.statuses)


async def test_no_more_run_at_once_than_may(pair: Pair) -> None:
    flood = await limited(pair, "crowding", concurrency_max=7)
    flood.directives = "output_tokens=5 latency_ms=150"
    await flood.run(seconds=4, connections=CONNECTIONS, pause_s=0.01)
    await pair.stack.settled()
    async with pair.stack.database() as database:
        spans = await database.fetch(
            """
            SELECT started_at, started_at + first_byte_ms * interval '1 ms' AS answered_at FROM billing.requests
            WHERE key_id = 'key_crowding' AND status = 200
            """
        )
    # A request that waited up to 75 ms for its place had not begun to run; the provider takes twice as long.
    moments = sorted(
        (moment, change)
        for row in spans
        for moment, change in ((row["answered_at"].timestamp() - 0.13, 1), (row["answered_at"].timestamp() - 0.02, -1))
    )
    running = most = 0
    for _, change in moments:
        running += change
        most = max(most, running)
    assert most <= 7
    assert len(spans) > 0.7 * 4 / 0.2 * 7
    assert flood.statuses[429] > 100
    assert {refusal.headers["retry-after"] for refusal in flood.refusals} == {"1"}


async def test_the_last_request_of_a_key_is_served_within_a_second_of_its_end(pair: Pair) -> None:
    keys = 12
    floods = [
        Flood(pair.stack.url, await pair.stack.make_key(f"ending-{number}", balance="10"), MODEL)
        for number in range(keys)
    ]
    headers = {"Authorization": f"Bearer {pair.stack.endpoints['operator_token']}", "If-Match": "*"}
    api = f"{pair.stack.endpoints['control_plane_url']}/api/v1/orgs"
    ended_s: list[float] = []

    async def end(number: int, session: aiohttp.ClientSession) -> None:
        # One after the other, wherever their leases are.
        await asyncio.sleep(1.5 + number * 0.13)
        async with session.delete(f"{api}/org_ending-{number}/keys/key_ending-{number}", headers=headers) as response:
            assert response.status == 204, await response.text()
        ended_s.append(time.monotonic())

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for number, flood in enumerate(floods):
            group.create_task(flood.run(seconds=5, connections=4, pause_s=0.005))
            group.create_task(end(number, session))
    lasted = sorted(
        max(each.at_s for each in flood.answers if each.status == 200) - ended
        for flood, ended in zip(floods, ended_s, strict=True)
    )
    # Half of them sooner than the middle of a lease's life and the way of the announcement together.
    assert statistics.median(lasted) < 0.75, lasted
    assert lasted[-1] < 1, lasted
    for flood in floods:
        assert set(flood.statuses) == {200, 401}, (
            flood.statuses,
            [each.text for each in flood.refusals if each.status != 401],
        )
