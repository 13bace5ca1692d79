"""An organisation's own key at a provider: its requests carry it and nobody else's do, whatever happens on the way."""

import asyncio
import itertools
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.support.keyed_provider import KeyedProvider, keyed_provider
from tests.support.stack import Stack, add_model, add_provider, eventually, wait_until_routed

numbers = itertools.count(1)


@dataclass(frozen=True)
class Answer:
    """What the gateway answered."""

    status: int
    request_id: str
    text: str


class House:
    """A provider that allows own keys, another one behind it, and a model with both."""

    def __init__(
        self, stack: Stack, session: aiohttp.ClientSession, first: KeyedProvider, second: KeyedProvider
    ) -> None:
        number = next(numbers)
        self.stack = stack
        self.session = session
        self.first = first
        self.second = second
        self.model = f"own-{number}"
        self.single_model = f"own-single-{number}"
        self.names = (f"own-first-{number}", f"own-second-{number}")
        self.ours = (f"ours-first-{number}-secret", f"ours-second-{number}-secret")

    async def open(self) -> None:
        """Put both into the catalogue."""
        for name, provider, key in zip(self.names, (self.first, self.second), self.ours, strict=True):
            await add_provider(self.stack, name, provider.url, key)
            provider.accepted.add(key)
        async with self.stack.database() as database:
            await database.execute("UPDATE catalog.providers SET own_keys = 'allowed' WHERE name = $1", self.names[0])
        await add_model(self.stack, self.model, [(name, "up") for name in self.names])
        await add_model(self.stack, self.single_model, [(self.names[0], "up")])
        await wait_until_routed(self.stack, self.single_model)

    async def customer(self, balance: str = "100") -> "Customer":
        """An organisation with a key of ours, and so far with none of its own."""
        name = f"owner{next(numbers)}"
        return Customer(self, name, await self.stack.make_key(name, balance=balance))


class Customer:
    """An organisation, its key of ours, and the key that it has at the first provider."""

    def __init__(self, house: House, name: str, key: str) -> None:
        self.house = house
        self.name = name
        self.key = key
        self.own = f"own-{name}-provider-secret"

    async def ask(self, model: str | None = None, path: str = "/v1/chat/completions", **fields: object) -> Answer:
        """One request."""
        body = {"model": model or self.house.model, "messages": [{"role": "user", "content": "Hello."}], **fields}
        headers = {"Authorization": f"Bearer {self.key}"}
        async with self.house.session.post(self.house.stack.url + path, json=body, headers=headers) as response:
            assert not [name for name in response.headers if name.lower().startswith(("x-tg-", "x-envoy-"))]
            return Answer(response.status, response.headers["x-request-id"], await response.text())

    async def api(
        self,
        method: str,
        body: Mapping[str, object] | None = None,
        *,
        provider: str | None = None,
        match: str | None = "*",
    ) -> tuple[int, dict[str, object]]:
        """A call about the organisation's own key."""
        endpoints = self.house.stack.endpoints
        path = f"/api/v1/orgs/org_{self.name}/provider-credentials/{provider or self.house.names[0]}"
        headers = {"Authorization": f"Bearer {endpoints['operator_token']}"} | ({"If-Match": match} if match else {})
        url = endpoints["control_plane_url"] + path
        async with self.house.session.request(method, url, json=body, headers=headers) as response:
            return response.status, json.loads(await response.text() or "{}")

    async def bring(self, *, fallback: bool = False, is_good: bool = True) -> None:
        """Have requests sent with an own key, and wait until they are."""
        if is_good:
            self.house.first.accepted.add(self.own)
        status, answer = await self.api("PUT", {"credential": self.own, "fallback": fallback}, match=None)
        assert status == 202, answer
        assert self.own not in json.dumps(answer)
        await self.applied()

    async def applied(self) -> None:
        """Wait until what is stored is in force."""

        async def is_applied() -> bool:
            return (await self.api("GET"))[1]["state"] == "applied"

        await eventually(is_applied)


@pytest.fixture
async def house(stack: Stack) -> AsyncIterator[House]:
    async with AsyncExitStack() as running:
        session = await running.enter_async_context(aiohttp.ClientSession())
        providers = [await running.enter_async_context(keyed_provider()) for _ in range(2)]
        found = House(stack, session, *providers)
        await found.open()
        yield found


async def test_requests_of_an_organisation_carry_its_own_key_cost_nothing_and_nobody_elses_do(house: House) -> None:
    owner, stranger = await house.customer(balance="0.000000001"), await house.customer()
    assert (await owner.ask(house.single_model)).status == 402
    await owner.bring()
    house.first.shown.clear()
    answer = await owner.ask(house.single_model)
    assert answer.status == 200, answer.text
    assert house.first.shown == [owner.own]
    assert (await stranger.ask()).status == 200
    assert house.first.shown == [owner.own, house.ours[0]]

    row = await house.stack.request_row(answer.request_id)
    assert (row["own_key"], row["outcome"], row["provider"]) == (True, "settled", house.names[0])
    assert (row["cost_nano_usd"], row["price_nano_usd"], row["hold_nano_usd"]) == (0, 0, 0)
    assert json.loads(row["meters"]) == {"input": 10, "output": 5}
    assert (await house.stack.clickhouse_row(answer.request_id))["own_key"] is True

    assert (await owner.api("DELETE"))[0] == 204
    await eventually(lambda: _is_refused(owner))
    house.first.shown.clear()
    assert (await stranger.ask()).status == 200
    assert house.first.shown == [house.ours[0]]


async def _is_refused(owner: Customer) -> bool:
    return (await owner.ask(owner.house.single_model)).status == 402


async def test_an_own_key_that_is_refused_takes_the_provider_out_of_the_chain_and_ours_is_not_tried(
    house: House,
) -> None:
    owner = await house.customer()
    await owner.bring(is_good=False)
    house.first.shown.clear()
    answer = await owner.ask()
    assert answer.status == 200
    assert (house.first.shown, house.second.shown) == ([owner.own], [house.ours[1]])
    row = await house.stack.request_row(answer.request_id)
    assert (row["own_key"], row["provider"], row["attempts"]) == (False, house.names[1], 2)
    assert row["cost_nano_usd"] == row["price_nano_usd"] == 15
    assert row["hold_nano_usd"] > 0
    # What a provider makes of a tenant's key says nothing of the provider.
    async with house.stack.database() as database:
        attempts = await database.fetch(
            "SELECT provider, status, own_key FROM billing.attempts WHERE request_id = $1", answer.request_id
        )
    assert [tuple(attempt) for attempt in attempts] == [(house.names[0], 401, True)]
    # Where there is no other provider, it is told whose key that was, and nothing of what the provider says of it.
    refused = await owner.ask(house.single_model)
    assert (refused.status, json.loads(refused.text)["error"]["code"]) == (502, "own_key_rejected")
    assert house.first.shown == [owner.own] * 2


async def test_who_says_so_falls_back_to_our_key_and_pays_for_it_as_ever(house: House) -> None:
    owner = await house.customer()
    await owner.bring(is_good=False, fallback=True)
    for model in (house.model, house.single_model):
        house.first.shown.clear()
        answer = await owner.ask(model)
        assert answer.status == 200
        assert house.first.shown == [owner.own, house.ours[0]]
        row = await house.stack.request_row(answer.request_id)
        assert (row["own_key"], row["provider"], row["price_nano_usd"]) == (False, house.names[0], 15)
    # The one behind it comes after both.
    house.first.accepted.discard(house.ours[0])
    house.first.shown.clear()
    assert (await owner.ask()).status == 200
    assert (house.first.shown, house.second.shown) == ([owner.own, house.ours[0]], [house.ours[1]])


async def test_the_fee_for_own_keys_is_held_for_and_charged_and_told(house: House) -> None:
    owner = await house.customer()
    async with house.stack.database() as database:
        await database.execute("UPDATE catalog.providers SET own_key_fee_ppm = 200000 WHERE name = $1", house.names[0])
    await owner.bring()
    body = {"model": house.model, "messages": [{"role": "user", "content": "Hello."}]}
    headers = {"Authorization": f"Bearer {owner.key}", "x-tollgate-cost": "true"}
    url = house.stack.url + "/v1/chat/completions"

    async def told() -> str | None:
        """Who has to wait for that too long is not told."""
        async with house.session.post(url, json=body, headers=headers) as response:
            assert response.headers.get("x-tollgate-cost", "0.000000003") == "0.000000003"
            return response.headers["x-request-id"] if "x-tollgate-cost" in response.headers else None

    row = await house.stack.request_row(await eventually(told))
    assert (row["own_key"], row["cost_nano_usd"], row["price_nano_usd"]) == (True, 0, 3)
    assert row["hold_nano_usd"] >= 3


async def test_a_busy_key_with_leases_sends_every_request_with_its_own_key(house: House) -> None:
    owner, requests = await house.customer(), 400
    await owner.bring()
    house.first.shown.clear()
    places = asyncio.Semaphore(8)

    async def one() -> Answer:
        async with places:
            return await owner.ask()

    answers = await asyncio.gather(*(one() for _ in range(requests)))
    assert Counter(answer.status for answer in answers) == {200: requests}
    assert Counter(house.first.shown) == {owner.own: requests}
    await house.stack.settled()
    async with house.stack.database() as database:
        rows = await database.fetch(
            "SELECT own_key, outcome, price_nano_usd FROM billing.requests WHERE request_id = ANY($1)",
            [answer.request_id for answer in answers],
        )
    assert Counter(tuple(row) for row in rows) == {(True, "settled", 0): requests}


async def test_a_translated_attempt_carries_the_own_key_and_falls_back_as_any_other(house: House) -> None:
    owner = await house.customer()
    await owner.bring()
    house.first.shown.clear()
    answer = await owner.ask(path="/v1/messages", max_tokens=20)
    assert answer.status == 200, answer.text
    assert house.first.shown == [owner.own]
    row = await house.stack.request_row(answer.request_id)
    assert (row["own_key"], row["cost_nano_usd"], row["provider"]) == (True, 0, house.names[0])

    other = await house.customer()
    await other.bring(is_good=False, fallback=True)
    house.first.shown.clear()
    assert (await other.ask(path="/v1/messages", max_tokens=20)).status == 200
    assert house.first.shown == [other.own, house.ours[0]]


async def test_an_order_of_the_requests_own_and_a_bound_of_the_provider_are_kept_with_own_keys(house: House) -> None:
    """Of two providers that take turns, the one with the own key is never asked with ours, also by way of its bound."""
    async with house.stack.database() as database:
        await database.execute("UPDATE catalog.providers SET requests_max = 50 WHERE name = $1", house.names[0])
        await database.execute("UPDATE catalog.route_members SET priority = 0 WHERE route = $1", house.model)
        await database.execute("UPDATE catalog.routes SET strategy = 'round_robin' WHERE name = $1", house.model)
    owner = await house.customer()
    await owner.bring()
    house.first.shown.clear()
    for _ in range(20):
        assert (await owner.ask()).status == 200
    assert set(house.first.shown) == {owner.own}
    assert set(house.second.shown) == {house.ours[1]}
    assert len(house.first.shown) + len(house.second.shown) == 20
    house.first.accepted.discard(owner.own)
    house.first.shown.clear()
    for _ in range(6):
        assert (await owner.ask()).status == 200
    assert set(house.first.shown) == {owner.own}


async def test_two_organisations_each_with_a_key_never_carry_the_others(house: House) -> None:
    one, two, stranger = [await house.customer() for _ in range(3)]
    await one.bring()
    await two.bring()
    house.first.shown.clear()
    # Whoever is served says its own name in the model's answer; here the provider tells keys by who asks next.
    for customer, key in ((one, one.own), (two, two.own), (stranger, house.ours[0])) * 5:
        house.first.shown.clear()
        assert (await customer.ask()).status == 200
        assert house.first.shown == [key]


async def _under_load(customer: Customer, change: asyncio.Task[None]) -> Counter[int]:
    """What eight clients are answered while something is changed, and a moment longer."""
    statuses: Counter[int] = Counter()

    async def client() -> None:
        while not change.done():
            statuses[(await customer.ask(customer.house.single_model)).status] += 1
            await asyncio.sleep(0.002)
        statuses[(await customer.ask(customer.house.single_model)).status] += 1

    async with asyncio.TaskGroup() as clients:
        for _ in range(8):
            clients.create_task(client())
    await change
    return statuses


async def test_an_organisations_key_is_rotated_under_load_and_no_request_fails(house: House) -> None:
    owner = await house.customer()
    await owner.bring()
    before, owner.own = owner.own, owner.own.replace("secret", "rotated")
    started = house.stack.endpoints["pids"]

    async def rotate() -> None:
        await asyncio.sleep(1)
        house.first.accepted.add(owner.own)
        assert (await owner.api("PUT", {"credential": owner.own}))[0] == 202
        await owner.applied()
        await asyncio.sleep(1)
        house.first.accepted.discard(before)
        await asyncio.sleep(1)

    statuses = await _under_load(owner, asyncio.create_task(rotate()))
    assert set(statuses) == {200}, statuses
    assert statuses[200] > 100
    assert set(house.first.shown) == {before, owner.own}
    assert house.first.shown[-1] == owner.own
    assert house.stack.endpoints["pids"] == started


async def test_our_key_is_rotated_under_load_and_no_request_fails(house: House) -> None:
    customer = await house.customer()
    endpoints = house.stack.endpoints
    url = f"{endpoints['control_plane_url']}/api/v1/providers/{house.names[0]}"
    headers = {"Authorization": f"Bearer {endpoints['operator_token']}", "If-Match": "*"}
    rotated = house.ours[0].replace("secret", "rotated")

    async def rotate() -> None:
        await asyncio.sleep(1)
        house.first.accepted.add(rotated)
        body = {"kind": "openai", "base_url": house.first.url, "credential": rotated, "own_keys": "allowed"}
        async with house.session.put(url, json=body, headers=headers) as response:
            operation = await response.json()
            assert response.status == 202, operation

        async def is_applied() -> bool:
            where = f"{endpoints['control_plane_url']}/api/v1/operations/{operation['id']}"
            async with house.session.get(where, headers=headers) as found:
                return bool((await found.json())["state"] == "applied")

        await eventually(is_applied)
        await asyncio.sleep(1)
        house.first.accepted.discard(house.ours[0])
        await asyncio.sleep(1)

    statuses = await _under_load(customer, asyncio.create_task(rotate()))
    assert set(statuses) == {200}, statuses
    assert set(house.first.shown) == {house.ours[0], rotated}


async def test_a_first_key_and_its_removal_under_load_fail_no_request(house: House) -> None:
    owner = await house.customer()
    house.first.accepted.add(owner.own)

    async def change() -> None:
        for _ in range(3):
            await asyncio.sleep(0.5)
            await owner.bring()
            await asyncio.sleep(0.5)
            assert (await owner.api("DELETE"))[0] == 204

    statuses = await _under_load(owner, asyncio.create_task(change()))
    assert set(statuses) == {200}, statuses
    assert set(house.first.shown) == {house.ours[0], owner.own}


async def test_a_stream_that_runs_while_its_key_is_removed_ends_whole(house: House) -> None:
    owner = await house.customer()
    await owner.bring()
    house.first.goes_on.clear()
    house.first.shown.clear()
    running = asyncio.create_task(owner.ask(stream=True))
    await eventually(lambda: _was_shown(house.first, owner.own))
    assert (await owner.api("DELETE"))[0] == 204
    await eventually(lambda: _has_no_cluster(house.stack, f"provider/{house.names[0]}/org_{owner.name}"))
    house.first.goes_on.set()
    answer = await running
    assert answer.status == 200
    assert answer.text.endswith("data: [DONE]\n\n")
    row = await house.stack.request_row(answer.request_id)
    assert (row["own_key"], row["outcome"], row["price_nano_usd"]) == (True, "settled", 0)


async def _was_shown(provider: KeyedProvider, key: str) -> bool:
    return key in provider.shown


async def _has_no_cluster(stack: Stack, cluster: str) -> bool:
    url = f"{stack.endpoints['envoy_admin_url']}/config_dump?resource=dynamic_active_clusters&mask=cluster.name"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return cluster not in await response.text()


@pytest.mark.parametrize(
    "credential", ["", "a b", "with\r\nX-Other: header", "with\nline", "tab\tkey", "nul\x00key", "k\u00e9y", "x" * 8193]
)
async def test_a_credential_that_is_no_header_is_refused_and_not_quoted(house: House, credential: str) -> None:
    owner = await house.customer()
    status, answer = await owner.api("PUT", {"credential": credential}, match=None)
    assert status == 422
    assert len(credential) < 2 or credential not in json.dumps(answer, ensure_ascii=False)
    assert (await owner.api("GET"))[0] == 404


@pytest.mark.parametrize("name", ["", "..", "a%2Fb", "UPPER", "a~b", "a b", "%00", "x" * 300, "gpt'--", "no-such"])
async def test_a_provider_that_is_none_is_not_found_whatever_its_name(house: House, name: str) -> None:
    owner = await house.customer()
    status, _ = await owner.api("PUT", {"credential": "some-credential"}, provider=name or "%20", match=None)
    assert status in {404, 405}


async def test_a_provider_whose_operator_allows_none_says_so(house: House) -> None:
    owner = await house.customer()
    status, _ = await owner.api("PUT", {"credential": "some-credential"}, provider=house.names[1], match=None)
    assert status == 409


async def test_the_keys_stand_nowhere_in_the_clear(house: House) -> None:
    owner = await house.customer()
    await owner.bring()
    assert (await owner.ask()).status == 200
    assert (await owner.ask(path="/v1/messages", max_tokens=20)).status == 200
    house.first.accepted.discard(owner.own)
    assert (await owner.ask()).status == 200
    await house.stack.settled()
    url = f"{house.stack.endpoints['envoy_admin_url']}/config_dump?include_eds"
    async with house.session.get(url) as response:
        dumped = await response.text()
    assert f"credential/{house.names[0]}/org_{owner.name}" in dumped
    shown = json.dumps([await owner.api("GET"), await _audited(owner)])
    for text in (dumped, shown):
        assert owner.own not in text
    assert await asyncio.to_thread(_holding, house.stack.data_dir, owner.own.encode()) == []
    assert re.search(r"\.\.\.cret", shown)


def _holding(folder: Path, secret: bytes) -> list[str]:
    """The files with a text in them: logs, the spool, and those of Postgres, Valkey and ClickHouse."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 100
    return [str(path) for path in files if secret in path.read_bytes()]


async def _audited(owner: Customer) -> object:
    endpoints = owner.house.stack.endpoints
    url = f"{endpoints['control_plane_url']}/api/v1/orgs/org_{owner.name}/audit"
    headers = {"Authorization": f"Bearer {endpoints['operator_token']}"}
    async with owner.house.session.get(url, headers=headers) as response:
        return await response.json()


async def test_the_books_agree_after_all_of_that(house: House) -> None:
    owner = await house.customer()
    await owner.bring()
    assert (await owner.ask()).status == 200
    await house.stack.settled()
    async with house.stack.database() as database:
        checks = await database.fetch("SELECT * FROM billing.check_books()")
    assert len(checks) > 1
    assert {check["wrong"] for check in checks} == {0}
