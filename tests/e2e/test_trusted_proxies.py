"""Behind a load balancer: whose word for where a request comes from counts, at Envoy and at the API."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.stack import Stack, running_stack

PASSWORD = "correct horse battery"
BALANCER, STRANGER = "127.0.0.1", "127.0.0.2"
ALLOWED = "203.0.113.7"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path / "data", TOLLGATE_TRUSTED_PROXIES=f"{BALANCER}/32,10.0.0.0/8") as running:
        yield running


async def key_with_networks(stack: Stack, *networks: str) -> str:
    async with aiohttp.ClientSession(stack.endpoints["control_plane_url"], raise_for_status=True) as session:
        who = {"email": f"ada-{secrets.token_hex(4)}@example.com", "password": PASSWORD}
        async with session.post("/api/v1/auth/register", json={**who, "organization": "Nets"}) as response:
            org = (await response.json())["organization"]["id"]
        async with session.post("/api/v1/auth/login", json=who) as response:
            headers = {"Authorization": f"Bearer {(await response.json())['access_token']}"}
        body = {"name": "somewhere", "ip_allowed": networks}
        async with session.post(f"/api/v1/orgs/{org}/keys", json=body, headers=headers) as response:
            return str((await response.json())["key"])


async def status(stack: Stack, key: str, *forwarded: str, connected: str = BALANCER, **others: str) -> int:
    named = [("X-Forwarded-For", value) for value in forwarded]
    headers = [("Authorization", f"Bearer {key}"), *named, *others.items()]
    connector = aiohttp.TCPConnector(local_addr=(connected, 0))
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.get(f"{stack.url}/v1/models") as response,
    ):
        return response.status


async def test_a_keys_networks_are_judged_by_what_a_trusted_proxy_says_and_by_nobody_elses_word(stack: Stack) -> None:
    key = await key_with_networks(stack, "203.0.113.0/24")
    assert await status(stack, key, ALLOWED) == 200
    assert await status(stack, key, f"{ALLOWED}, 10.1.2.3") == 200
    # The balancer appends the client's own address to whatever the client has sent.
    assert await status(stack, key, f"{ALLOWED}, 198.51.100.1") == 403
    assert await status(stack, key, ALLOWED, "198.51.100.1") == 403
    assert await status(stack, key, f"{ALLOWED}, {STRANGER}") == 403
    assert await status(stack, key, "nonsense") == 403
    assert await status(stack, key) == 403
    # Somebody who is not the balancer.
    assert await status(stack, key, ALLOWED, connected=STRANGER) == 403
    headers = {"X-Tg-Client-Address": ALLOWED, "X-Envoy-External-Address": ALLOWED, "X-Real-IP": ALLOWED}
    assert await status(stack, key, ALLOWED, connected=STRANGER, **headers) == 403
    assert await status(stack, key, **headers) == 403
    of_the_stranger = await key_with_networks(stack, f"{STRANGER}/32")
    assert await status(stack, of_the_stranger, ALLOWED, connected=STRANGER) == 200
    assert await status(stack, of_the_stranger, STRANGER) == 200

    # What is said of the client goes no further.
    await stack.forget_provider_requests()
    said = {"X-Forwarded-For": ALLOWED, "X-Forwarded-Proto": "https", "X-Forwarded-Host": "elsewhere"}
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    async with (
        aiohttp.ClientSession(headers={**stack.headers, **said}) as session,
        session.post(f"{stack.url}/v1/chat/completions", json=body) as response,
    ):
        assert response.status == 200
    [received] = await stack.provider_requests()
    assert not [name for name in received["headers"] if name.startswith(("x-forwarded-", "x-tg-", "x-envoy-"))]
    assert ALLOWED not in str(received)
