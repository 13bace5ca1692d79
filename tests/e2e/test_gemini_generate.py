"""Gemini's own API through the real Envoy: keys where Google's clients bring them, the model in the path, usage, errors in Google's form."""

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from ext_authz.leases import body_bound
from gateway_core.mode import Mode
from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.stack import Stack, add_model, add_provider, wait_until_routed

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEADER = "x-request-id"
BODY = {"contents": [{"role": "user", "parts": [{"text": "Hi [[sim output_tokens=30 reasoning_tokens=5]]"}]}]}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def failing(stack: Stack) -> AsyncIterator[ScriptedProvider]:
    """What fails in front of the simulator."""
    async with scripted_provider() as provider:
        provider.status, provider.content_type, provider.pieces = 500, "application/json", [b"{}"]
        beta = stack.simulator_url + "/v1beta"
        await add_provider(stack, "google", beta, "google-secret", "gemini-native")
        await add_provider(stack, "down-google", provider.url, "down-secret", "gemini-native")
        endpoints, meters = ["generate", "stream_generate"], ["input", "output", "reasoning"]
        await add_model(stack, "twin", [("google", "twin-1")], endpoints=endpoints, meters=meters)
        chain = [("down-google", "down"), ("google", "a-much-longer-name")]
        await add_model(stack, "twin-twice", chain, endpoints=endpoints, meters=meters)
        await wait_until_routed(stack, "twin-twice", "stream_generate")
        yield provider


@pytest_asyncio.fixture(loop_scope="session")
async def session(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"x-goog-api-key": stack.endpoints["api_key"]}
    async with aiohttp.ClientSession(stack.url, headers=headers) as created:
        yield created


def path(model: str = "twin", verb: str = "generateContent", query: str = "") -> str:
    return f"/v1beta/models/{model}:{verb}{query}"


STREAM = ("streamGenerateContent", "?alt=sse")


@pytest.mark.parametrize(("verb", "query"), [("generateContent", ""), STREAM])
async def test_an_answer_is_charged_by_the_usage_in_it(
    stack: Stack, session: aiohttp.ClientSession, failing: ScriptedProvider, verb: str, query: str
) -> None:
    del failing
    await stack.forget_provider_requests()
    async with session.post(path("twin", verb, query), json=BODY) as response:
        text = await response.text()
        assert response.status == 200, text
    row = await stack.request_row(response.headers[HEADER])
    meters = json.loads(row["meters"])
    assert (row["outcome"], row["usage_source"], meters["output"], meters["reasoning"]) == (
        "settled",
        "provider",
        30,
        5,
    )
    assert row["price_nano_usd"] == sum(meters.values()) <= row["hold_nano_usd"]
    [received] = await stack.provider_requests()
    assert received["path"] == f"/v1beta/models/twin-1:{verb}{query}"
    assert received["headers"]["x-goog-api-key"] == "google-secret"
    assert not {"authorization", "x-api-key"} & received["headers"].keys()


@pytest.mark.parametrize(("verb", "query"), [("generateContent", ""), STREAM])
async def test_another_provider_is_asked_by_its_own_name_for_the_model(
    stack: Stack, session: aiohttp.ClientSession, failing: ScriptedProvider, verb: str, query: str
) -> None:
    failing.paths.clear()
    await stack.forget_provider_requests()
    async with session.post(path("twin-twice", verb, query), json=BODY) as response:
        assert response.status == 200, await response.text()
    assert failing.paths == [f"/v1/models/down:{verb}"]
    [received] = await stack.provider_requests()
    assert received["path"] == f"/v1beta/models/a-much-longer-name:{verb}{query}"
    assert (await stack.request_row(response.headers[HEADER]))["provider"] == "google"


async def test_a_key_may_stand_in_the_query_and_goes_no_further(stack: Stack, failing: ScriptedProvider) -> None:
    del failing
    await stack.forget_provider_requests()
    async with aiohttp.ClientSession(stack.url) as session:
        for query in (f"?key={stack.endpoints['api_key']}", f"?alt=json&key={stack.endpoints['api_key']}&x=y"):
            async with session.post(path(query=query), json=BODY) as response:
                assert response.status == 200, await response.text()
        # Whoever counts bursts by it sees no key in what another parameter says.
        key = stack.endpoints["api_key"]
        for query in ("?key=nonsense", f"?x=?key={key}", f"?%6bey=another&key={key}", f"?key=&key={key}"):
            async with session.post(path(query=query), json=BODY) as response:
                error = (await response.json())["error"]
            assert (response.status, error["status"], error["code"]) == (401, "UNAUTHENTICATED", 401)
    for received in await stack.provider_requests():
        assert stack.endpoints["api_key"] not in json.dumps(received)


async def test_a_client_may_ask_at_either_version_of_googles_api(
    stack: Stack, session: aiohttp.ClientSession, failing: ScriptedProvider
) -> None:
    del failing
    for verb, query in (("generateContent", ""), STREAM, ("countTokens", "")):
        async with session.post(path("twin", verb, query).replace("/v1beta/", "/v1/"), json=BODY) as response:
            text = await response.text()
        assert response.status == (404 if verb == "countTokens" else 200), text
        if response.status == 200:
            assert (await stack.request_row(response.headers[HEADER]))["outcome"] == "settled"
    # Too large a body is refused before anybody has looked at it.
    huge = io.BytesIO(b" " * (33 * 1024 * 1024))
    async with session.post(path().replace("/v1beta/", "/v1/"), data=huge) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (413, 413)


async def test_a_test_key_is_answered_by_the_simulator(stack: Stack, failing: ScriptedProvider) -> None:
    del failing
    key = await stack.make_key("twin-tester", balance="1", mode=Mode.TEST)
    async with aiohttp.ClientSession(stack.url, headers={"x-goog-api-key": key}) as session:
        for verb, query in (("generateContent", ""), STREAM):
            async with session.post(path("twin", verb, query), json=BODY) as response:
                assert response.status == 200, await response.text()
                await response.read()
            row = await stack.request_row(response.headers[HEADER])
            assert (row["mode"], row["outcome"]) == ("test", "settled")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "other"}, "invalid_model"),
        ({"cachedContent": "cachedContents/1"}, "stored_state_not_offered"),
        ({"cached_content": "cachedContents/1"}, "stored_state_not_offered"),
        ({"generationConfig": {}, "generation_config": {"maxOutputTokens": 5}}, "invalid_input"),
        ({"generationConfig": {"maxOutputTokens": 5, "max_output_tokens": 5}}, "invalid_input"),
        ({"generation_config": {"max_output_tokens": "5"}}, "invalid_number"),
        ({"generationConfig": {"maxOutputTokens": "5"}}, "invalid_number"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "invalid_number"),
        ({"generationConfig": {"candidateCount": 9}}, "invalid_number"),
        ({"generationConfig": {"responseModalities": ["AUDIO"]}}, "feature_not_offered"),
        ({"generationConfig": {"responseModalities": ["image"]}}, "invalid_input"),
        ({"generationConfig": {"responseModalities": [2]}}, "invalid_input"),
        ({"generationConfig": 5}, "invalid_json"),
        ({"tools": [{"googleSearch": {}}]}, "tool_not_offered"),
        ({"tools": [{"functionDeclarations": [], "codeExecution": {}}]}, "tool_not_offered"),
        ({"tools": {"googleSearch": {}}}, "tool_not_offered"),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "files/1"}}]}]}, "stored_state_not_offered"),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "audio/wav", "data": ""}}]}]}, "feature_not_offered"),
    ],
)
async def test_what_nobody_would_count_is_refused_in_googles_form(
    session: aiohttp.ClientSession, failing: ScriptedProvider, fields: dict[str, Any], code: str
) -> None:
    del failing
    async with session.post(path(), json={**BODY, **fields}) as response:
        error = (await response.json())["error"]
    assert (response.status, error["reason"]) == (400, code), error
    assert error == {"code": 400, "message": error["message"], "status": "INVALID_ARGUMENT", "reason": code}


async def test_a_client_may_bound_its_output_and_bring_functions(
    stack: Stack, session: aiohttp.ClientSession, failing: ScriptedProvider
) -> None:
    del failing
    tools = [{"functionDeclarations": [{"name": "f"}]}]
    calling = {"functionCallingConfig": {"mode": "NONE"}}
    for config in (
        {"generationConfig": {"maxOutputTokens": 7, "candidateCount": 2, "responseModalities": ["TEXT"]}},
        {"generation_config": {"max_output_tokens": 7, "candidate_count": 2, "response_modalities": ["TEXT"]}},
    ):
        body = json.dumps({**BODY, **config, "tools": tools, "toolConfig": calling})
        async with session.post(path(), data=body) as response:
            assert response.status == 200, await response.text()
        # If others like it came just before, it holds what each request of their lease would.
        hold = (await stack.request_row(response.headers[HEADER]))["hold_nano_usd"]
        assert hold in {len(body) + 2 * 7, body_bound(len(body)) + 2 * 7}


@pytest.mark.parametrize(
    ("where", "status", "name", "reason"),
    [
        (path("nope"), 404, "NOT_FOUND", "model_not_found"),
        (path("twin", "countTokens"), 404, "NOT_FOUND", "not_found"),
        (path("tw%20n"), 404, "NOT_FOUND", "not_found"),
        (path("twin", "streamGenerateContent"), 400, "INVALID_ARGUMENT", "stream_required"),
        (path("twin", "streamGenerateContent", "?alt=sse2"), 400, "INVALID_ARGUMENT", "stream_required"),
        (path("gpt-4o-mini"), 400, "INVALID_ARGUMENT", "endpoint_not_supported"),
    ],
)
async def test_errors_are_in_googles_form(
    session: aiohttp.ClientSession, failing: ScriptedProvider, where: str, status: int, name: str, reason: str
) -> None:
    del failing
    async with session.post(URL(where, encoded=True), json=BODY) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"], error["status"], error["reason"]) == (status, status, name, reason)


async def test_what_envoy_answers_itself_is_in_googles_form_too(
    stack: Stack, session: aiohttp.ClientSession, failing: ScriptedProvider
) -> None:
    del failing
    await add_provider(stack, "gone-google", "http://127.0.0.1:9/v1beta", "gone-google-secret", "gemini-native")
    await add_model(
        stack, "gone-twin", [("gone-google", "x")], endpoints=["generate"], meters=["input", "output", "reasoning"]
    )
    await wait_until_routed(stack, "gone-twin", "generate")
    async with session.post(path("gone-twin"), json=BODY) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"], error["status"]) == (503, 503, "UNAVAILABLE")
    assert error["reason"] == "provider_unavailable"


async def test_no_script_failed(stack: Stack) -> None:
    assert sum((await stack.envoy_stats(r"lua\..*errors$")).values()) == 0
