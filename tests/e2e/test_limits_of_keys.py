"""Limits of keys: kept by two processes of ext_authz together, told in headers, given back when a request is over."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from ext_authz.shared_counts import ASK_AGAIN_S
from gateway_core.endpoints import FACTS, Endpoint
from tests.support.stack import Stack, add_model, eventually, running_stack, wait_until_routed

CHAT = "/v1/chat/completions"
MODEL = "limited-model"
TALKER = "limited-talker"
WAITED = timedelta(milliseconds=100)
"""A request that finds no place waits 75 ms for one, and has begun by then; and logs tell milliseconds."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack with two of every service of ours."""
    async with running_stack(tmp_path_factory.mktemp("limits") / "data", replicas=2) as stack:
        await add_model(stack, MODEL, [("openai", MODEL)])
        [meters] = FACTS[Endpoint.REALTIME].priced_by
        await add_model(stack, TALKER, [("openai", TALKER)], endpoints=["realtime"], meters=sorted(meters))
        await wait_until_routed(stack, TALKER, "realtime")
        yield stack


class Customer:
    """A key with limits, and plenty of money."""

    def __init__(self, stack: Stack, name: str, key: str, session: aiohttp.ClientSession) -> None:
        self.key = key
        self.session = session
        self._stack = stack
        self._name = name

    async def limit(self, **limits: int | None) -> None:
        """Change the key's limits through the API, and wait until every process knows."""
        headers = {"Authorization": f"Bearer {self._stack.endpoints['operator_token']}", "If-Match": "*"}
        url = f"{self._stack.endpoints['control_plane_url']}/api/v1/orgs/org_{self._name}/keys/key_{self._name}"
        async with self.session.patch(url, json=limits, headers=headers) as response:
            assert response.status == 200, await response.text()

        async def is_known() -> bool:
            async with self.session.get(f"{url}/propagation", headers=headers) as response:
                return bool((await response.json())["propagated"])

        await eventually(is_known, deadline_s=1)

    async def ask(self, directives: str = "output_tokens=20", **fields: object) -> tuple[int, Mapping[str, str], Any]:
        """Status, headers and text of the answer to a request."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": f"Hello. [[sim {directives}]]"}], **fields}
        headers = {"Authorization": f"Bearer {self.key}"}
        async with self.session.post(self._stack.url + CHAT, json=body, headers=headers) as response:
            return response.status, response.headers, await response.text()


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as created:
        yield created


async def customer(stack: Stack, name: str, session: aiohttp.ClientSession, **limits: int) -> Customer:
    created = Customer(stack, name, await stack.make_key(name, balance="10"), session)
    await created.limit(**limits)
    return created


async def test_just_as_many_requests_pass_in_a_minute_as_the_key_may_begin(
    pair: Stack, session: aiohttp.ClientSession
) -> None:
    who = await customer(pair, "hasty", session, requests_per_minute_max=40)
    answers = await asyncio.gather(*(who.ask() for _ in range(400)))
    assert Counter(status for status, _, _ in answers) == {200: 40, 429: 360}
    remaining = {int(headers["x-ratelimit-remaining-requests"]) for status, headers, _ in answers if status == 200}
    assert remaining == set(range(40))
    _, headers, text = next(answer for answer in answers if answer[0] == 429)
    error = json.loads(text)["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "requests")
    assert "limited to 40 requests per minute" in error["message"]
    assert headers["x-ratelimit-limit-requests"] == "40"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(headers["retry-after"]) <= 61
    assert "x-should-retry" not in headers
    assert "x-ratelimit-limit-tokens" not in headers
    # A refused request costs nothing.
    await pair.settled()
    async with pair.database() as database:
        rows = await database.fetch(
            "SELECT outcome, error_code, count(*) FROM billing.requests WHERE key_id = 'key_hasty' GROUP BY 1, 2"
        )
    assert {tuple(row) for row in rows} == {("settled", None, 40), ("refused", "rate_limit_exceeded", 360)}


async def test_a_raised_limit_admits_and_a_removed_one_says_nothing(
    pair: Stack, session: aiohttp.ClientSession
) -> None:
    who = await customer(pair, "raised", session, requests_per_minute_max=1)
    assert [(await who.ask())[0] for _ in range(2)] == [200, 429]
    await who.limit(requests_per_minute_max=2)
    status, headers, _ = await who.ask()
    assert (status, headers["x-ratelimit-remaining-requests"]) == (200, "0")
    await who.limit(requests_per_minute_max=None)
    status, headers, _ = await who.ask()
    assert status == 200
    assert not [name for name in headers if name.lower().startswith("x-ratelimit")]


async def test_the_limits_of_a_project_an_organisation_and_a_model_hold_for_all_that_they_are_of(
    pair: Stack, session: aiohttp.ClientSession
) -> None:
    model = "limited-for-all"
    await add_model(pair, model, [("openai", model)])
    await wait_until_routed(pair, model)
    who = await customer(pair, "spread", session, requests_per_minute_max=1000)
    other = await customer(pair, "beside", session, requests_per_minute_max=1000)
    operator = {"Authorization": f"Bearer {pair.endpoints['operator_token']}", "If-Match": "*"}
    api = f"{pair.endpoints['control_plane_url']}/api/v1"

    async def change(path: str, **limits: int | None) -> None:
        async with session.patch(f"{api}{path}", json=limits, headers=operator) as response:
            assert response.status == 200, await response.text()
        await asyncio.sleep(1)

    async def passed(*asking: Customer) -> tuple[int, set[str]]:
        answers = await asyncio.gather(*(each.ask(model=model) for each in asking for _ in range(30)))
        refused = {
            json.loads(text)["error"]["message"].split(" is limited")[0] for status, _, text in answers if status == 429
        }
        return sum(status == 200 for status, _, _ in answers), refused

    await change("/orgs/org_spread/projects/prj_spread", requests_per_minute_max=7)
    assert await passed(who) == (7, {"The project of this API key"})
    await change("/orgs/org_spread/projects/prj_spread", requests_per_minute_max=None)
    await change("/orgs/org_spread", requests_per_minute_max=12)
    # What came before somebody limited it does not count.
    assert await passed(who) == (12, {"Your organization"})
    await change("/orgs/org_spread", requests_per_minute_max=None)
    async with session.get(f"{api}/models/{model}", headers=operator) as response:
        spec = {
            name: value
            for name, value in (await response.json()).items()
            if name not in {"name", "revision", "created_at"}
        }
    async with session.put(
        f"{api}/models/{model}", json=spec | {"requests_per_minute_max": 20}, headers=operator
    ) as response:
        assert response.status in {200, 202}, await response.text()
    await asyncio.sleep(1.5)
    assert await passed(who, other) == (20, {"This model"})


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_count_as_they_were_used_once_a_request_is_over(
    pair: Stack, session: aiohttp.ClientSession, stream: bool
) -> None:
    name = "stream" if stream else "unary"
    who = await customer(pair, f"tokens-{name}", session, tokens_per_minute_max=4000)
    asked = {"stream": stream, "max_tokens": 1000}
    status, headers, _ = await who.ask("output_tokens=50", **asked)
    # Until it is over, all that it may write counts.
    assert (status, headers["x-ratelimit-limit-tokens"]) == (200, "4000")
    assert 2900 < int(headers["x-ratelimit-remaining-tokens"]) < 3000

    async def counts_as_used() -> bool:
        status, headers, _ = await who.ask("output_tokens=50", max_tokens=60)
        return status == 200 and int(headers["x-ratelimit-remaining-tokens"]) >= 3700

    await eventually(counts_as_used, deadline_s=2)
    statuses = [(await who.ask("output_tokens=1000", max_tokens=1000, stream=stream))[0] for _ in range(6)]
    assert statuses[:3] == [200, 200, 200]
    assert statuses[-1] == 429
    status, headers, text = await who.ask("output_tokens=1000", max_tokens=1000)
    assert (status, json.loads(text)["error"]["type"]) == (429, "tokens")
    assert 1 <= int(headers["retry-after"]) <= 61


async def test_never_more_run_at_once_than_may_and_all_that_may_do(pair: Stack, session: aiohttp.ClientSession) -> None:
    who = await customer(pair, "narrow", session, concurrency_max=3)
    answers = await asyncio.gather(*(who.ask("latency_ms=300", stream=True) for _ in range(30)))
    assert Counter(status for status, _, _ in answers) == {200: 3, 429: 27}
    began = time.monotonic()
    while time.monotonic() - began < 3:
        answers += await asyncio.gather(*(who.ask("latency_ms=250", stream=bool(n % 2)) for n in range(6)))
    served = [headers["x-request-id"] for status, headers, _ in answers if status == 200]
    assert len(served) >= 20
    for request_id in served:
        await pair.request_row(request_id)
    async with pair.database() as database:
        rows = await database.fetch(
            "SELECT started_at, started_at + duration_ms * interval '1 ms' AS ended_at FROM billing.requests"
            " WHERE key_id = 'key_narrow' AND outcome = 'settled'"
        )
    changes = sorted([(row["ended_at"], -1) for row in rows] + [(row["started_at"] + WAITED, 1) for row in rows])
    running = list(itertools.accumulate(change for _, change in changes))
    assert max(running) == 3


async def test_who_asks_one_after_the_other_is_never_too_many(pair: Stack, session: aiohttp.ClientSession) -> None:
    who = await customer(pair, "patient", session, concurrency_max=1)
    assert Counter([(await who.ask(stream=bool(number % 2)))[0] for number in range(60)]) == {200: 60}


async def test_a_client_that_leaves_gives_its_place_back(pair: Stack, session: aiohttp.ClientSession) -> None:
    who = await customer(pair, "leaver", session, concurrency_max=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await who.ask("latency_ms=20000")

    async def is_served() -> bool:
        return (await who.ask())[0] == 200

    await eventually(is_served, deadline_s=2)


async def test_a_long_request_counts_as_long_as_it_runs_and_one_whose_envoy_has_died_for_half_a_minute(
    pair: Stack, session: aiohttp.ClientSession
) -> None:
    long = await customer(pair, "long", session, concurrency_max=1)
    orphan = await customer(pair, "orphan", session, concurrency_max=1)

    async def runs(who: Customer, seconds: int) -> asyncio.Task[object]:
        task = asyncio.create_task(who.ask(f"output_tokens={seconds} token_delay_ms=1000", stream=True))
        await asyncio.sleep(0.3)
        assert (await who.ask())[0] == 429
        return task

    running = await runs(long, 38)
    await asyncio.sleep(35)
    assert (await long.ask())[0] == 429
    await running
    assert (await long.ask())[0] == 200

    died = await runs(orphan, 60)
    pair.kill("envoy")
    with pytest.raises(aiohttp.ClientError):
        await died

    async def is_served() -> bool:
        try:
            return (await orphan.ask())[0] == 200
        except aiohttp.ClientError:
            return False

    began = time.monotonic()
    await eventually(is_served, deadline_s=45)
    assert time.monotonic() - began > 15


async def test_official_clients_wait_and_try_again(pair: Stack, session: aiohttp.ClientSession) -> None:
    who = await customer(pair, "sdk", session, concurrency_max=1)
    client = AsyncOpenAI(base_url=f"{pair.url}/v1", api_key=who.key, max_retries=5)
    answers = await asyncio.gather(
        *(
            client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "[[sim latency_ms=200 output_tokens=5]]"}]
            )
            for _ in range(3)
        )
    )
    assert len(answers) == 3
    await client.close()


async def test_without_valkey_each_process_keeps_its_share_and_money_is_as_ever(
    pair: Stack, session: aiohttp.ClientSession
) -> None:
    who = await customer(pair, "alone", session, requests_per_minute_max=20)
    assert (await who.ask())[0] == 200
    pair.kill("valkey")
    answers = Counter([status for status, _, _ in await asyncio.gather(*(who.ask() for _ in range(100)))])
    # What was counted before is not known; neither process admits more than half.
    assert set(answers) == {200, 429}
    assert 10 <= answers[200] <= 21

    async def is_back() -> bool:
        status, headers, _ = await who.ask()
        return status == 200 and int(headers["x-ratelimit-remaining-requests"]) > 10

    # More than half is left only where both count together, anew.
    await eventually(is_back, deadline_s=20)
    # The other process may have tried in vain a moment ago, and leaves it alone so long.
    await asyncio.sleep(ASK_AGAIN_S)
    await pair.settled()
    async with pair.database() as database:
        assert (
            await database.fetchval(
                "SELECT count(*) FROM billing.requests WHERE outcome = 'settled' AND key_id = 'key_alone'"
            )
            >= 11
        )


async def test_a_session_is_one_request_at_once_as_long_as_it_lasts(
    pair: Stack, session: aiohttp.ClientSession
) -> None:
    who = await customer(pair, "talkative", session, concurrency_max=1)
    url, headers = f"{pair.url}/v1/realtime?model={TALKER}", {"Authorization": f"Bearer {who.key}"}
    async with session.ws_connect(url, headers=headers) as first:
        assert (await first.receive_json())["type"] == "session.created"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect(url, headers=headers)
        assert refusal.value.status == 429
        assert (await who.ask())[0] == 429

    async def is_free() -> bool:
        return (await who.ask())[0] == 200

    await eventually(is_free, deadline_s=5)


async def _say(socket: aiohttp.ClientWebSocketResponse, tokens: int) -> str:
    """Ask for a response of so many tokens; the code of the error that ends the session, or nothing."""
    text = f"Hello. [[sim output_tokens={tokens}]]"
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await socket.send_json({"type": "conversation.item.create", "item": item})
    await socket.send_json({"type": "response.create"})
    async for message in socket:
        told = json.loads(message.data)
        if told["type"] == "response.done":
            return ""
        if told["type"] == "error":
            assert "is limited to" in told["error"]["message"]
            return str(told["error"]["code"])
    raise AssertionError("it ended without a word")


async def test_what_a_session_uses_counts_while_it_lasts_and_ends_it_when_the_limit_is_used_up(
    pair: Stack, session: aiohttp.ClientSession
) -> None:
    who = await customer(pair, "chatty", session, tokens_per_minute_max=10_000)
    headers = {"Authorization": f"Bearer {who.key}"}
    path = f"{pair.url}{FACTS[Endpoint.REALTIME].path}?model={TALKER}"
    async with (
        asyncio.timeout(60),
        session.ws_connect(path, headers=headers) as first,
        session.ws_connect(path, headers=headers) as second,
    ):
        # Of each, 4,096 count from its beginning on; then what it has used beyond that, with what its responses read again.
        ended = [await _say(each, 1500) for _ in range(3) for each in (first, second)]
        assert ended == ["", "", "", "", "rate_limit_exceeded", "rate_limit_exceeded"]
        closed = await first.receive()
        assert (closed.type, first.close_code) == (aiohttp.WSMsgType.CLOSE, 1008)
    status, _, text = await who.ask("output_tokens=20", max_tokens=1000)
    assert (status, json.loads(text)["error"]["type"]) == (429, "tokens")
    await pair.settled()
    async with pair.database() as database:
        rows = await database.fetch(
            "SELECT outcome, meters FROM billing.requests WHERE key_id = 'key_chatty' AND outcome <> 'refused'"
        )
    assert all(json.loads(row["meters"])["output"] >= 3000 for row in rows)
    assert len(rows) == 2
