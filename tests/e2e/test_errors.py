"""What a client is told when something is wrong: OpenAI's error shape, JSON, and a request id, whoever answers."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.stack import Stack, add_model, eventually, running_stack, wait_until_routed

CHAT = "/v1/chat/completions"
GENERATE = "/v1beta/models/gpt-4o-mini:generateContent"
MIB = 1024 * 1024


def chat(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture
async def session(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(stack.url, timeout=aiohttp.ClientTimeout(total=30)) as created:
        yield created
    # A connection that was refused in the middle of its upload is closed in later turns of the loop.
    await asyncio.sleep(0.1)


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
        (b'{"model": "gpt-4o-mini", "Model": "gpt-4o"}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "mode\xc5\xbf": "gpt-4o"}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "a\x00": 1}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "x": [1 2]}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "x": [1,]}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "x": {"y" 1}}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "x": {"y": 1,}}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "x": {1: 1}}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "x": [[], {}, [}]}', "invalid_json"),
        pytest.param(b'{"model": "gpt-4o-mini", "x": "' + b'\\"' * 2**20 + b'"}', "invalid_json", id="quotes"),
        pytest.param(b'{"model": "gpt-4o-mini", "x": [' + b"{}," * 10**6 + b"1]}", "invalid_json", id="values"),
        pytest.param(
            b'{"model": "gpt-4o-mini", "x": [' + b"1," * 500_000 + b'1], "y": {"z": [' + b"1," * 500_000 + b"1]}}",
            "invalid_json",
            id="values of two fields",
        ),
        (b'{"model": "gpt-4o-mini", "x": ' + b"[" * 501 + b"]" * 501 + b"}", "invalid_json"),
        (b'{"model": "gpt-4o-mini", "x": -+1}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "x": 1.e5}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "x": NaN}', "invalid_json"),
        (b"{" + b",".join(b'"k%d": 1' % n for n in range(1001)) + b', "model": "gpt-4o-mini"}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "n": "128"}', "invalid_number"),
        (b'{"model": "gpt-4o-mini", "n": 1e10}', "invalid_number"),
        (b'{"model": "gpt-4o-mini", "max_tokens": 0}', "invalid_number"),
        (b'{"model": "gpt-4o-mini", "max_tokens": -1}', "invalid_number"),
        (b'{"model": "gpt-4o-mini", "max_completion_tokens": 1.5}', "invalid_number"),
        (b'{"model": "gpt-4o-mini", "service_tier": 1}', "invalid_service_tier"),
        (b'{"model": "gpt-4o-mini", "service_tier": ""}', "invalid_service_tier"),
        (b'{"model": "gpt-4o-mini", "service_tier": "pri\\u006frity"}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "service_tier": "Priority"}', "invalid_service_tier"),
        (b'{"model": "gpt-4o-mini", "service_tier": "' + b"x" * 41 + b'"}', "invalid_service_tier"),
        (b'{"model": "gpt-4o-mini", "service_tier": "priority"}', "service_tier_not_offered"),
        (b'{"model": "gpt-4o-mini", "web_search_options": {}}', "feature_not_offered"),
        *(
            (b'{"model": "gpt-4o-mini", "stream": %b}' % odd, "invalid_stream")
            for odd in (b"1", b'"true"', b'"yes"', b"1.0", b"[]")
        ),
        *(
            (b'{"model": "gpt-4o-mini", "%b": {}}' % extra, "feature_not_offered")
            for extra in (b"plugins", b"provider", b"preset", b"route", b"search_parameters")
        ),
        (b'{"model": "gpt-4o-mini", "tools": [{"type": "function"}, {"type": "browser_search"}]}', "tool_not_offered"),
        (b'{"model": "gpt-4o-mini", "tools": [{"google_search": {}}]}', "tool_not_offered"),
        (b'{"model": "gpt-4o-mini", "tools": [{"type": "function", "Type": "x"}]}', "tool_not_offered"),
        (b'{"model": "gpt-4o-mini", "tools": {"type": "function"}}', "tool_not_offered"),
        (b'{"model": "gpt-4o-mini", "modalities": ["text", "audio"]}', "feature_not_offered"),
        (b'{"model": "gpt-4o-mini", "modalities":["image"]}', "feature_not_offered"),
        (b'{"model": "gpt-4o-mini", "modalities": ["\\u0061udio"]}', "invalid_json"),
        (b'{"model": "gpt-4o-mini", "messages": [{"content": [{"type": "input_audio"}]}]}', "feature_not_offered"),
    ],
)
async def test_a_malformed_body_is_refused_with_400(
    stack: Stack, session: aiohttp.ClientSession, body: bytes, code: str
) -> None:
    async with session.post(CHAT, data=BytesIO(body), headers=stack.headers) as response:
        assert response.status == 400
        assert (await error_of(response))["code"] == code


@pytest.mark.parametrize(
    ("path", "tool", "named"),
    [
        (CHAT, {"type": "browser_search"}, "The tool 'browser_search' is"),
        (CHAT, {"type": "openrouter:bash"}, "The tool 'openrouter:bash' is"),
        (CHAT, {"type": "\u00ab"}, "There is a tool that is"),
        (CHAT, {"type": "x" * 70}, "There is a tool that is"),
        (CHAT, {"name": "f"}, "There is a tool that is"),
        ("/v1/responses", {"type": "code_interpreter"}, "The tool 'code_interpreter' is"),
        ("/v1/messages", {"type": "web_fetch_20250910"}, "The tool 'web_fetch_20250910' is"),
        (GENERATE, {"googleSearch": {}}, "The tool 'googleSearch' is"),
        (GENERATE, {"google-search": {}}, "There is a tool that is"),
    ],
)
async def test_the_tool_that_is_not_offered_is_named(
    stack: Stack, session: aiohttp.ClientSession, path: str, tool: dict[str, Any], named: str
) -> None:
    offered = {"/v1/messages": {"name": "f"}, GENERATE: {"functionDeclarations": []}}.get(path, {"type": "function"})
    body = {} if path == GENERATE else {"model": "gpt-4o-mini"}
    async with session.post(path, json={**body, "tools": [offered, tool]}, headers=stack.headers) as response:
        assert response.status == 400
        assert (await response.json())["error"]["message"] == f"{named} not offered on this endpoint."


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "feature_not_offered"),
        ({"tools": [{"type": "web_search_latest", "name": "web_search"}]}, "tool_not_offered"),
        ({"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}, "tool_not_offered"),
        ({"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}, "tool_not_offered"),
        ({"tools": [{"type": "advisor_20260301", "name": "advisor"}]}, "tool_not_offered"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, "tool_not_offered"),
        ({"tools": [{"type": "openrouter:bash"}]}, "tool_not_offered"),
        ({"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]}, "tool_not_offered"),
        ({"container": "container_1"}, "tool_not_offered"),
        ({"plugins": [{"id": "web"}]}, "feature_not_offered"),
        ({"stream": "true"}, "invalid_stream"),
        (
            {
                "tools": [
                    {"type": "bash_20250124", "name": "bash"},
                    {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
                    {"type": "memory_20250818", "name": "memory"},
                    {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"},
                    {"type": "custom", "name": "f", "input_schema": {"type": "object"}},
                ]
            },
            None,
        ),
        ({"inference_geo": "us"}, "inference_geo_not_offered"),
        ({"inference_geo": 1}, "inference_geo_not_offered"),
        ({"inference_geo": "global"}, None),
        ({"inference_geo": None, "tools": [], "web_search_options": {}, "modalities": ["audio"]}, None),
        ({"tools": [{"name": "web_search", "input_schema": {"type": "object"}}]}, None),
        (
            {"tools": [{"name": "f", "description": 'As "web_search_20250305".', "input_schema": {"type": "object"}}]},
            None,
        ),
        ({"system": '"web_search_20250305" "input_audio"'}, None),
    ],
)
async def test_what_would_be_counted_and_has_no_price_is_refused_before_a_provider_is_asked(
    stack: Stack, session: aiohttp.ClientSession, fields: dict[str, object], code: str | None
) -> None:
    body = {"model": "claude-sonnet-4-6", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}], **fields}
    await stack.forget_provider_requests()
    async with session.post("/v1/messages", json=body, headers=stack.headers) as response:
        found = (await response.json())["error"]["code"] if response.status == 400 else None
    assert found == code
    assert bool(await stack.provider_requests()) == (code is None)


@pytest.mark.parametrize(
    "fields",
    [
        {"web_search_options": None, "modalities": None},
        {"modalities": ["text"]},
        {"stream": None, "plugins": None, "provider": None},
        {"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}]},
        {"inference_geo": "us"},
        {"messages": [{"role": "user", "content": 'A "input_audio" and a "web_search_20250305".'}]},
    ],
)
async def test_what_only_looks_like_it_passes(
    stack: Stack, session: aiohttp.ClientSession, fields: dict[str, object]
) -> None:
    async with session.post(CHAT, json={**chat(max_tokens=1), **fields}, headers=stack.headers) as response:
        assert response.status == 200, await response.text()


async def test_json_of_every_form_passes(stack: Stack, session: aiohttp.ClientSession) -> None:
    odd = b"""
    { "model" :\t"gpt-4o-mini" , "max_tokens": 1, "n": null, "messages": [ {"role":"user","content":"a\\"b\\\\"} ],
      "metadata": {"a": [], "b": {}, "c": [[[]]], "d": [{}, {"e": [1, -2.5, 0.1e-7, 3E+2, true, false, null]}], "": ""} }
    """
    async with session.post(CHAT, data=odd, headers=stack.headers) as response:
        assert response.status == 200, await response.text()


async def test_a_refusal_is_recorded_under_the_clients_own_id(stack: Stack, session: aiohttp.ClientSession) -> None:
    headers = {**stack.headers, "x-request-id": "my-bad-one"}
    async with session.post(CHAT, data=b"{", headers=headers) as response:
        row = await stack.request_row(response.headers["x-request-id"])
    assert (row["client_request_id"], row["endpoint"], row["error_code"]) == ("my-bad-one", "chat", "invalid_json")


@pytest.mark.parametrize("header", ["user-agent", "x-request-id"])
@pytest.mark.parametrize("value", ["\\u0000", "\\", '"}', "caf\u00e9", "%REQ(authorization)%", "x" * 3000])
async def test_what_a_client_calls_itself_decides_about_no_charge(
    stack: Stack, session: aiohttp.ClientSession, header: str, value: str
) -> None:
    async with session.post(CHAT, json=chat(max_tokens=2), headers={**stack.headers, header: value}) as response:
        assert response.status == 200
        row = await stack.request_row(response.headers["x-request-id"])
    assert (row["outcome"], json.loads(row["meters"])["output"]) == ("settled", 2)
    assert stack.endpoints["api_key"] not in str(dict(row))


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-7", "application/grpc", "text/plain", ""])
async def test_the_content_type_is_ours_to_say(stack: Stack, session: aiohttp.ClientSession, content_type: str) -> None:
    await stack.forget_provider_requests()
    headers = {**stack.headers, "content-type": content_type}
    body = json.dumps(chat(max_tokens=1)).encode()
    async with session.post(CHAT, data=body, headers=headers) as response:
        assert response.status == 200
    [received] = await stack.provider_requests()
    assert received["headers"]["content-type"] == "application/json"


async def test_a_client_cannot_choose_among_our_accounts_nor_is_it_named(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    await stack.forget_provider_requests()
    unwanted = [
        *("OpenAI-Organization", "OpenAI-Project", "X-Goog-User-Project", "X-Real-IP", "X-Forwarded-Host", "Via"),
        *("X-Goog-FieldMask", "X-MS-Foo", "X-HTTP-Method-Override", "X-Method-Override", "Range", "If-Range"),
        *("Ocp-Apim-Subscription-Key", "TE", "Trailer"),
    ]
    headers = {**stack.headers, **dict.fromkeys(unwanted, "client"), "anthropic-beta": "kept", "openai-beta": "kept"}
    async with session.post(CHAT, json=chat(max_tokens=1), headers=headers) as response:
        assert response.status == 200
    [received] = await stack.provider_requests()
    assert not {name.lower() for name in unwanted} & set(received["headers"])
    assert not [name for name in received["headers"] if name.startswith("x-forwarded-")]
    assert (received["headers"]["anthropic-beta"], received["headers"]["openai-beta"]) == ("kept", "kept")


@pytest.mark.parametrize(
    ("encoding", "status"), [("gzip", 415), ("identity, gzip", 415), ("br", 415), ("identity", 200), ("Identity", 200)]
)
async def test_a_body_that_is_packed_is_refused(
    stack: Stack, session: aiohttp.ClientSession, encoding: str, status: int
) -> None:
    await stack.forget_provider_requests()
    headers = {**stack.headers, "content-encoding": encoding}
    body = json.dumps(chat(max_tokens=1)).encode()
    async with session.post(CHAT, data=BytesIO(body), headers=headers) as response:
        assert response.status == status
        assert status == 200 or (await error_of(response))["code"] == "unsupported_media_type"
    assert not any("content-encoding" in each["headers"] for each in await stack.provider_requests())


@pytest.mark.parametrize("word", [b"image_url", b"video_url", b"document_url", b"x", b"mcp_servers", b"container"])
async def test_a_body_that_refers_to_images_holds_the_whole_context(
    stack: Stack, session: aiohttp.ClientSession, word: bytes
) -> None:
    body = json.dumps(chat(max_tokens=1)).encode().replace(b'"hi"', b'[{"type":"%b","%b":{"url":"x"}}]' % (word, word))
    async with session.post(CHAT, data=body, headers=stack.headers) as response:
        request_id = response.headers["x-request-id"]
    held = (await stack.request_row(request_id))["hold_nano_usd"]
    assert held == 128_000 * 150 + 1 * 600


@pytest.mark.parametrize(
    "word",
    [
        b"image\\u005furl",
        b"input\\u005faudio",
        b"web\\u005fsearch_2025",
        b"\\u0077eb_search",
        b"web_search_\\u00320",
        b"\\\\\\u0061",
    ],
)
async def test_a_word_that_hides_behind_an_escape_is_refused(
    stack: Stack, session: aiohttp.ClientSession, word: bytes
) -> None:
    body = json.dumps(chat(max_tokens=1)).encode().replace(b'"hi"', b'[{"type":"%b"}]' % word)
    async with session.post(CHAT, data=body, headers=stack.headers) as response:
        assert response.status == 400
        assert (await error_of(response))["code"] == "invalid_json"


@pytest.mark.parametrize(
    "text", ["é ü 日本 😀", "`backticks` @home [x] {y} |z|", "C:\\u0041pps", 'tab\t quote " null\x00']
)
async def test_what_encoders_write_as_escapes_is_read(stack: Stack, session: aiohttp.ClientSession, text: str) -> None:
    escaped = json.dumps(text).replace("`", "\\u0060").replace("@", "\\u0040")
    body = json.dumps(chat(max_tokens=1)).replace('"hi"', escaped)
    async with session.post(CHAT, data=body, headers=stack.headers) as response:
        assert response.status == 200, await response.text()


async def test_what_a_client_adds_to_the_path_reaches_no_provider(stack: Stack, session: aiohttp.ClientSession) -> None:
    await stack.forget_provider_requests()
    headers = {**stack.headers, "idempotency-key": "tenant-chosen"}
    for model in ("gpt-4o-mini", "gemini-2.5-flash"):
        async with session.post(
            f"{CHAT}?key=other&beta=true", json=chat(max_tokens=1) | {"model": model}, headers=headers
        ) as response:
            assert response.status == 200
    received = await stack.provider_requests()
    assert len(received) == 2
    assert not any("key=" in each["path"] or "?" in each["path"] for each in received)
    assert not any("idempotency-key" in each["headers"] for each in received)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic c2stdGctbGl2ZQ=="},
        {"Authorization": "Bearer sk-tg-live-" + "0" * 49},
        {"x-api-key": "sk-tg-live-" + "0" * 49},
        {"Authorization": "Bearer \xff\xfe"},
    ],
)
async def test_a_request_without_a_valid_key_is_refused_with_401(
    session: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    async with session.post(CHAT, json=chat(), headers=headers) as response:
        assert response.status == 401
        assert (await error_of(response))["code"] == "invalid_api_key"


async def test_an_unknown_model_is_404(stack: Stack, session: aiohttp.ClientSession) -> None:
    async with session.post(CHAT, json={"model": "nope", "messages": []}, headers=stack.headers) as response:
        assert response.status == 404
        assert (await error_of(response))["code"] == "model_not_found"


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
        prefix = b'{"model":"long-context","max_tokens":1,"messages":[{"role":"user","content":"'
        whole = prefix + b"a" * (size - len(prefix) - 4) + b'"}]}'

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(whole), MIB):
                yield whole[start : start + MIB]

        return pieces() if chunked else BytesIO(whole)

    if not chunked:
        await add_model(stack, "long-context", [("openai", "long-context")])
    await wait_until_routed(stack, "long-context")
    async with session.post(CHAT, data=body(32 * MIB + 1), headers=stack.headers) as response:
        # Answered while most of it was unsent; a connection that still has that to send outlives its session and its loop.
        unsent = response.connection and response.connection.transport
        assert response.status == 413
        assert (await error_of(response))["code"] == "request_too_large"
    if unsent is not None:
        unsent.abort()
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
    key = await stack.make_key("penniless", balance="0.000001")
    async with session.post(CHAT, json=chat(), headers={"Authorization": f"Bearer {key}"}) as response:
        assert response.status == 402
        assert (await error_of(response))["code"] == "insufficient_quota"
        assert response.headers["x-should-retry"] == "false"
    async with stack.database() as database:
        held = await database.fetchval(
            "SELECT held_nano_usd FROM billing.accounts WHERE org_id = 'org_penniless' AND mode = 'live'"
        )
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


async def test_without_postgres_known_keys_spend_their_slices_others_are_refused_with_503_and_it_heals(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    unknown = {"Authorization": f"Bearer {await stack.make_key('latecomer', balance='1')}"}

    async def status(path: str, headers: Mapping[str, str] = stack.headers) -> int:
        method = "POST" if path == CHAT else "GET"
        body = chat(max_tokens=1) if path == CHAT else None
        async with session.request(method, path, json=body, headers=headers) as response:
            if response.status != 200:
                assert response.status == 503
                await error_of(response)
            return response.status

    assert await status(CHAT) == 200
    stack.kill("postgres")
    assert await status(CHAT) == 200
    assert await status(CHAT, unknown) == 503
    assert await status("/v1/models") == 503

    async def is_healed() -> bool:
        return await status(CHAT, unknown) == 200 and await status("/v1/models") == 200

    await eventually(is_healed, deadline_s=30)
    await stack.settled()


async def test_a_model_that_admission_knows_and_envoy_does_not_yet_is_404_and_costs_nothing(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    pid = int(stack.endpoints["pids"]["control_plane"])
    os.kill(pid, signal.SIGSTOP)
    try:
        await add_model(stack, "early", [("openai", "early")])

        async def answer() -> dict[str, Any] | None:
            async with session.post(CHAT, json=chat() | {"model": "early"}, headers=stack.headers) as response:
                assert response.status == 404
                error = await error_of(response)
                return error if error["code"] == "not_found" else None

        await eventually(answer)
    finally:
        os.kill(pid, signal.SIGCONT)
    await stack.settled()
    async with stack.database() as database:
        rows = await database.fetch(
            "SELECT DISTINCT outcome, price_nano_usd FROM billing.requests WHERE model = 'early'"
        )
    assert ("released", 0) in [tuple(row) for row in rows]
    assert {row["price_nano_usd"] for row in rows} == {0}


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


async def test_a_provider_that_does_not_answer_in_time_is_504(tmp_path: Path) -> None:
    async with running_stack(tmp_path / "hasty", TOLLGATE_PROVIDER_TIMEOUT_S="1") as hasty:
        async with (
            aiohttp.ClientSession(hasty.url) as session,
            session.post(CHAT, json=chat("x [[sim error=timeout]]"), headers=hasty.headers) as response,
        ):
            assert response.status == 504
            error = await error_of(response)
            request_id = response.headers["x-request-id"]
        assert (error["code"], error["type"]) == ("provider_timeout", "timeout_error")
        assert (await hasty.request_row(request_id))["outcome"] == "released"
