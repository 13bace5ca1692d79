"""The story of an operator: a provider, a model and a route through the API, live without a restart; and an edit that Envoy
refuses, which no request notices."""

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import yaml

from tests.support.stack import Stack

MODEL = {"owned_by": "test", "context_tokens": 100_000, "max_output_tokens": 100}


class Operator:
    """Calls the API with the operator's token."""

    def __init__(self, stack: Stack, session: aiohttp.ClientSession) -> None:
        self.stack = stack
        self.session = session

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> dict[str, Any]:
        credential = {"Authorization": f"Bearer {self.stack.endpoints['operator_token']}"}
        url = f"{self.stack.endpoints['control_plane_url']}/api/v1{path}"
        async with self.session.request(method, url, json=body, headers=credential | headers) as response:
            assert response.status < 300, await response.text()
            return dict(await response.json())

    async def put(self, path: str, body: object, **headers: str) -> dict[str, Any]:
        """An edit, once it is final."""
        operation = await self.call("PUT", path, body, **headers)
        return await self.call("GET", f"/operations/{operation['id']}?wait_ms=10000")

    async def applied(self, path: str, body: object, **headers: str) -> dict[str, Any]:
        operation = await self.put(path, body, **headers)
        assert (operation["state"], operation["nodes"]) == ("applied", 1), operation
        return operation

    async def serve(self, name: str, **route: object) -> None:
        """A model of the same name as its provider, which is the simulator under another path."""
        provider = {"kind": "openai", "base_url": f"{self.stack.simulator_url}/v1", "credential": f"sk-{name}-1"}
        await self.applied(f"/providers/{name}", provider)
        await self.applied(f"/models/{name}", MODEL | {"aliases": [f"{name}-alias"]})
        await self.applied(f"/deployments/{name}/{name}", {"upstream_model": "up/stream"})
        async with self.stack.database() as database:
            await database.executemany(
                "INSERT INTO catalog.prices VALUES ($1, $1, 0, $2, 1000000, 1000000)",
                [(name, meter) for meter in ("input", "cached_input", "output", "reasoning")],
            )
        await self.applied(f"/routes/{name}", {"match": name, "groups": [[{"provider": name}]], **route})

    async def export(self) -> tuple[dict[str, Any], str]:
        """The catalogue as a document, and its ETag."""
        credential = {"Authorization": f"Bearer {self.stack.endpoints['operator_token']}"}
        url = f"{self.stack.endpoints['control_plane_url']}/api/v1/catalog"
        async with self.session.get(url, headers=credential) as response:
            return dict(await response.json()), response.headers["ETag"]

    async def chat(self, model: str) -> tuple[int, str]:
        """Status and request id."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
        url = f"{self.stack.url}/v1/chat/completions"
        async with self.session.post(url, json=body, headers=self.stack.headers) as response:
            await response.read()
            return response.status, response.headers["x-request-id"]


@pytest.fixture
async def operator(stack: Stack) -> AsyncIterator[Operator]:
    async with aiohttp.ClientSession() as session:
        yield Operator(stack, session)


@pytest.fixture
def name() -> str:
    return f"edit-{secrets.token_hex(4)}"


async def test_an_operator_adds_a_provider_a_model_and_a_route_and_traffic_goes_there(
    operator: Operator, stack: Stack, name: str
) -> None:
    assert (await operator.chat(name))[0] == 404
    await operator.serve(name)
    await stack.forget_provider_requests()
    for asked in (name, f"{name}-alias"):
        status, request_id = await operator.chat(asked)
        assert status == 200
        row = await stack.request_row(request_id)
        assert (row["model"], row["provider"], row["outcome"]) == (name, name, "settled")
        assert row["price_nano_usd"] > 0
    received = [json.loads(each["body_start"]) for each in await stack.provider_requests()]
    assert [body["model"] for body in received] == ["up/stream", "up/stream"]

    # A new credential, without a restart and without a lost request.
    etag = (await operator.call("GET", f"/providers/{name}"))["revision"]
    provider = {"kind": "openai", "base_url": f"{stack.simulator_url}/v1", "credential": f"sk-{name}-2"}
    rotation = asyncio.create_task(operator.applied(f"/providers/{name}", provider, **{"If-Match": f'"{etag}"'}))
    statuses = []
    while not rotation.done():
        statuses.append((await operator.chat(name))[0])
    await rotation
    statuses.append((await operator.chat(name))[0])
    assert set(statuses) == {200}
    last = (await stack.provider_requests())[-1]
    assert last["headers"]["authorization"] == f"Bearer sk-{name}-2"


async def test_a_change_is_applied_only_when_admission_knows_it_too(
    operator: Operator, stack: Stack, name: str
) -> None:
    await stack.make_key(name, balance="1.00")
    await operator.serve(name)
    assert (await operator.chat(name))[0] == 200
    hidden = {"match": name, "groups": [[{"provider": name}]], "orgs_allowed": [f"org_{name}"]}
    pid = int(stack.endpoints["pids"]["ext_authz"])
    [reader] = (await operator.call("GET", "/nodes"))["authorizers"]
    assert (reader["lags"], reader["id"].startswith("authz_")) == (False, True)

    # It stands still, as it would in the middle of something; Envoy has the change at once.
    os.kill(pid, signal.SIGSTOP)
    try:
        operation = await operator.call("PUT", f"/routes/{name}", hidden, **{"If-Match": "*"})
        waiting = await operator.call("GET", f"/operations/{operation['id']}?wait_ms=1500")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (waiting["state"], waiting["waiting_for"]) == ("pending", [reader["id"]])
    applied = await operator.call("GET", f"/operations/{operation['id']}?wait_ms=10000")
    assert (applied["state"], applied["authorizers"], applied["waiting_for"]) == ("applied", 1, [])
    # The first request after that is decided by it: the model does not exist for this key any more.
    assert (await operator.chat(name))[0] == 404


async def test_a_route_for_some_organisations_does_not_exist_for_others(
    operator: Operator, stack: Stack, name: str
) -> None:
    key = await stack.make_key(name, balance="1.00")
    await operator.serve(name, orgs_allowed=[f"org_{name}"])
    assert (await operator.chat(name))[0] == 404

    async def listed(credential: str) -> set[str]:
        headers = {"Authorization": f"Bearer {credential}"}
        async with operator.session.get(f"{stack.url}/v1/models", headers=headers) as response:
            return {model["id"] for model in (await response.json())["data"]}

    assert name in await listed(key)
    assert name not in await listed(stack.endpoints["api_key"])


async def test_the_catalogue_is_edited_as_a_file_checked_and_applied_and_traffic_goes(
    operator: Operator, stack: Stack, name: str
) -> None:
    document, etag = await operator.export()
    file = yaml.safe_dump(document, sort_keys=True)
    assert "gpt-4o-mini" in file
    assert "credential" not in file

    edited = yaml.safe_load(file)
    unit = "1M tokens"
    provider = {"kind": "openai", "base_url": f"{stack.simulator_url}/v1", "credential": f"sk-{name}"}
    edited["providers"][name] = provider
    edited["models"][name] = MODEL | {"aliases": [f"{name}-alias"]}
    edited["deployments"][name] = {name: {"upstream_model": "up/stream"}}
    meters = ("input", "cached_input", "output", "reasoning")
    prices = [{"meter": meter, "unit": unit, "cost": "1", "price": "2"} for meter in meters]
    edited["prices"][name] = {name: {"prices": prices}}
    edited["routes"][name] = {"match": name, "groups": [[{"provider": name}]]}
    difference = await operator.call("POST", "/catalog/diff", edited)
    assert {(each["change"], each["key"].split(" ")[0]) for each in difference["changes"]} == {("create", name)}
    assert (await operator.call("POST", "/catalog/check", edited))["ok"] is True

    applied = await operator.call("POST", "/catalog/apply", edited, **{"If-Match": etag})
    ended = await operator.call("GET", f"/operations/{applied['id']}?wait_ms=10000")
    assert (ended["state"], ended["nodes"]) == ("applied", 1), ended
    status, request_id = await operator.chat(f"{name}-alias")
    assert status == 200
    row = await stack.request_row(request_id)
    assert (row["model"], row["provider"], row["outcome"]) == (name, name, "settled")
    assert row["price_nano_usd"] == 2 * row["cost_nano_usd"] > 0

    # Once more, with nothing in it that is new: in force at once, and no Envoy is told anything.
    again = await operator.call("POST", "/catalog/apply", edited, **{"If-Match": "*"})
    ended = await operator.call("GET", f"/operations/{again['id']}?wait_ms=10000")
    assert (again["target"], ended["state"]) == ("0 created, 0 replaced, 0 deleted", "applied")


async def test_a_change_that_envoy_refuses_is_rolled_back_and_no_request_notices(
    operator: Operator, stack: Stack, name: str
) -> None:
    await operator.serve(name)
    operation_id = f"op_{secrets.token_hex(8)}"
    statuses: list[int] = []
    done = asyncio.Event()

    async def traffic() -> None:
        while not done.is_set():
            statuses.append((await operator.chat(name))[0])

    running = asyncio.create_task(traffic())
    # The API would not let it in, so it is written behind its back: a header that no HTTP can carry.
    async with stack.database() as database, database.transaction():
        await database.execute(
            "UPDATE catalog.providers SET headers = $2 WHERE name = $1", name, json.dumps({"not a header\n": "x"})
        )
        await database.execute(
            """
            INSERT INTO catalog.operations (operation_id, revision, action, target, actor_kind, actor_id)
            VALUES ($1, catalog.current_revision(), 'provider.put', $2, 'token', 'test')
            """,
            operation_id,
            name,
        )
    ended = await operator.call("GET", f"/operations/{operation_id}?wait_ms=10000")
    assert ended["state"] == "rolled_back", ended
    assert "refused it" in ended["error"]
    assert (await operator.call("GET", f"/providers/{name}"))["headers"] == {}
    # What comes next is not held up by it.
    await operator.applied(f"/models/{name}-next", MODEL)
    done.set()
    await running
    assert set(statuses) == {200}
    [node] = (await operator.call("GET", "/nodes"))["data"]
    assert node["accepted_revision"] >= ended["undone_by"]
