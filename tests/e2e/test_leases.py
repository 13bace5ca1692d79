"""Leases in Envoy: most requests of a busy key are asked nobody about, and each is held for, charged and revoked as if it had been."""

import asyncio
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest

from ext_authz.redis_limits import LEASE_PART
from local_stack.ports import free_port
from tests.support.processes import running_python
from tests.support.stack import Stack, add_model, add_provider, eventually, wait_until_routed

CHAT = "/v1/chat/completions"
MODEL = "gpt-4o-mini"
numbers = itertools.count(1)


class Customer:
    """An organisation with plenty of money, and its key."""

    def __init__(self, stack: Stack, name: str, key: str, session: aiohttp.ClientSession) -> None:
        self.stack = stack
        self.name = name
        self.key = key
        self._session = session

    async def ask(self, **fields: object) -> tuple[int, str, str]:
        """Status, request id and text of the answer."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello. [[sim output_tokens=5]]"}], **fields}
        headers = {"Authorization": f"Bearer {self.key}"}
        async with self._session.post(self.stack.url + CHAT, json=body, headers=headers) as response:
            return response.status, response.headers["x-request-id"], await response.text()

    async def limits_left(self, **fields: object) -> Mapping[str, str]:
        """The headers of an answer."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello. [[sim output_tokens=5]]"}], **fields}
        headers = {"Authorization": f"Bearer {self.key}"}
        async with self._session.post(self.stack.url + CHAT, json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            return response.headers

    async def warm(self) -> None:
        """Ask one after the other until most requests are asked nobody about."""
        for _ in range(30):
            assert (await self.ask())[0] == 200

    async def api(self, method: str, path: str, **fields: object) -> None:
        """An operator's call about the key."""
        url = f"{self.stack.endpoints['control_plane_url']}/api/v1/orgs/org_{self.name}/keys/key_{self.name}{path}"
        headers = {"Authorization": f"Bearer {self.stack.endpoints['operator_token']}", "If-Match": "*"}
        async with self._session.request(method, url, json=fields or None, headers=headers) as response:
            assert response.status < 300, await response.text()


@pytest.fixture
async def customer(stack: Stack) -> AsyncIterator[Customer]:
    name = f"leased{next(numbers)}"
    key = await stack.make_key(name, balance="10000")
    async with aiohttp.ClientSession() as session:
        yield Customer(stack, name, key, session)


async def counted(stack: Stack) -> Counter[str]:
    """What ext_authz has decided, lent and been given back."""
    url = stack.endpoints["metrics_urls"]["ext_authz"]
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        text = await response.text()
    pattern = r'tollgate_ext_authz_(?:decisions|lease_uses)_total\{\w+="(\w+)"\} ([\d.]+)'
    return Counter({what: int(float(count)) for what, count in re.findall(pattern, text)})


async def test_a_busy_key_is_rarely_asked_about_and_each_request_is_paid_for_once(customer: Customer) -> None:
    stack, requests = customer.stack, 600
    before = await counted(stack)
    places = asyncio.Semaphore(16)

    async def one() -> str:
        async with places:
            status, request_id, text = await customer.ask()
            assert status == 200, text
            return request_id

    ids = await asyncio.gather(*(one() for _ in range(requests)))
    assert len(set(ids)) == requests
    asked = (await counted(stack) - before)["admitted"]
    assert asked < requests / 4

    await stack.settled()
    async with stack.database() as database:
        rows = await database.fetch(
            "SELECT outcome, price_nano_usd FROM billing.requests WHERE request_id = ANY($1)", ids
        )
        spent = await database.fetchval(
            "SELECT 10000::numeric * 1000000000 - posted_nano_usd FROM billing.accounts"
            " WHERE org_id = $1 AND kind = 'balance' AND mode = 'live'",
            f"org_{customer.name}",
        )
    assert Counter(row["outcome"] for row in rows) == {"settled": requests}
    assert len({row["price_nano_usd"] for row in rows}) == 1
    assert spent == sum(row["price_nano_usd"] for row in rows) > 0


async def test_admission_and_what_follows_it_are_made_for_what_is_asked_about_and_nothing_else(
    customer: Customer,
) -> None:
    stack = customer.stack
    await customer.warm()

    async def made_and_asked() -> tuple[int, int]:
        stats = await stack.envoy_stats(
            r"^http\.gateway\.(composite\.filter_delegation_(success|error)|ext_authz\.ok)$"
        )
        # Where a filter cannot be made, Envoy lets the request pass without it.
        assert stats["http.gateway.composite.filter_delegation_error"] == 0
        return stats["http.gateway.composite.filter_delegation_success"], stats["http.gateway.ext_authz.ok"]

    made, asked = await made_and_asked()
    for _ in range(40):
        assert (await customer.ask())[0] == 200
    made_now, asked_now = await made_and_asked()
    assert made_now - made == 2 * (asked_now - asked)
    assert asked_now - asked < 40


async def test_what_was_lent_and_not_spent_is_given_back_with_a_later_question(customer: Customer) -> None:
    stack = customer.stack
    await customer.warm()
    before = await counted(stack)
    await asyncio.sleep(1.2)
    # The first one finds a lease that is over, the next one brings back what was left of it.
    for _ in range(2):
        assert (await customer.ask())[0] == 200
    after = await counted(stack)
    assert after["given_back"] > before["given_back"]
    assert after["given_back"] <= after["lent"]


async def test_a_key_that_is_revoked_under_load_is_refused_within_a_second(customer: Customer) -> None:
    await customer.warm()
    answered: list[tuple[float, int]] = []
    over = asyncio.Event()

    async def load() -> None:
        while not over.is_set():
            status, _, _ = await customer.ask()
            answered.append((time.monotonic(), status))

    clients = [asyncio.create_task(load()) for _ in range(8)]
    await asyncio.sleep(1)
    await customer.api("DELETE", "")
    revoked_s = time.monotonic()
    await asyncio.sleep(1.5)
    over.set()
    await asyncio.gather(*clients)
    assert {status for _, status in answered} == {200, 401}
    served = [at for at, status in answered if status == 200]
    assert max(served) - revoked_s < 1
    assert any(at > revoked_s + 1 for at, _ in answered)


async def test_what_a_lease_does_not_cover_is_asked_about(customer: Customer) -> None:
    stack = customer.stack
    for _ in range(30):
        assert (await customer.ask(max_tokens=20))[0] == 200
    beyond: list[dict[str, object]] = [
        {"max_tokens": 21},
        {},
        {"max_tokens": 20, "n": 2},
        {"max_tokens": 20, "stream": True},
        {"max_tokens": 20, "service_tier": "default"},
        {"max_tokens": 20, "user": "x" * 9000},
    ]
    for fields in beyond:
        before = await counted(stack)
        assert (await customer.ask(**fields))[0] == 200
        assert (await counted(stack) - before)["admitted"] == 1, fields
    before = await counted(stack)
    for _ in range(4):
        assert (await customer.ask(max_tokens=3))[0] == 200
    assert (await counted(stack) - before)["admitted"] < 4


async def test_a_busy_key_with_limits_per_minute_is_rarely_asked_about_and_never_passes_more_than_they_say(
    customer: Customer,
) -> None:
    stack, most = customer.stack, 2_000
    await customer.api("PATCH", "", requests_per_minute_max=most)
    await asyncio.sleep(1)
    before = await counted(stack)
    began, places, statuses = time.monotonic(), asyncio.Semaphore(16), Counter[int]()

    async def one() -> None:
        async with places:
            statuses[(await customer.ask())[0]] += 1

    while statuses[429] < 200:
        await asyncio.gather(*(one() for _ in range(50)))
    assert time.monotonic() - began < 60
    assert 0.98 * most <= statuses[200] <= most
    assert (await counted(stack) - before)["admitted"] < most / 2
    [key] = [f"key_{customer.name}"]
    await stack.settled()
    async with stack.database() as database:
        rows = await database.fetch("SELECT outcome, count(*) FROM billing.requests WHERE key_id = $1 GROUP BY 1", key)
    assert {tuple(row) for row in rows} == {("settled", statuses[200]), ("refused", statuses[429])}


async def test_a_leased_answer_says_what_is_left_of_the_limits_and_what_it_used_counts(customer: Customer) -> None:
    await customer.api("PATCH", "", requests_per_minute_max=10_000, tokens_per_minute_max=1_000_000)
    await asyncio.sleep(1)
    before = await counted(customer.stack)
    left = [int((await customer.limits_left(max_tokens=1000))["x-ratelimit-remaining-requests"]) for _ in range(60)]
    assert (await counted(customer.stack) - before)["admitted"] < 30
    assert all(10_000 - 60 - 256 <= each < 10_000 for each in left)

    async def counts_as_used() -> bool:
        told = await customer.limits_left(max_tokens=1)
        return int(told["x-ratelimit-remaining-tokens"]) > 1_000_000 * (1 - 1 / LEASE_PART) - 70 * 100

    # A thousand were expected of each, and a few dozen used. What the newest lease is good for counts beside that.
    await eventually(counts_as_used, deadline_s=5)


@pytest.mark.parametrize(
    "limits",
    [
        {"concurrency_max": 1_000},
        {"budget_per_month_usd": "5000"},
        {"ip_allowed": ["127.0.0.0/8"]},
    ],
    ids=["a limit at once", "a budget", "networks"],
)
async def test_each_request_of_a_key_is_asked_about_where_each_one_counts(
    customer: Customer, limits: Mapping[str, object]
) -> None:
    await customer.warm()
    await customer.api("PATCH", "", **limits)
    await asyncio.sleep(1)
    before = await counted(customer.stack)
    for _ in range(20):
        status, _, text = await customer.ask()
        assert status == 200, text
    assert (await counted(customer.stack) - before)["admitted"] == 20


async def test_a_leased_request_fails_over_and_its_provider_tells_nobody_of_our_credential(customer: Customer) -> None:
    stack = customer.stack
    port = free_port()
    async with running_python(
        "simulator",
        ready=f"http://127.0.0.1:{port}/readyz",
        TOLLGATE_SIMULATOR_PORT=str(port),
        TOLLGATE_SIMULATOR_KNOBS="error=401",
        TOLLGATE_SIMULATOR_RECORD="true",
    ):
        await add_provider(stack, "leases-closed", f"http://127.0.0.1:{port}/v1", "closed-provider-secret")
        await add_provider(stack, "leases-open", f"{stack.simulator_url}/v1", "open-provider-secret")
        await add_model(stack, "leased-closed", [("leases-closed", "closed-model")])
        await add_model(stack, "leased-open", [("leases-open", "open-model")])
        for model in ("leased-closed", "leased-open"):
            await wait_until_routed(stack, model)
        for _ in range(20):
            status, _, text = await customer.ask(model="leased-closed")
            assert (status, json.loads(text)["error"]["code"]) == (502, "provider_credential_rejected")
        for _ in range(20):
            status, _, text = await customer.ask(model="leased-open")
            assert (status, json.loads(text)["model"]) == (200, "open-model")
