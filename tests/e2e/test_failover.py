"""Failover from one provider to the next: right path, model and credential at each, and no key where it does not belong."""

import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from io import BytesIO

import aiohttp
import pytest
import pytest_asyncio

from local_stack.ports import free_port
from tests.support.processes import running_python
from tests.support.stack import Stack, add_model, add_provider, provider_credentials, wait_until_routed

FLAKY_KEY, BACKUP_KEY = "flaky-provider-secret", "backup-provider-secret"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chain(stack: Stack) -> AsyncIterator[dict[str, str]]:
    """Model `chain-<failure>`: a provider that fails in that way first, a good one second. Yields failure to URL."""
    failures = ("500", "429", "reset", "401")
    async with AsyncExitStack() as running:
        urls: dict[str, str] = {}
        for failure in failures:
            port = free_port()
            await running.enter_async_context(
                running_python(
                    "simulator",
                    ready=f"http://127.0.0.1:{port}/readyz",
                    TOLLGATE_SIMULATOR_PORT=str(port),
                    TOLLGATE_SIMULATOR_KNOBS=f"error={failure}",
                    TOLLGATE_SIMULATOR_RECORD="true",
                )
            )
            urls[failure] = f"http://127.0.0.1:{port}"
        await add_provider(stack, "backup", f"{stack.simulator_url}/v1", BACKUP_KEY)
        for failure, url in urls.items():
            await add_provider(stack, f"flaky-{failure}", f"{url}/v1", FLAKY_KEY)
            await add_model(
                stack, f"chain-{failure}", [(f"flaky-{failure}", "flaky-model"), ("backup", f"backup-{failure}")]
            )
        for failure in failures:
            await wait_until_routed(stack, f"chain-{failure}")
        yield urls


def as_file(body: dict[str, object]) -> BytesIO:
    """aiohttp warns of large bodies in any other form."""
    return BytesIO(json.dumps(body).encode())


async def received(url: str) -> list[dict[str, object]]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/simulator/requests") as got:
        found: list[dict[str, object]] = (await got.json())["requests"]
        return found


async def test_each_kind_of_failure_moves_to_the_next_provider_with_its_own_path_model_and_credential(
    stack: Stack, chain: dict[str, str]
) -> None:
    client_key = stack.endpoints["api_key"]
    for failure, flaky_url in chain.items():
        for size in (10, 20_000_000):
            await stack.forget_provider_requests()
            body = {
                "model": f"chain-{failure}",
                "stream": size == 10,
                "messages": [{"role": "user", "content": "x" * size}],
            }
            headers = {**stack.headers, "x-api-key": client_key, "cookie": f"key={client_key}"}
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{stack.url}/v1/chat/completions", data=as_file(body), headers=headers) as response,
            ):
                assert response.status == 200, failure
                await response.read()
                request_id = response.headers["x-request-id"]
            first = (await received(flaky_url))[-1]
            [second] = await stack.provider_requests()
            for request, key, model in ((first, FLAKY_KEY, "flaky-model"), (second, BACKUP_KEY, f"backup-{failure}")):
                assert request["path"] == "/v1/chat/completions"
                assert request["headers"]["authorization"] == f"Bearer {key}"  # type: ignore[index]  # JSON of the simulator
                assert f'"model": "{model}"' in str(request["body_start"])
                assert client_key not in json.dumps(request)
            assert FLAKY_KEY not in json.dumps(second)
            row = await stack.request_row(request_id)
            assert (row["provider"], row["attempts"], row["outcome"]) == ("backup", 2, "settled"), failure


async def test_a_request_shows_every_attempt_and_is_charged_once(stack: Stack, chain: dict[str, str]) -> None:
    await add_provider(stack, "shut", f"http://127.0.0.1:{free_port()}/v1", "shut-secret")
    await add_model(stack, "chain-closed", [("shut", "flaky-model"), ("backup", "backup-closed")])
    await wait_until_routed(stack, "chain-closed")
    expected = {
        "500": (500, "it answered 500", "0.00"),
        "429": (429, "it answered 429: too many requests", "0.00"),
        "401": (401, "it answered 401: it does not take our credential", "0.00"),
        # It was sent, so the provider may have worked on it.
        "reset": (None, "the provider closed the connection", None),
        "closed": (None, "no connection to the provider", "0.00"),
    }
    operator = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    assert expected.keys() == {*chain, "closed"}
    for failure, (status, reason, cost) in expected.items():
        body = {"model": f"chain-{failure}", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
        async with (
            aiohttp.ClientSession(stack.url, headers=stack.headers) as session,
            session.post("/v1/chat/completions", json=body) as response,
        ):
            assert response.status == 200, failure
            request_id = response.headers["x-request-id"]
        row = await stack.request_row(request_id)
        async with (
            aiohttp.ClientSession(headers=operator, raise_for_status=True) as session,
            session.get(f"{stack.endpoints['control_plane_url']}/api/v1/requests/{request_id}") as got,
        ):
            shown = await got.json()
        first, second = shown["attempts"]
        assert (first["status"], first["tried_next_because"], first["cost"]) == (status, reason, cost), failure
        assert first["provider"] == ("shut" if failure == "closed" else f"flaky-{failure}")
        assert first["upstream_model"] == "flaky-model"
        assert (second["provider"], second["upstream_model"], second["status"]) == ("backup", f"backup-{failure}", 200)
        assert (second["tried_next_because"], second["cost"]) == (None, shown["cost"])
        assert shown["provider"] == "backup"
        async with stack.database() as connection:
            charges = await connection.fetch("SELECT kind FROM billing.transactions WHERE request_id = $1", request_id)
        assert [each["kind"] for each in charges] == ["usage"]
        assert row["price_nano_usd"] > 0
        await stack.clickhouse_attempt(request_id)


async def test_the_first_attempt_is_prepared_once_so_the_upstream_script_is_skipped(stack: Stack) -> None:
    before = await stack.envoy_stats("^cluster.provider/openai.lua.executions")
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{stack.url}/v1/chat/completions",
            json={"model": "gpt-4o-mini", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]},
            headers=stack.headers,
        ) as response,
    ):
        assert response.status == 200
    assert await stack.envoy_stats("^cluster.provider/openai.lua.executions") == before
    assert len(before) == 1


async def test_providers_of_one_group_share_the_traffic_each_with_its_own_model_and_credential(stack: Stack) -> None:
    """Which one a first attempt goes to is drawn by Envoy: only upstream.lua can prepare it."""
    names = ("drawn-a", "drawn-b")
    for name in names:
        await add_provider(stack, name, f"{stack.simulator_url}/v1", f"{name}-secret")
    await add_model(stack, "drawn", [(name, f"model-of-{name}") for name in names], in_one_group=True)
    await wait_until_routed(stack, "drawn")
    await stack.forget_provider_requests()
    request_ids = []
    async with aiohttp.ClientSession(stack.url, headers=stack.headers) as session:
        for number in range(40):
            text = "x" * (100_000 if number % 4 == 0 else 10)
            body = {"model": "drawn", "stream": number % 2 == 0, "messages": [{"role": "user", "content": text}]}
            async with session.post("/v1/chat/completions", json=body) as response:
                assert response.status == 200
                await response.read()
                request_ids.append(response.headers["x-request-id"])
    at_provider = Counter(
        (request["headers"]["authorization"], re.findall(r'"model": "([^"]+)"', request["body_start"])[0])
        for request in await stack.provider_requests()
    )
    rows = [await stack.request_row(request_id) for request_id in request_ids]
    in_ledger = Counter((f"Bearer {row['provider']}-secret", f"model-of-{row['provider']}") for row in rows)
    assert at_provider == in_ledger
    assert len(at_provider) == 2
    assert sum(at_provider.values()) == 40
    assert {(row["outcome"], row["attempts"]) for row in rows} == {("settled", 1)}
    prepared = await stack.envoy_stats("^cluster.provider/drawn-.*lua.executions")
    assert sum(prepared.values()) == 40


async def test_a_provider_that_refuses_connections_is_503_and_the_hold_is_released(stack: Stack) -> None:
    await add_provider(stack, "closed", f"http://127.0.0.1:{free_port()}/v1", "closed-secret")
    await add_model(stack, "closed", [("closed", "upstream-closed")])
    await wait_until_routed(stack, "closed")
    async with aiohttp.ClientSession(stack.url, headers=stack.headers) as session:
        for stream in (False, True):
            body: dict[str, object] = {"model": "closed", "stream": stream, "messages": []}
            async with session.post("/v1/chat/completions", json=body) as response:
                assert (response.status, response.content_type) == (503, "application/json")
                assert (await response.json())["error"]["code"] == "provider_unavailable"
                request_id = response.headers["x-request-id"]
            row = await stack.request_row(request_id)
            assert (row["outcome"], row["price_nano_usd"]) == ("released", 0)


async def test_no_script_failed_and_no_secret_is_in_the_config_dump_the_spool_or_a_log(stack: Stack) -> None:
    await add_provider(stack, "leaky-first", f"http://127.0.0.1:{free_port()}/v1", "leaky-first-secret")
    await add_provider(stack, "leaky-second", f"{stack.simulator_url}/v1", "leaky-second-secret")
    await add_model(stack, "leaky", [("leaky-first", "first"), ("leaky-second", "second")])
    await wait_until_routed(stack, "leaky")
    # Everything that has a secret in its hands has used it: front and upstream script, ext_authz, the sink, a failure.
    async with aiohttp.ClientSession(stack.url, headers=stack.headers) as session:
        for text in ("x", "x [[sim error=401]]", "x [[sim error=429]]", "x [[sim error=cut]]"):
            for model in ("leaky", "gpt-4o-mini", "gemini-2.5-flash"):
                for stream in (False, True):
                    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}
                    with suppress(aiohttp.ClientPayloadError):
                        async with session.post("/v1/chat/completions", json=body) as response:
                            await response.read()
    await stack.settled()
    executions = await stack.envoy_stats("^cluster.provider/leaky-second.lua.executions")
    assert sum(executions.values()) >= 8
    errors = await stack.envoy_stats("lua.errors")
    assert errors
    assert not any(errors.values()), errors
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{stack.endpoints['envoy_admin_url']}/config_dump?include_eds") as got,
    ):
        places = {"config dump": await got.text()}
    for path in [*(stack.data_dir / "logs").iterdir(), *(stack.data_dir / "spool").iterdir()]:
        places[path.name] = path.read_text(errors="replace")
    assert {"access.jsonl", "envoy.log", "ext_authz.log", "billing_sink.log", "control_plane.log"} <= set(places)
    secrets = {path.name: path.read_text().strip() for path in (stack.data_dir / "secrets").iterdir()}
    credentials = await provider_credentials(stack)
    assert {"openai", "anthropic", "gemini", "leaky-first", "leaky-second"} <= set(credentials)
    for place, text in places.items():
        for name, secret in {**secrets, **credentials}.items():
            assert secret not in text, f"{name} is in {place}"


@pytest.mark.parametrize(
    ("name", "base_url"),
    [
        ("metadata", "http://169.254.169.254/v1"),
        ("reserved", "http://240.0.0.1/v1"),
        # Names that have come to mean something else, as far as Envoy can tell.
        ("mapped", "http://[::ffff:169.254.169.254]/v1"),
        ("unassigned", "http://[fe80::1]/v1"),
    ],
)
async def test_a_provider_that_has_moved_to_a_forbidden_address_is_not_connected_to(
    stack: Stack, name: str, base_url: str
) -> None:
    """Written past the API, which refuses it: what a name server could do after the API was asked."""
    provider = f"moved-{name}"
    await add_provider(stack, provider, base_url, "secret-of-a-provider")
    await add_model(stack, provider, [(provider, "m")])
    await wait_until_routed(stack, provider)
    body = {"model": provider, "messages": [{"role": "user", "content": "Hello"}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stack.url}/v1/chat/completions", json=body, headers=stack.headers) as response,
    ):
        answer = await response.json()
        request_id = response.headers["x-request-id"]
    assert (response.status, answer["error"]["code"]) == (503, "provider_address_refused")
    stats = await stack.envoy_stats(f"^cluster.provider/{provider}.(rbac.denied|upstream_cx_total)$")
    assert sorted(stats.values()) == [0, 1]
    row = await stack.request_row(request_id)
    assert (row["outcome"], row["price_nano_usd"]) == ("released", 0)
