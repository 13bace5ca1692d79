"""What a client is told when something is wrong: OpenAI's error shape, JSON, and a request id, whoever answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import aiohttp
import pytest

from tests.support.stack import Stack, eventually

CHAT = "/v1/chat/completions"
MIB = 1024 * 1024


def chat(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture
async def session(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(stack.url, timeout=aiohttp.ClientTimeout(total=30)) as created:
        yield created


async def error_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The error object, after a look at everything that every error has."""
    assert response.content_type == "application/json"
    assert len(response.headers["x-request-id"]) == 36
    body = await response.json()
    assert set(body) == {"error"}
    assert {"message", "type", "param", "code"} <= set(body["error"])
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"model": "gpt-4o-mini"', "invalid_json"),
        (b'{"model": "gpt-4o-mini"} {}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "model": "gpt-4o"}', "invalid_json"),
        (b'{"mod\\u0065l": "gpt-4o"}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "x": [1, {"y": "}"]}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "x": truthy}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "x": ' + b"[" * 600 + b"]" * 600 + b"}", "invalid_json"),
        (b'{"messages": []}', "missing_model"),
        (b'{"model": 4}', "invalid_model"),
        (b'{"model": "a\\nb"}', "invalid_model"),
        (b'{"model": "gpt-4o mini"}', "invalid_model"),
        (b'{"model": "' + b"a" * 300 + b'"}', "invalid_model"),
        (b'{"model": "gpt-4o-mini", "stream": true, "stream_options": {"a": 1, "a": 2}}', "invalid_json"),
    ],
)
async def test_a_malformed_body_is_refused_with_400(
    stack: Stack, session: aiohttp.ClientSession, body: bytes, code: str
) -> None:
    async with session.post(CHAT, data=body, headers=stack.headers) as response:
        assert response.status == 400
        assert (await error_of(response))["code"] == code


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic c2stdGctbGl2ZQ=="},
        {"Authorization": "Bearer sk-tg-live-" + "0" * 49},
        {"Authorization": "Bearer \xff\xfe"},
    ],
)
async def test_a_request_without_a_valid_key_is_refused_with_401(
    session: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    async with session.post(CHAT, json=chat(), headers=headers) as response:
        assert response.status == 401
        assert (await error_of(response))["code"] == "invalid_api_key"


async def test_an_unknown_model_is_404_and_one_on_another_endpoint_says_where_it_is(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    async with session.post(CHAT, json={"model": "nope", "messages": []}, headers=stack.headers) as response:
        assert response.status == 404
        assert (await error_of(response))["code"] == "model_not_found"
    async with session.post(
        CHAT, json={"model": "claude-sonnet-4-6", "messages": []}, headers=stack.headers
    ) as response:
        assert response.status == 400
        assert "/v1/messages" in (await error_of(response))["message"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", CHAT), ("POST", "/v1/nothing"), ("DELETE", "/"), ("POST", "/v1/models")]
)
async def test_an_unknown_path_or_method_is_404(
    stack: Stack, session: aiohttp.ClientSession, method: str, path: str
) -> None:
    async with session.request(method, path, headers=stack.headers) as response:
        assert response.status == 404
        assert (await error_of(response))["code"] == "not_found"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413_and_one_just_below_passes(
    stack: Stack, session: aiohttp.ClientSession, chunked: bool
) -> None:
    def body(size: int) -> Any:
        prefix = b'{"model":"gpt-4o-mini","max_tokens":1,"messages":[{"role":"user","content":"'
        whole = prefix + b"a" * (size - len(prefix) - 4) + b'"}]}'

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(whole), MIB):
                yield whole[start : start + MIB]

        return pieces() if chunked else BytesIO(whole)

    async with session.post(CHAT, data=body(32 * MIB + 1), headers=stack.headers) as response:
        assert response.status == 413
        assert (await error_of(response))["code"] == "request_too_large"
    async with session.post(CHAT, data=body(32 * MIB), headers=stack.headers) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("knob", "status", "code"), [("reset", 503, "provider_unavailable"), ("cut", 502, "provider_unavailable")]
)
async def test_a_provider_that_breaks_off_before_it_answered_is_our_error(
    stack: Stack, session: aiohttp.ClientSession, knob: str, status: int, code: str
) -> None:
    async with session.post(CHAT, json=chat(f"x [[sim error={knob}]]"), headers=stack.headers) as response:
        assert response.status == status
        assert (await error_of(response))["code"] == code


async def test_a_provider_that_refuses_our_credential_is_not_shown_to_the_client(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    async with session.post(CHAT, json=chat("x [[sim error=401]]"), headers=stack.headers) as response:
        assert response.status == 502
        assert (await error_of(response))["code"] == "provider_credential_rejected"
        assert response.headers["x-should-retry"] == "false"


async def test_a_providers_own_error_passes_as_it_is(stack: Stack, session: aiohttp.ClientSession) -> None:
    async with session.post(CHAT, json=chat("x [[sim error=429]]"), headers=stack.headers) as response:
        assert response.status == 429
        assert response.headers["retry-after"]
        assert (await error_of(response))["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize(
    "raw", [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"]
)
async def test_what_is_not_http_is_answered_in_the_same_shape_and_recorded(stack: Stack, raw: bytes) -> None:
    reader, writer = await asyncio.open_connection(*stack.url.removeprefix("http://").split(":"))
    writer.write(raw)
    head, _, body = (await reader.read(4096)).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 400")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:])
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["error"]["code"] == "bad_request"
    row = await stack.request_row(headers["x-request-id"])
    assert row["outcome"] == "refused"


async def test_an_empty_balance_is_402_and_the_sdk_is_told_not_to_retry(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    key = await stack.make_key("poor", balance="0.000001")
    async with session.post(CHAT, json=chat(), headers={"Authorization": f"Bearer {key}"}) as response:
        assert response.status == 402
        assert (await error_of(response))["code"] == "insufficient_quota"
        assert response.headers["x-should-retry"] == "false"
    async with stack.database() as database:
        held = await database.fetchval("SELECT held_nano_usd FROM billing.accounts WHERE org_id = 'org_poor'")
    assert held == 0


async def test_a_disabled_key_is_refused_in_less_than_a_second(stack: Stack, session: aiohttp.ClientSession) -> None:
    key = await stack.make_key("leaver", balance="1")
    headers = {"Authorization": f"Bearer {key}"}
    async with session.get("/v1/models", headers=headers) as response:
        assert response.status == 200
    async with stack.database() as database:
        await database.execute("UPDATE accounts.api_keys SET disabled_at = now() WHERE key_id = 'key_leaver'")

    async def is_refused() -> bool:
        async with session.get("/v1/models", headers=headers) as response:
            return response.status == 401

    await eventually(is_refused, deadline_s=1)


async def test_without_ext_authz_every_request_is_refused_with_503_and_it_heals(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    await stack.forget_provider_requests()
    stack.kill("ext_authz")

    async def status() -> int:
        async with session.post(CHAT, json=chat(max_tokens=1), headers=stack.headers) as response:
            if response.status == 503:
                assert (await error_of(response))["code"] == "authorization_unavailable"
            return response.status

    assert await status() == 503
    assert await stack.provider_requests() == []

    async def is_healed() -> bool:
        return await status() == 200

    await eventually(is_healed)
