"""Providers that are over their limits, fail or are paused: load moves away from them within a second, and comes back.

On a stack of its own, where times are short.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from local_stack.ports import free_port
from tests.support.faulty_provider import Exchange, Fault, deliver, fail, faulty_provider
from tests.support.processes import running_python
from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.stack import Stack, add_model, add_provider, eventually, running_stack, wait_until_routed

OUT_S = 4
MOVED_S_MAX = 3
"""It is below one second where nobody else is at work on the machine; a full one needs more."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(
        tmp_path_factory.mktemp("health") / "data",
        TOLLGATE_PROVIDER_OUT_S=str(OUT_S),
        TOLLGATE_PROVIDER_PROBE_INTERVAL_S="1",
    ) as running:
        await add_provider(running, "backup", f"{running.simulator_url}/v1", "backup-secret")
        yield running


async def chat(stack: Stack, model: str, text: str = "x", **more: object) -> tuple[int, dict[str, Any], str]:
    """Status, body and request id."""
    body = {"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": text}], **more}
    async with (
        aiohttp.ClientSession(stack.url, headers=stack.headers) as session,
        session.post("/v1/chat/completions", json=body) as response,
    ):
        return response.status, await response.json(), response.headers["x-request-id"]


async def operate(stack: Stack, method: str, path: str, body: object = None) -> dict[str, Any]:
    """A call of the API as the operator."""
    operator = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    url = f"{stack.endpoints['control_plane_url']}/api/v1{path}"
    async with aiohttp.ClientSession(headers=operator) as session, session.request(method, url, json=body) as response:
        assert response.status < 300, await response.text()
        return dict(await response.json())


async def become(stack: Stack, provider: str, verb: str) -> float:
    """Pause or resume a provider; after how long every Envoy had it."""
    begun = time.monotonic()
    operation = await operate(stack, "POST", f"/providers/{provider}/{verb}", {"reason": "a test"})
    operation = await operate(stack, "GET", f"/operations/{operation['id']}?wait_ms=10000")
    assert operation["state"] == "applied", operation
    return time.monotonic() - begun


async def state_of(stack: Stack, provider: str, state: str, *, deadline_s: float = 15) -> dict[str, Any]:
    """The health of a provider as soon as it, or one of its models, is in a state."""

    async def find() -> dict[str, Any] | None:
        found = await operate(stack, "GET", f"/providers/{provider}/health")
        is_it = state in {found["state"], *(each["state"] for each in found["models"])}
        return found if is_it and (state != "healthy" or not found["models"]) else None

    return await eventually(find, deadline_s=deadline_s)


@asynccontextmanager
async def first_of(stack: Stack, name: str) -> AsyncIterator[ScriptedProvider]:
    """A scripted provider that is the first of the chain of a model of the same name."""
    async with scripted_provider() as scripted:
        scripted.content_type = "application/json"
        scripted.pieces = [ANSWER]
        await add_provider(stack, name, scripted.url, f"{name}-secret")
        await add_model(stack, name, [(name, "their-model"), ("backup", "m")])
        await wait_until_routed(stack, name)
        yield scripted


ANSWER = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "model": "their-model",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()


def asked_for_answers(scripted: ScriptedProvider) -> int:
    """How many requests it got, probes left out."""
    return sum(path.endswith("/chat/completions") for path in scripted.paths)


async def moved_after(stack: Stack, model: str, scripted: ScriptedProvider) -> float:
    """Ask until the provider is asked no more; seconds from its answer to the last request that it got, and some."""
    begun = time.monotonic()
    async with asyncio.timeout(10):
        while True:
            before = asked_for_answers(scripted)
            status, _, _ = await chat(stack, model)
            assert status == 200
            if asked_for_answers(scripted) == before:
                return time.monotonic() - begun


async def test_load_moves_away_from_who_refuses_and_comes_back_when_it_said(stack: Stack) -> None:
    async with first_of(stack, "refusing") as scripted:
        scripted.status, scripted.more_headers = 429, {"retry-after": "6"}
        assert await moved_after(stack, "refusing", scripted) < MOVED_S_MAX
        before = asked_for_answers(scripted)
        for _ in range(20):
            assert (await chat(stack, "refusing"))[0] == 200
        assert asked_for_answers(scripted) == before
        health = await state_of(stack, "refusing", "cooling")
        [model] = health["models"]
        assert (model["upstream_model"], model["why"]) == ("their-model", "too many requests, by its own word")
        [limits] = health["limits"]
        assert (limits["upstream_model"], limits["status"]) == ("their-model", 429)
        explained = await operate(stack, "POST", "/routes/explain", {"endpoint": "chat", "model": "refusing"})
        assert explained["groups"][0]["members"][0]["skipped_because"].startswith("it is cooling until 20")
        availability = await operate(stack, "GET", "/models/refusing/availability")
        states = {each["provider"]: each["state"] for each in availability["providers"]}
        assert states == {"backup": "healthy", "refusing": "cooling"}
        scripted.status, scripted.more_headers = 200, {}
        await state_of(stack, "refusing", "healthy")
        await wait_until_asked(stack, "refusing", scripted)


async def wait_until_asked(stack: Stack, model: str, scripted: ScriptedProvider) -> None:
    """Ask until the provider is asked again."""
    before = asked_for_answers(scripted)
    async with asyncio.timeout(10):
        while asked_for_answers(scripted) == before:
            assert (await chat(stack, model))[0] == 200


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("spent-openai", {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m0s"}),
        (
            "spent-anthropic",
            {
                "anthropic-ratelimit-requests-remaining": "50",
                "anthropic-ratelimit-requests-reset": "2020-01-01T00:00:00Z",
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2099-01-01T00:00:00Z",
            },
        ),
    ],
)
async def test_load_moves_before_the_refusal_when_an_answer_says_that_nothing_is_left(
    stack: Stack, name: str, headers: dict[str, str]
) -> None:
    async with first_of(stack, name) as scripted:
        scripted.more_headers = headers
        assert await moved_after(stack, name, scripted) < MOVED_S_MAX
        health = await state_of(stack, name, "cooling")
        assert health["models"][0]["why"] == "nothing is left of its limits"
        # It has answered all that it was asked for: nothing has failed, and nobody was told of its limits.
        assert (health["failed"], health["limited"]) == (0, 0)
        async with stack.database() as database:
            assert await database.fetchval("SELECT count(*) FROM billing.attempts WHERE provider = $1", name) == 0


async def test_what_a_provider_says_of_our_limits_is_not_told_to_the_client(stack: Stack) -> None:
    async with first_of(stack, "discreet") as scripted:
        scripted.more_headers = {"x-ratelimit-remaining-requests": "7", "anthropic-ratelimit-tokens-remaining": "8"}
        async with (
            aiohttp.ClientSession(stack.url, headers=stack.headers) as session,
            session.post("/v1/chat/completions", json={"model": "discreet", "messages": []}) as response,
        ):
            assert response.status == 200
        assert not [name for name in response.headers if name.lower().startswith(("x-tg", "anthropic", "x-ratelimit"))]


async def test_who_cannot_be_reached_is_left_out_and_a_probe_brings_it_back(stack: Stack) -> None:
    port = free_port()
    await add_provider(stack, "away", f"http://127.0.0.1:{port}/v1", "away-secret")
    await add_model(stack, "away", [("away", "m"), ("backup", "m")])
    await wait_until_routed(stack, "away")
    for _ in range(5):
        assert (await chat(stack, "away"))[0] == 200
    health = await state_of(stack, "away", "down")
    assert health["state"] == "down"
    assert "no connection to the provider" in health["why"] or "could not be reached" in health["why"]

    async def is_not_tried() -> bool:
        _, _, request_id = await chat(stack, "away")
        return bool((await stack.request_row(request_id))["attempts"] == 1)

    await eventually(is_not_tried)
    async with running_python("simulator", ready=f"http://127.0.0.1:{port}/readyz", TOLLGATE_SIMULATOR_PORT=str(port)):
        health = await state_of(stack, "away", "healthy")
        assert health["probe"]["answered"]

        async def is_asked() -> bool:
            _, _, request_id = await chat(stack, "away")
            return bool((await stack.request_row(request_id))["provider"] == "away")

        await eventually(is_asked)
        health = await state_of(stack, "away", "healthy")
    assert [each["state"] for each in health["history"]][:2] == ["healthy", "down"]


async def test_who_answers_with_errors_comes_back_by_time_and_the_last_of_a_chain_is_never_left_out(
    stack: Stack,
) -> None:
    async with first_of(stack, "broken") as scripted:
        await add_model(stack, "broken-alone", [("broken", "their-model")])
        await wait_until_routed(stack, "broken-alone")
        scripted.status = 500
        for _ in range(5):
            assert (await chat(stack, "broken"))[0] == 200
        health = await state_of(stack, "broken", "down")
        assert health["why"] == "5 failures in a row, the last: it answered 500"
        await moved_after(stack, "broken", scripted)
        before = asked_for_answers(scripted)
        assert (await chat(stack, "broken-alone"))[0] == 500
        assert asked_for_answers(scripted) == before + 1
        scripted.status = 200
        await state_of(stack, "broken", "healthy", deadline_s=4 * OUT_S)


async def test_an_organisation_whose_requests_break_a_provider_takes_it_from_nobody_else(stack: Stack) -> None:
    async def answer(exchange: Exchange) -> None:
        if b"poison" in exchange.body:
            await fail(exchange, Fault.BROKEN if b"poison-500" in exchange.body else Fault.RESET)
        else:
            await deliver(exchange, "good", streamed=False)

    poisoner = {"Authorization": f"Bearer {await stack.make_key('poisoner', balance='10')}"}
    async with faulty_provider(answer) as provider, aiohttp.ClientSession(stack.url) as session:
        await add_provider(stack, "poisoned", f"{provider.address}/v1", "secret")
        await add_model(stack, "poisoned", [("poisoned", "their-model"), ("backup", "m")])
        await wait_until_routed(stack, "poisoned")

        async def ask(text: str, headers: Mapping[str, str]) -> str:
            body = {"model": "poisoned", "max_tokens": 5, "messages": [{"role": "user", "content": text}]}
            async with session.post("/v1/chat/completions", json=body, headers=headers) as response:
                assert response.status == 200
                return response.headers["x-request-id"]

        for number in range(4):
            await ask("well", stack.headers)
            for _ in range(6):
                await ask("poison-500" if number % 2 else "poison-reset", poisoner)
        await stack.settled()
        # Whatever could be judged has been.
        await asyncio.sleep(2)
        health = await operate(stack, "GET", "/providers/poisoned/health")
        assert (health["state"], health["failed"], health["history"]) == ("healthy", 24, [])
        async with stack.database() as database:
            attempts = await database.fetch(
                "SELECT org_id, count(*) FROM billing.attempts WHERE provider = 'poisoned' AND status = 500 GROUP BY 1"
            )
        assert [tuple(row) for row in attempts] == [("org_poisoner", 12)]
        # As soon as it is not one's own doing, it is out.
        for _ in range(3):
            await ask("poison-500", stack.headers)
        await state_of(stack, "poisoned", "down")


async def test_a_pause_is_in_force_within_a_second_under_load_and_a_running_stream_ends_whole(stack: Stack) -> None:
    async with first_of(stack, "leaving") as scripted:
        pieces = [f'data: {{"choices":[{{"index":0,"delta":{{"content":"{n}"}}}}]}}\n\n'.encode() for n in range(40)]
        scripted.content_type, scripted.pause_s = "text/event-stream", 0.1
        scripted.pieces = [*pieces, b"data: [DONE]\n\n"]
        statuses: list[int] = []
        is_over = asyncio.Event()

        async def ask() -> None:
            async with aiohttp.ClientSession(stack.url, headers=stack.headers) as session:
                while not is_over.is_set():
                    body = {"model": "leaving", "messages": [{"role": "user", "content": "x"}]}
                    async with session.post("/v1/chat/completions", json=body) as response:
                        await response.read()
                        statuses.append(response.status)

        async def stream() -> bytes:
            body = {"model": "leaving", "stream": True, "messages": []}
            async with (
                aiohttp.ClientSession(stack.url, headers=stack.headers) as session,
                session.post("/v1/chat/completions", json=body) as response,
            ):
                return await response.read()

        async with asyncio.TaskGroup() as group:
            streamed = group.create_task(stream())
            await eventually(lambda: asyncio.sleep(0, bool(asked_for_answers(scripted))))
            scripted.content_type, scripted.pause_s, scripted.pieces = "application/json", 0.0, [ANSWER]
            for _ in range(8):
                group.create_task(ask())
            await asyncio.sleep(0.5)
            took_s = await become(stack, "leaving", "pause")
            await asyncio.sleep(0.2)
            before = asked_for_answers(scripted)
            await asyncio.sleep(0.5)
            assert asked_for_answers(scripted) == before
            is_over.set()
        assert took_s < 1
        assert set(statuses) == {200}
        told = streamed.result()
        assert all(piece in told for piece in pieces)
        assert told.endswith(b"data: [DONE]\n\n")
        health = await operate(stack, "GET", "/providers/leaving/health")
        assert (health["state"], health["why"], health["by"].split()[0]) == ("paused", "a test", "token")
        await become(stack, "leaving", "resume")
        await wait_until_asked(stack, "leaving", scripted)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/chat/completions", ("error", "code", "provider_paused")),
        ("/v1/messages", ("error", "type", "api_error")),
    ],
)
async def test_where_everybody_is_paused_the_client_is_told_so_in_its_dialect(
    stack: Stack, path: str, told: tuple[str, str, str]
) -> None:
    name = f"alone-{path.rpartition('/')[2]}"
    await add_provider(
        stack, name, f"{stack.simulator_url}/v1", "secret", "anthropic" if "messages" in path else "openai"
    )
    await add_model(stack, name, [(name, "m")])
    await wait_until_routed(stack, name, "messages" if "messages" in path else "chat")
    await become(stack, name, "pause")
    body = {"model": name, "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    async with (
        aiohttp.ClientSession(stack.url, headers=stack.headers) as session,
        session.post(path, json=body) as response,
    ):
        answer = await response.json()
        request_id = response.headers["x-request-id"]
    outer, inner, value = told
    assert (response.status, answer[outer][inner]) == (503, value), answer
    row = await stack.request_row(request_id)
    assert (row["outcome"], row["price_nano_usd"]) == ("released", 0)
    await become(stack, name, "resume")


@asynccontextmanager
async def full(stack: Stack, name: str, kind: str) -> AsyncIterator[ScriptedProvider]:
    """A scripted provider that may have one request at once and answers none until it is told to."""
    async with scripted_provider() as scripted:
        scripted.content_type, scripted.pieces = "application/json", [ANSWER]
        scripted.answers.clear()
        await add_provider(stack, name, scripted.url, f"{name}-secret", kind)
        async with stack.database() as database:
            await database.execute(
                "UPDATE catalog.providers SET requests_max = 1, probed = false WHERE name = $1", name
            )
        try:
            yield scripted
        finally:
            scripted.answers.set()


# Of the second kind the front filter prepares no body: its own cluster does, and it takes its bound in another field.
@pytest.mark.parametrize(("kind", "bound"), [("openai", "max_completion_tokens"), ("mistral", "max_tokens")])
async def test_a_full_provider_overflows_to_the_next_group(stack: Stack, kind: str, bound: str) -> None:
    name = f"full-{kind}"
    async with full(stack, name, kind) as scripted:
        await add_model(stack, name, [(name, "their-model"), ("backup", "m")])
        await wait_until_routed(stack, name)
        running = asyncio.create_task(chat(stack, name, max_tokens=None, max_completion_tokens=7))
        await eventually(lambda: asyncio.sleep(0, any(scripted.bodies)))
        status, _, request_id = await chat(stack, name, max_tokens=None, max_completion_tokens=7)
        assert status == 200
        row = await stack.request_row(request_id)
        assert (row["provider"], row["attempts"], row["outcome"]) == ("backup", 2, "settled")
        first = (await operate(stack, "GET", f"/requests/{request_id}"))["attempts"][0]
        assert first["tried_next_because"] == "as many requests as the provider may have at once"
        assert first["cost"] == "0.00"
        scripted.answers.set()
        status, _, request_id = await running
        row = await stack.request_row(request_id)
        assert (status, row["provider"], row["attempts"], row["outcome"]) == (200, name, 1, "settled")
        # A probe may have been there, too.
        [(body, headers)] = [
            (json.loads(body), headers) for body, headers in zip(scripted.bodies, scripted.headers, strict=True) if body
        ]
        assert (body["model"], body[bound], headers["Authorization"]) == ("their-model", 7, f"Bearer {name}-secret")
        assert not [each for each in headers if each.lower().startswith(("x-tg", "x-envoy", "x-forwarded"))]
        # Full is not ill.
        health = await operate(stack, "GET", f"/providers/{name}/health")
        assert (health["state"], health["failed"], health["answered"]) == ("healthy", 0, 1)


@pytest.mark.parametrize(
    ("kind", "endpoint", "path", "told"),
    [
        ("openai", "chat", "/v1/chat/completions", ("code", "provider_full")),
        ("anthropic", "messages", "/v1/messages", ("code", "provider_full")),
        (
            "gemini-native",
            "generate",
            "/v1beta/models/crowded-gemini-native:generateContent",
            ("reason", "provider_full"),
        ),
    ],
)
async def test_where_everybody_is_full_the_client_is_told_in_its_dialect_and_when_to_come_back(
    stack: Stack, kind: str, endpoint: str, path: str, told: tuple[str, str]
) -> None:
    name = f"crowded-{kind}"
    body = (
        {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}
        if endpoint == "generate"
        else {"model": name, "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    )
    async with (
        full(stack, name, kind) as scripted,
        aiohttp.ClientSession(stack.url, headers=stack.headers) as session,
    ):
        meters = ("input", "output", "reasoning")
        await add_model(stack, name, [(name, "their-model")], endpoints=(endpoint,), meters=meters)
        await wait_until_routed(stack, name, endpoint)
        running = asyncio.create_task(session.post(path, json=body))
        await eventually(lambda: asyncio.sleep(0, any(scripted.bodies)))
        async with session.post(path, json=body) as response:
            answer = await response.json()
        scripted.answers.set()
        (await running).release()
    field, value = told
    assert (response.status, answer["error"][field]) == (503, value), answer
    assert response.headers["retry-after"] == "1"
    assert not [each for each in response.headers if each.lower().startswith(("x-tg", "x-envoy"))]
    row = await stack.request_row(response.headers["x-request-id"])
    assert (row["outcome"], row["price_nano_usd"], row["provider"]) == ("released", 0, name)
