"""Pages of other origins: what Envoy tells browsers, and that nobody else is told more by it."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.stack import Stack, running_stack

PAGE, STRANGER = "https://app.example.com", "https://elsewhere.example.com"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path / "data", TOLLGATE_CORS_ORIGINS=f"http://localhost:3000,{PAGE}") as running:
        yield running


async def preflight(session: aiohttp.ClientSession, origin: str, path: str) -> aiohttp.ClientResponse:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }
    async with session.options(path, headers=headers) as response:
        await response.read()
        return response


async def test_a_page_of_a_named_origin_asks_and_reads_and_one_of_another_does_not(stack: Stack) -> None:
    body = {"model": "gpt-4o-mini", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    async with aiohttp.ClientSession(stack.url) as session:
        for path in ("/v1/chat/completions", "/v1/messages", "/v1beta/models/m:generateContent"):
            allowed = await preflight(session, PAGE, path)
            assert allowed.status == 200
            assert allowed.headers["access-control-allow-origin"] == PAGE
            assert allowed.headers["access-control-allow-methods"] == "GET, POST, DELETE"
            # A star does not stand for it.
            assert "authorization" in allowed.headers["access-control-allow-headers"]
            assert "access-control-allow-credentials" not in allowed.headers
            refused = await preflight(session, STRANGER, path)
            assert "access-control-allow-origin" not in refused.headers

        headers = {**stack.headers, "Origin": PAGE}
        async with session.post("/v1/chat/completions", json=body, headers=headers) as response:
            assert response.status == 200
            assert response.headers["access-control-allow-origin"] == PAGE
            exposed = response.headers["access-control-expose-headers"]
            assert {"x-request-id", "x-tollgate-cost", "retry-after"} <= set(exposed.split(", "))
            served = response.headers["x-request-id"]
        # A page has to be able to read why it was refused.
        async with session.post("/v1/chat/completions", json=body, headers={"Origin": PAGE}) as response:
            assert (response.status, response.headers["access-control-allow-origin"]) == (401, PAGE)
            refusal = response.headers["x-request-id"]
        # Admission would let it pass, and no route leads anywhere.
        headers = {**stack.headers, "Origin": PAGE}
        async with session.post("/v1/chat/completions", json=body | {"model": "nobody"}, headers=headers) as response:
            assert (response.status, response.headers["access-control-allow-origin"]) == (404, PAGE)
            assert (await response.json())["error"]["code"]
        for origin in (STRANGER, "http://localhost:3001", "null"):
            headers = {**stack.headers, "Origin": origin}
            async with session.post("/v1/chat/completions", json=body, headers=headers) as response:
                assert response.status == 200
                assert "access-control-allow-origin" not in response.headers

    # Preflights leave no line; what could cost something does.
    await stack.request_row(served)
    await stack.request_row(refusal)
    await stack.spool_read()
    spool = (Path(stack.endpoints["spool_dir"]) / "access.jsonl").read_text()
    assert spool.count('"type":"DownstreamEnd"') == 6
    asked = await stack.envoy_stats("ext_authz.(ok|denied)$")
    assert sum(asked.values()) <= 5


async def test_what_says_it_is_a_preflight_and_is_none_is_served_and_charged_as_ever(stack: Stack) -> None:
    body = {"model": "gpt-4o-mini", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    headers = {
        **stack.headers,
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "X-HTTP-Method-Override": "OPTIONS",
    }
    async with (
        aiohttp.ClientSession(stack.url) as session,
        session.post("/v1/chat/completions", json=body, headers=headers) as response,
    ):
        assert response.status == 200
        row = await stack.request_row(response.headers["x-request-id"])
    assert (row["outcome"], row["status"]) == ("settled", 200)


async def test_without_the_setting_no_page_is_let_in(tmp_path: Path) -> None:
    async with running_stack(tmp_path / "closed") as closed, aiohttp.ClientSession(closed.url) as session:
        answer = await preflight(session, PAGE, "/v1/chat/completions")
        assert answer.status == 404
        assert "access-control-allow-origin" not in answer.headers
