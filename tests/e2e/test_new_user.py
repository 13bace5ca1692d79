"""The story of a new user, with nothing but documented calls: sign up, make a key, get credit, pay for a request, take the key away."""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gateway_core.money import parse_usd
from tests.support.stack import Stack, eventually

PASSWORD = "correct horse battery"


@pytest.fixture
async def api(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(stack.endpoints["control_plane_url"]) as session:
        yield session


async def answer(
    session: aiohttp.ClientSession, method: str, path: str, body: object = None, token: str = "", **headers: str
) -> dict[str, Any]:
    if token:
        headers["Authorization"] = f"Bearer {token}"
    async with session.request(method, f"/api/v1{path}", json=body, headers=headers) as response:
        assert response.status < 300, await response.text()
        return {} if response.status == 204 else dict(await response.json())


async def test_a_new_user_signs_up_makes_a_key_pays_for_a_request_and_disables_the_key(
    stack: Stack, api: aiohttp.ClientSession
) -> None:
    email = f"ada-{secrets.token_hex(4)}@example.com"
    await answer(api, "POST", "/auth/register", {"email": email, "password": PASSWORD, "organization": "Engines"})
    token = (await answer(api, "POST", "/auth/login", {"email": email, "password": PASSWORD}))["access_token"]
    [org] = (await answer(api, "GET", "/orgs", token=token))["data"]
    org_id = org["id"]
    key = await answer(api, "POST", f"/orgs/{org_id}/keys", {"name": "first"}, token)

    async def chat() -> tuple[int, str]:
        async with api.post(
            f"{stack.url}/v1/chat/completions",
            json={"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20},
            headers={"Authorization": f"Bearer {key['key']}"},
        ) as response:
            return response.status, response.headers["x-request-id"]

    # Without credit it is refused; an operator gives some.
    assert (await chat())[0] == 402
    operator = stack.endpoints["operator_token"]
    credit = {"amount": "5", "currency": "USD", "reason": "welcome"}
    await answer(api, "POST", f"/orgs/{org_id}/credits", credit, operator)
    assert (await answer(api, "GET", f"/orgs/{org_id}/balance", token=token))["available"] == "5.00"
    status, request_id = await chat()
    assert status == 200
    row = await stack.request_row(request_id)
    assert (row["org_id"], row["key_id"], row["project_id"]) == (org_id, key["id"], key["project_id"])
    assert row["price_nano_usd"] > 0
    paid, given = (await answer(api, "GET", f"/orgs/{org_id}/transactions", token=token))["data"]
    assert (paid["kind"], paid["reference"], given["kind"]) == ("usage", request_id, "credit")
    assert parse_usd(paid["amount"]) == -row["price_nano_usd"]
    left = parse_usd((await answer(api, "GET", f"/orgs/{org_id}/balance", token=token))["posted"])
    assert left == parse_usd("5") - row["price_nano_usd"]

    # The link to verify the address is in the log of the control plane, as the mail of the local stack.
    assert f'"to": "{email}"' in stack.log("control_plane")

    await answer(api, "PATCH", f"/orgs/{org_id}/keys/{key['id']}", {"disabled": True}, token, **{"If-Match": "*"})
    began = time.monotonic()

    async def is_refused() -> bool:
        return (await chat())[0] == 401

    await eventually(is_refused, deadline_s=1)
    assert time.monotonic() - began < 1


async def test_a_key_with_a_network_list_is_refused_from_elsewhere(stack: Stack, api: aiohttp.ClientSession) -> None:
    email = f"bob-{secrets.token_hex(4)}@example.com"
    await answer(api, "POST", "/auth/register", {"email": email, "password": PASSWORD, "organization": "Nets"})
    token = (await answer(api, "POST", "/auth/login", {"email": email, "password": PASSWORD}))["access_token"]
    [org] = (await answer(api, "GET", "/orgs", token=token))["data"]
    path = f"/orgs/{dict(org)['id']}/keys"
    here = await answer(api, "POST", path, {"name": "here", "ip_allowed": ["127.0.0.0/8"]}, token)
    elsewhere = await answer(api, "POST", path, {"name": "elsewhere", "ip_allowed": ["203.0.113.0/24"]}, token)

    async def status(key: dict[str, Any], **headers: str) -> int:
        credential = {"Authorization": f"Bearer {key['key']}", **headers}
        async with api.get(f"{stack.url}/v1/models", headers=credential) as response:
            return response.status

    assert await status(here) == 200
    assert await status(elsewhere) == 403
    # What a client says about where it comes from is not believed.
    assert await status(elsewhere, **{"X-Forwarded-For": "203.0.113.7", "X-Real-IP": "203.0.113.7"}) == 403
