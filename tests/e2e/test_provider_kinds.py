"""Kinds of providers at a running gateway: how each one is authenticated to, and what is made of a body that it does not take."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio
from pydantic import SecretStr

from control_plane.sealing import Seal, provider_credential
from gateway_core.ids import ProviderName
from tests.support.aws_signature import Signature, signature_of
from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.stack import Stack, add_model, add_provider, eventually, wait_until_routed

# The providers answer in the loop that they were started in.
pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY_ID, SECRET, TOKEN = "AKIDEXAMPLEAKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session-token-of-aws/+=="
NEXT_KEY_ID, NEXT_SECRET = "AKIDNEXTAKIDNEXT", "another/secret+access/key+of/the+account"
ANSWER = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'


@dataclass(frozen=True)
class Providers:
    """Two providers, which every model of this module leads to under other kinds."""

    first: ScriptedProvider
    second: ScriptedProvider

    def reset(self) -> None:
        for each in (self.first, self.second):
            each.status, each.content_type, each.pieces = 200, "application/json", [ANSWER]
            for received in (each.paths, each.bodies, each.headers):
                received.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def module_providers(stack: Stack) -> AsyncIterator[Providers]:
    async with AsyncExitStack() as running:
        found = Providers(*[await running.enter_async_context(scripted_provider()) for _ in range(2)])
        hosts = ["http://" + urlsplit(each.url).netloc for each in (found.first, found.second)]
        await add_provider(stack, "aws", hosts[0], f"{KEY_ID}:{SECRET}:{TOKEN}", "bedrock", region="eu-central-1")
        await add_provider(stack, "aws-claude", hosts[0], f"{KEY_ID}:{SECRET}", "bedrock-anthropic", region="us-east-1")
        await add_provider(stack, "aws-api-key", hosts[0], "ABSKexample", "bedrock", region="us-east-1")
        await add_provider(stack, "resource", f"{hosts[0]}/openai/v1", "azure-secret", "azure")
        await add_provider(stack, "mistral", f"{hosts[0]}/v1", "mistral-secret", "mistral")
        await add_provider(stack, "deepseek", hosts[0], "deepseek-secret", "deepseek")
        await add_provider(stack, "other", f"{hosts[1]}/v1", "other-secret", "openai-compatible")
        chains = {
            "aws": [("aws", "openai.gpt-oss-120b-1:0")],
            "aws-first": [("aws", "openai.gpt-oss-120b-1:0"), ("other", "there")],
            "aws-second": [("other", "there"), ("aws", "openai.gpt-oss-120b-1:0")],
            "aws-claude": [("aws-claude", "eu.anthropic.claude-1:0")],
            "aws-api-key": [("aws-api-key", "openai.gpt-oss-20b-1:0")],
            "azure": [("resource", "my-deployment")],
            "mistral": [("mistral", "mistral-small")],
            "mistral-second": [("other", "there"), ("mistral", "mistral-small")],
            "deepseek": [("deepseek", "deepseek-chat")],
        }
        for name, chain in chains.items():
            await add_model(stack, f"kind-{name}", chain)
        await wait_until_routed(stack, "kind-deepseek")
        yield found


@pytest.fixture
def providers(module_providers: Providers) -> Providers:
    module_providers.reset()
    return module_providers


async def post(
    stack: Stack, body: Mapping[str, Any] | bytes, path: str = "/v1/chat/completions", *, key: str | None = None
) -> int:
    headers = stack.headers if key is None else {"Authorization": f"Bearer {key}"}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stack.url}{path}", data=BytesIO(content), headers=headers) as response,
    ):
        text = await response.text()
        assert response.status == 200, text
        return response.status


def check_signature(received: ScriptedProvider, at: int, *, secret: str, key_id: str, region: str) -> None:
    """Whether AWS would take it: signed over the body that came, with everything that AWS demands."""
    headers = {name.lower(): value for name, value in received.headers[at].items()}
    signed = Signature.parse(headers["authorization"])
    assert (signed.access_key_id, signed.region, signed.service) == (key_id, region, "bedrock")
    assert {"host", "x-amz-date", "content-type"} <= set(signed.signed_headers)
    assert {name for name in headers if name.startswith("x-amz-")} <= set(signed.signed_headers)
    body_hash = hashlib.sha256(received.bodies[at]).hexdigest()
    assert headers["x-amz-content-sha256"] == body_hash
    expected = signature_of(
        secret, signed, method="POST", path=received.paths[at], headers=headers, payload_sha256=body_hash
    )
    assert signed.signature == expected


@pytest.mark.parametrize("size", [1, 5_000_000])
async def test_a_request_to_bedrock_is_signed_as_it_is_sent(stack: Stack, providers: Providers, size: int) -> None:
    body = {"model": "kind-aws", "messages": [{"role": "user", "content": "x" * size}]}
    assert await post(stack, body) == 200
    [path] = providers.first.paths
    assert path == "/openai/v1/chat/completions"
    assert json.loads(providers.first.bodies[0]) == body | {"model": "openai.gpt-oss-120b-1:0"}
    check_signature(providers.first, 0, secret=SECRET, key_id=KEY_ID, region="eu-central-1")
    assert providers.first.headers[0]["x-amz-security-token"] == TOKEN


async def test_anthropics_models_at_bedrock_are_asked_in_their_own_dialect(stack: Stack, providers: Providers) -> None:
    providers.first.pieces = [b'{"type":"message","usage":{"input_tokens":1,"output_tokens":1}}']
    body = {"model": "kind-aws-claude", "max_tokens": 5, "messages": []}
    assert await post(stack, body, "/v1/messages") == 200
    assert providers.first.paths == ["/anthropic/v1/messages"]
    assert json.loads(providers.first.bodies[0]) == body | {"model": "eu.anthropic.claude-1:0"}
    check_signature(providers.first, 0, secret=SECRET, key_id=KEY_ID, region="us-east-1")
    assert providers.first.headers[0]["anthropic-version"] == "2023-06-01"


MESSAGES_ANSWER = (
    b'{"id":"msg_1","type":"message","model":"c","content":[],"stop_reason":"end_turn",'
    b'"usage":{"input_tokens":1,"output_tokens":1}}'
)
CHAT_ANSWER = (
    b'{"id":"c","object":"chat.completion","model":"c","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"Hi"}}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)


@pytest.mark.parametrize("size", [1, 5_000_000])
async def test_a_translated_request_is_signed_as_it_is_sent(stack: Stack, providers: Providers, size: int) -> None:
    turns = [{"role": "user", "content": "x" * size}]
    providers.first.pieces = [CHAT_ANSWER]
    assert await post(stack, {"model": "kind-aws", "max_tokens": 5, "messages": turns}, "/v1/messages") == 200
    assert providers.first.paths == ["/openai/v1/chat/completions"]
    sent = {"model": "openai.gpt-oss-120b-1:0", "messages": turns, "max_completion_tokens": 5}
    assert json.loads(providers.first.bodies[0]) == sent
    check_signature(providers.first, 0, secret=SECRET, key_id=KEY_ID, region="eu-central-1")
    assert not [name for name in providers.first.headers[0] if name.lower().startswith("x-tg-")]

    providers.reset()
    providers.first.pieces = [MESSAGES_ANSWER]
    assert await post(stack, {"model": "kind-aws-claude", "max_tokens": 5, "messages": turns}) == 200
    assert providers.first.paths == ["/anthropic/v1/messages"]
    said = [{"role": "user", "content": [{"type": "text", "text": "x" * size}]}]
    sent = {"model": "eu.anthropic.claude-1:0", "max_tokens": 5, "messages": said}
    assert json.loads(providers.first.bodies[0]) == sent
    check_signature(providers.first, 0, secret=SECRET, key_id=KEY_ID, region="us-east-1")
    assert providers.first.headers[0]["anthropic-version"] == "2023-06-01"


async def test_an_attempt_elsewhere_has_nothing_of_the_signature(stack: Stack, providers: Providers) -> None:
    providers.first.status = 500
    assert await post(stack, {"model": "kind-aws-first", "messages": []}) == 200
    check_signature(providers.first, 0, secret=SECRET, key_id=KEY_ID, region="eu-central-1")
    [headers] = providers.second.headers
    assert headers["Authorization"] == "Bearer other-secret"
    assert not [name for name in headers if name.lower().startswith("x-amz")]


async def test_a_later_attempt_is_signed_over_the_body_that_was_made_for_it(stack: Stack, providers: Providers) -> None:
    providers.second.status = 500
    assert await post(stack, {"model": "kind-aws-second", "stream": False, "messages": []}) == 200
    assert json.loads(providers.second.bodies[0])["model"] == "there"
    assert json.loads(providers.first.bodies[0])["model"] == "openai.gpt-oss-120b-1:0"
    check_signature(providers.first, 0, secret=SECRET, key_id=KEY_ID, region="eu-central-1")
    assert "Bearer" not in providers.first.headers[0]["Authorization"]


async def test_what_a_client_says_to_aws_does_not_reach_it(stack: Stack, providers: Providers) -> None:
    told = {
        "x-amz-security-token": "theirs",
        "x-amz-date": "20000101T000000Z",
        "x-amzn-bedrock-service-tier": "priority",
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{stack.url}/v1/chat/completions",
            json={"model": "kind-aws", "messages": []},
            headers={**stack.headers, **told},
        ) as response,
    ):
        assert response.status == 200
    check_signature(providers.first, 0, secret=SECRET, key_id=KEY_ID, region="eu-central-1")
    assert "x-amzn-bedrock-service-tier" not in providers.first.headers[0]


async def test_envoy_shows_no_key_that_it_signs_with_and_a_new_one_costs_no_request_that_runs(
    stack: Stack, providers: Providers
) -> None:
    dumped = await config_dump(stack)
    assert KEY_ID in dumped
    assert SECRET not in dumped
    assert TOKEN not in dumped
    providers.first.answers.clear()
    running = asyncio.create_task(post(stack, {"model": "kind-aws", "messages": []}))

    async def has_arrived() -> bool:
        return bool(providers.first.bodies)

    await eventually(has_arrived)
    seal = Seal(SecretStr(stack.secret("tollgate_credential_key")), secrets.token_bytes)
    sealed = seal.seal_secret(provider_credential(ProviderName("aws")), SecretStr(f"{NEXT_KEY_ID}:{NEXT_SECRET}"))
    async with stack.database() as connection:
        await connection.execute("UPDATE catalog.providers SET credential = $1 WHERE name = 'aws'", sealed)

    async def is_changed() -> bool:
        return NEXT_KEY_ID in await config_dump(stack)

    try:
        await eventually(is_changed)
        providers.first.answers.set()
        assert await running == 200
        assert KEY_ID in providers.first.headers[0]["Authorization"]
        assert await post(stack, {"model": "kind-aws", "messages": []}) == 200
        check_signature(providers.first, -1, secret=NEXT_SECRET, key_id=NEXT_KEY_ID, region="eu-central-1")
        assert "x-amz-security-token" not in providers.first.headers[-1]
        assert NEXT_SECRET not in await config_dump(stack)
    finally:
        old = seal.seal_secret(provider_credential(ProviderName("aws")), SecretStr(f"{KEY_ID}:{SECRET}:{TOKEN}"))
        async with stack.database() as connection:
            await connection.execute("UPDATE catalog.providers SET credential = $1 WHERE name = 'aws'", old)


async def config_dump(stack: Stack) -> str:
    url = f"{stack.endpoints['envoy_admin_url']}/config_dump?include_eds"
    async with aiohttp.ClientSession() as session, session.get(url) as got:
        return await got.text()


@pytest.mark.parametrize(
    ("model", "path", "header", "value"),
    [
        ("kind-azure", "/openai/v1/chat/completions", "api-key", "azure-secret"),
        ("kind-aws-api-key", "/openai/v1/chat/completions", "authorization", "Bearer ABSKexample"),
        ("kind-deepseek", "/chat/completions", "authorization", "Bearer deepseek-secret"),
    ],
)
async def test_a_credential_is_in_the_header_of_its_kind_and_in_no_other(
    stack: Stack, providers: Providers, model: str, path: str, header: str, value: str
) -> None:
    assert await post(stack, {"model": model, "messages": []}) == 200
    assert providers.first.paths == [path]
    headers = {name.lower(): each for name, each in providers.first.headers[0].items()}
    assert headers[header] == value
    assert not ({"authorization", "api-key", "x-api-key"} - {header}) & headers.keys()


@pytest.mark.parametrize(
    "written",
    [
        '{"model":"kind-mistral","stream":true,"stream_options" :\t%s , "messages":[]}',
        '{ "stream_options":%s , "model":"kind-mistral","stream":true,"messages":[]}',
        '{"model":"kind-mistral","stream":true,"messages":[] , "stream_options":%s}',
    ],
)
@pytest.mark.parametrize("nothing", ["null", "{}", "{ }"])
async def test_stream_options_that_say_nothing_are_as_good_as_none(
    stack: Stack, providers: Providers, written: str, nothing: str
) -> None:
    providers.first.content_type = "text/event-stream"
    providers.first.pieces = [b"data: " + ANSWER + b"\n\n", b"data: [DONE]\n\n"]
    assert await post(stack, (written % nothing).encode()) == 200
    [body] = providers.first.bodies
    assert json.loads(body) == {"model": "mistral-small", "stream": True, "messages": []}
    assert await post(stack, (written.replace("mistral", "azure") % nothing).encode()) == 200
    assert json.loads(providers.first.bodies[1]) == {
        "model": "my-deployment",
        "stream": True,
        "messages": [],
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("model", ["kind-mistral", "kind-mistral-second"])
async def test_a_kind_that_refuses_stream_options_is_sent_none_of_ours(
    stack: Stack, providers: Providers, model: str
) -> None:
    providers.second.status = 500
    providers.first.content_type = "text/event-stream"
    providers.first.pieces = [b"data: " + ANSWER + b"\n\n", b"data: [DONE]\n\n"]
    assert await post(stack, {"model": model, "stream": True, "messages": []}) == 200
    [body] = providers.first.bodies
    assert json.loads(body) == {"model": "mistral-small", "stream": True, "messages": []}
    for other in providers.second.bodies:
        assert json.loads(other)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("model", ["kind-mistral", "kind-mistral-second"])
async def test_of_a_translated_request_it_is_sent_none_either_and_the_bound_that_it_knows(
    stack: Stack, providers: Providers, model: str
) -> None:
    providers.second.status = 500
    providers.first.content_type = "text/event-stream"
    event = {
        "id": "c",
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}],
    }
    providers.first.pieces = [b"data: " + json.dumps(event).encode() + b"\n\n", b"data: [DONE]\n\n"]
    turns = [{"role": "user", "content": "Hi"}]
    asked = {"model": model, "stream": True, "max_tokens": 9, "messages": turns}
    assert await post(stack, asked, "/v1/messages") == 200
    [body] = providers.first.bodies
    assert json.loads(body) == {"model": "mistral-small", "stream": True, "messages": turns, "max_tokens": 9}
    for other in providers.second.bodies:
        assert json.loads(other) == {
            "model": "there",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": turns,
            "max_completion_tokens": 9,
        }


BOUNDS = [
    ('"max_completion_tokens" : 7', '"max_tokens" : 7'),
    ('"max_tokens":7', '"max_tokens":7'),
    ('"max_tokens":null,"max_completion_tokens":7', '"max_tokens":7,"max_completion_tokens":7'),
    ('"max_tokens":5,"max_completion_tokens":7', '"max_tokens":5,"max_completion_tokens":7'),
    ('"messages":[{"max_completion_tokens":7}]', '"messages":[{"max_completion_tokens":7}]'),
]


@pytest.mark.parametrize(("asked", "sent"), BOUNDS)
async def test_a_kind_that_knows_the_older_bound_only_is_told_in_that(
    stack: Stack, providers: Providers, asked: str, sent: str
) -> None:
    assert await post(stack, b'{"model":"kind-deepseek",' + asked.encode() + b"}") == 200
    assert providers.first.bodies == [b'{"model":"deepseek-chat",' + sent.encode() + b"}"]


@pytest.mark.parametrize(
    "asked", ["", ',"max_tokens":null', ',"max_completion_tokens":null', ',"max_completion_tokens":900']
)
async def test_near_the_end_of_the_money_it_is_bounded_in_that_as_well(
    stack: Stack, providers: Providers, asked: str
) -> None:
    name = f"poor-{len(asked)}"
    key = await stack.make_key(name, balance="0.0000005")
    assert await post(stack, b'{"model":"kind-deepseek"' + asked.encode() + b"}", key=key) == 200
    [body] = providers.first.bodies
    sent = json.loads(body, object_pairs_hook=list)
    assert [field for field, _ in sent] == ["model", "max_tokens"]
    assert 0 < sent[1][1] < 500
