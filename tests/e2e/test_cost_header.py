"""What a request costs, in its answer: exactly what the receipt says, for whoever asks, and never in the way of the answer."""

import json
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from gateway_core.contract import Header
from gateway_core.money import parse_usd
from tests.support.scripted_provider import scripted_provider
from tests.support.stack import Stack, add_model, add_provider, eventually, wait_until_routed

ASKS = {Header.COST: "true"}
CHAT = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hi. [[sim output_tokens=30 cached_tokens=4]]"}],
}
MESSAGE = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Hi. [[sim output_tokens=12 cached_tokens=2]]"}],
}
DIALECTS = pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/messages", MESSAGE)], ids=["chat", "messages"]
)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


class Answer:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def cost(self) -> str | None:
        return self.headers.get(Header.COST)


async def ask(
    stack: Stack,
    session: aiohttp.ClientSession,
    path: str,
    body: Mapping[str, Any],
    *,
    key: str | None = None,
    **more: str,
) -> Answer:
    credential = {"Authorization": f"Bearer {key}"} if key else stack.headers
    async with session.post(stack.url + path, json=body, headers={**credential, **more}) as response:
        assert Header.CLUSTER not in response.headers
        names = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, names, await response.read())


async def receipt(stack: Stack, session: aiohttp.ClientSession, answer: Answer) -> Any:
    request_id = answer.headers["x-request-id"]
    await stack.request_row(request_id)
    url = f"{stack.endpoints['control_plane_url']}/api/v1/receipts/{request_id}"
    headers = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    async with session.get(url, headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.json()


@DIALECTS
async def test_the_answer_says_what_the_receipt_will(
    stack: Stack, session: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> None:
    await stack.forget_provider_requests()
    answer = await ask(stack, session, path, body, **ASKS)
    assert answer.status == 200, answer.body
    found = await receipt(stack, session, answer)
    assert found["meters"]["cached_input"] > 0
    assert answer.cost == found["price"] != "0.00"
    [received] = await stack.provider_requests()
    assert Header.COST not in received["headers"]


@DIALECTS
async def test_who_does_not_ask_is_not_told_and_nor_is_who_asks_otherwise_or_of_a_stream(
    stack: Stack, session: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> None:
    asked_before = await quotes(stack, session)
    for more in ({}, {Header.COST: "yes"}, {Header.COST: "false"}):
        answer = await ask(stack, session, path, body, **more)
        assert (answer.status, answer.cost) == (200, None)
    streamed = await ask(stack, session, path, {**body, "stream": True}, **ASKS)
    assert (streamed.status, streamed.cost) == (200, None)
    assert await quotes(stack, session) == asked_before


async def quotes(stack: Stack, session: aiohttp.ClientSession) -> list[str]:
    ports = json.loads((stack.data_dir / "ports.json").read_text())
    async with session.get(f"http://127.0.0.1:{ports['billing_sink_metrics']}/metrics") as response:
        return [
            line for line in (await response.text()).splitlines() if line.startswith("tollgate_billing_sink_quotes")
        ]


async def test_what_an_organisation_pays_more_or_less_is_in_it(stack: Stack, session: aiohttp.ClientSession) -> None:
    name = f"cost-{secrets.token_hex(4)}"
    key = await stack.make_key(name, balance="5.00")
    before = await ask(stack, session, "/v1/chat/completions", CHAT, key=key, **ASKS)
    headers = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    api = f"{stack.endpoints['control_plane_url']}/api/v1"
    async with session.put(f"{api}/orgs/org_{name}/terms", json={"markup_percent": "50"}, headers=headers) as changed:
        operation = await changed.json()
    async with session.get(f"{api}/operations/{operation['id']}?wait_ms=10000", headers=headers) as ended:
        assert (await ended.json())["state"] == "applied"
    after = await ask(stack, session, "/v1/chat/completions", CHAT, key=key, **ASKS)
    assert after.cost == (await receipt(stack, session, after))["price"]
    assert before.cost is not None
    assert after.cost is not None
    assert parse_usd(after.cost) * 2 == parse_usd(before.cost) * 3


async def test_refusals_and_other_answers_have_none_and_tell_nothing_of_us(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    for body, key in (
        ({"model": "gpt-4o-mini"}, "sk-tg-live-wrong"),
        ({"model": "no-such-model", "messages": []}, None),
    ):
        answer = await ask(stack, session, "/v1/chat/completions", body, key=key, **ASKS)
        assert answer.status in {401, 404}, answer.body
        assert answer.cost is None
    async with session.get(f"{stack.url}/v1/models", headers={**stack.headers, **ASKS}) as listed:
        assert listed.status == 200
        assert not {Header.COST, Header.CLUSTER} & {name.lower() for name in listed.headers}


async def test_a_provider_can_say_nothing_in_our_name(stack: Stack, session: aiohttp.ClientSession) -> None:
    name = f"liar-{secrets.token_hex(4)}"
    async with scripted_provider() as provider:
        provider.content_type = "application/json"
        provider.more_headers = {Header.COST: "0.00", Header.CLUSTER: "provider/openai"}
        usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
        provider.pieces = [json.dumps({"choices": [], "usage": usage}).encode()]
        await add_provider(stack, name, provider.url, "sk-liar")
        await add_model(stack, name, [(name, "up")])
        await wait_until_routed(stack, name)
        body = {"model": name, "messages": []}
        silent = await ask(stack, session, "/v1/chat/completions", body)
        asked = await ask(stack, session, "/v1/chat/completions", body, **ASKS)
        assert (silent.status, silent.cost) == (200, None)
        assert asked.cost == (await receipt(stack, session, asked))["price"] == "0.0000015"
        assert not [name for headers in provider.headers for name in headers if name.lower().startswith("x-tollgate")]

        # Nobody knows what this costs, so nobody says so.
        provider.pieces = [json.dumps({"choices": [], "usage": {**usage, "odd_tokens": 7}}).encode()]
        odd = await ask(stack, session, "/v1/chat/completions", body, **ASKS)
        assert (odd.status, odd.cost) == (200, None)


async def test_it_is_the_price_at_the_provider_that_answered_at_last(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    name = f"second-{secrets.token_hex(4)}"
    async with scripted_provider() as broken, scripted_provider() as works:
        broken.status, broken.content_type, broken.pieces = 500, "application/json", [b"{}"]
        usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
        works.content_type, works.pieces = "application/json", [json.dumps({"choices": [], "usage": usage}).encode()]
        await add_provider(stack, f"{name}-a", broken.url, "sk-a")
        await add_provider(stack, f"{name}-b", works.url, "sk-b")
        await add_model(stack, name, [(f"{name}-a", "up"), (f"{name}-b", "up")])
        async with stack.database() as connection, connection.transaction():
            await connection.execute(
                """
                INSERT INTO catalog.prices (model, provider, meter, cost_nano_usd_per_mtok, price_nano_usd_per_mtok)
                VALUES ($1, $2, 'input', 1000000, 7000000), ($1, $2, 'output', 1000000, 7000000)
                """,
                *(name, f"{name}-b"),
            )
        await wait_until_routed(stack, name)

        async def dearer() -> Answer | None:
            answer = await ask(stack, session, "/v1/chat/completions", {"model": name, "messages": []}, **ASKS)
            assert (answer.status, answer.cost) == (200, (await receipt(stack, session, answer))["price"])
            return answer if answer.cost == "0.0000105" else None

        await eventually(dearer)
        assert broken.bodies


async def test_without_the_sink_the_answer_is_whole_and_hardly_later(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    await ask(stack, session, "/v1/chat/completions", CHAT, **ASKS)
    sink = int(stack.endpoints["pids"]["billing_sink"])
    os.kill(sink, signal.SIGSTOP)
    try:
        began = time.monotonic()
        answer = await ask(stack, session, "/v1/chat/completions", CHAT, **ASKS)
        took_s = time.monotonic() - began
    finally:
        os.kill(sink, signal.SIGCONT)
    assert (answer.status, answer.cost) == (200, None)
    assert json.loads(answer.body)["usage"]["completion_tokens"] == 30
    assert 0.2 < took_s < 1.0
    assert (await receipt(stack, session, answer))["price"] != "0.00"
