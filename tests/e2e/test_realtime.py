"""Sessions over a WebSocket, through the real Envoy: what is charged, what ends them, and what a provider is never told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from yarl import URL

from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.mode import Mode
from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.scripted_websocket import (
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    ScriptedWebSocket,
    client_frame,
    event,
    frame,
    scripted_websocket,
)
from tests.support.stack import Stack, add_model, add_provider, provider_credentials, wait_until_routed

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEADER = "x-request-id"
PATH = FACTS[Endpoint.REALTIME].path
[METERS] = FACTS[Endpoint.REALTIME].priced_by
KEY_PROTOCOL = "openai-insecure-api-key."
USAGE = {
    "total_tokens": 30,
    "input_tokens": 20,
    "output_tokens": 10,
    "input_token_details": {
        "text_tokens": 8,
        "audio_tokens": 12,
        "cached_tokens": 10,
        "cached_tokens_details": {"text_tokens": 4, "audio_tokens": 6},
    },
    "output_token_details": {"text_tokens": 3, "audio_tokens": 7},
}
COUNTED = {
    "input": 4,
    "cached_input": 4,
    "audio_input": 6,
    "cached_audio_input": 6,
    "output": 3,
    "audio_output": 7,
}
DONE = event("response.done", response={"id": "resp_1", "output": [], "usage": USAGE})
BYE = frame(b"\x03\xe8", CLOSE)


@dataclass
class Upstreams:
    """Providers in the words of a test: one refuses every upgrade, the other one sends what a test wants."""

    refusing: ScriptedProvider
    scripted: ScriptedWebSocket


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def upstreams(stack: Stack) -> AsyncIterator[Upstreams]:
    async with scripted_provider() as refusing, scripted_websocket() as scripted:
        await add_provider(stack, "talk", f"{stack.simulator_url}/v1", "talk-secret")
        await add_provider(stack, "no-talk", refusing.url, "no-talk-secret")
        await add_provider(stack, "frames", scripted.url, "frames-secret")
        for model, chain in (
            ("talker", [("talk", "talker-1")]),
            ("talker-twice", [("no-talk", "first"), ("talk", "a-much-longer-name")]),
            ("scarce-talker", [("talk", "scarce-1")]),
            ("framed", [("frames", "framed-1")]),
            ("scarce-framed", [("frames", "framed-2")]),
        ):
            await add_model(stack, model, chain, endpoints=["realtime"], meters=sorted(METERS))
        async with stack.database() as database:
            await database.execute(
                "UPDATE catalog.models SET context_tokens = 1000, max_output_tokens = 100 WHERE name LIKE 'scarce-%'"
            )
        await wait_until_routed(stack, "scarce-framed", "realtime")
        yield Upstreams(refusing, scripted)


def request_id_of(connection: AsyncRealtimeConnection) -> str:
    response = connection._connection.response
    assert response is not None
    return response.headers[HEADER]


async def say(connection: AsyncRealtimeConnection, text: str) -> Any:
    """A text, and the usage of the response to it."""
    await connection.conversation.item.create(
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    )
    await connection.response.create()
    async with asyncio.timeout(5):
        async for received in connection:
            if received.type == "response.done":
                return received.response.usage
            assert received.type != "error", received
    raise AssertionError("the session ended")


@asynccontextmanager
async def talking(
    session: aiohttp.ClientSession, model: str, **options: Any
) -> AsyncIterator[tuple[aiohttp.ClientWebSocketResponse, str]]:
    async with asyncio.timeout(15), session.ws_connect(f"{PATH}?model={model}", max_msg_size=0, **options) as socket:
        yield socket, socket._response.headers[HEADER]


async def heard(socket: aiohttp.ClientWebSocketResponse) -> list[Any]:
    """Every event until the end."""
    return [json.loads(message.data) async for message in socket]


async def charged(stack: Stack, request_id: str) -> tuple[str, str, dict[str, int]]:
    row = await stack.request_row(request_id)
    meters = json.loads(row["meters"] or "{}")
    assert row["price_nano_usd"] == sum(meters.values()) <= row["hold_nano_usd"]
    return row["outcome"], row["usage_source"], meters


async def test_two_responses_of_a_session_are_one_row_with_their_sum(
    stack: Stack, client: openai.AsyncOpenAI, upstreams: Upstreams
) -> None:
    del upstreams
    await stack.forget_provider_requests()
    async with client.realtime.connect(model="talker") as connection:
        assert (await connection.recv()).type == "session.created"
        request_id = request_id_of(connection)
        first = await say(connection, "Hi [[sim output_tokens=30]]")
        second = await say(connection, "And then? [[sim output_tokens=12 cached_tokens=5]]")
    assert (first.output_tokens, second.output_tokens) == (30, 12)
    read = first.input_tokens + second.input_tokens
    assert await charged(stack, request_id) == (
        "settled",
        "provider",
        {"input": read - 5, "cached_input": 5, "output": 42},
    )
    async with stack.database() as database:
        held = await database.fetchval("SELECT state FROM billing.holds WHERE request_id = $1", request_id)
        failed = await database.fetchval("SELECT count(*) FROM billing.attempts WHERE request_id = $1", request_id)
    assert held == "settled", "a session has a hold of its own"
    assert failed == 0, "it is not held against the provider that it has hung up at the end"
    [received] = await stack.provider_requests()
    assert received["path"] == f"{PATH}?model=talker-1"
    assert received["headers"]["authorization"] == "Bearer talk-secret"
    assert stack.endpoints["api_key"] not in json.dumps(received)


async def test_a_client_that_breaks_off_is_charged_what_was_counted_and_what_had_come_of_what_was_not(
    stack: Stack, client: openai.AsyncOpenAI, upstreams: Upstreams
) -> None:
    del upstreams
    async with client.realtime.connect(model="talker") as connection:
        request_id = request_id_of(connection)
        first = await say(connection, "Hi [[sim output_tokens=30]]")
        await connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "More [[sim output_tokens=500 token_delay_ms=20]]"}],
            }
        )
        await connection.response.create()
        pieces = 0
        while pieces < 3:
            pieces += (await connection.recv()).type == "response.output_text.delta"
        transport = connection._connection.transport
        transport.abort()
    outcome, source, meters = await charged(stack, request_id)
    assert (outcome, source) == ("estimated", "estimated")
    # A token for 4 bytes of what was sent then.
    assert first.input_tokens + 40 < meters["input"] < first.input_tokens + 100
    assert meters["cached_input"] == first.total_tokens
    assert 30 + 3 <= meters["output"] < 30 + 100


async def test_a_session_without_a_response_costs_nothing(
    stack: Stack, session: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    del upstreams
    async with talking(session, "talker") as (socket, request_id):
        assert (await socket.receive_json())["type"] == "session.created"
    row = await stack.request_row(request_id)
    assert (row["outcome"], row["price_nano_usd"]) == ("released", 0)


@pytest.mark.parametrize("status", [400, 401, 404, 426, 429, 500])
async def test_a_provider_that_refuses_the_upgrade_is_passed_over(
    stack: Stack, session: aiohttp.ClientSession, upstreams: Upstreams, status: int
) -> None:
    upstreams.refusing.status, upstreams.refusing.content_type = status, "application/json"
    upstreams.refusing.headers.clear()
    await stack.forget_provider_requests()
    async with talking(session, "talker-twice") as (socket, request_id):
        assert (await socket.receive_json())["session"]["model"] == "a-much-longer-name"
        await socket.send_json({"type": "response.create"})
        while (await socket.receive_json())["type"] != "response.done":
            pass
    assert (await stack.request_row(request_id))["provider"] == "talk"
    [refused] = upstreams.refusing.headers
    assert refused["Authorization"] == "Bearer no-talk-secret"
    [received] = await stack.provider_requests()
    assert received["path"] == f"{PATH}?model=a-much-longer-name"
    assert received["headers"]["authorization"] == "Bearer talk-secret"


async def test_where_the_last_provider_refuses_nothing_is_charged(
    stack: Stack, session: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    await add_model(stack, "refused-talker", [("no-talk", "x")], endpoints=["realtime"], meters=sorted(METERS))
    await wait_until_routed(stack, "refused-talker", "realtime")
    for status in (200, 404):
        upstreams.refusing.status = status
        upstreams.refusing.pieces = [b'{"usage": {"input_tokens": 5}}']
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            async with talking(session, "refused-talker"):
                pass
        assert refusal.value.headers is not None
        row = await stack.request_row(refusal.value.headers[HEADER])
        assert (row["outcome"], row["price_nano_usd"]) == ("released", 0)


FORMS = {
    "whole": [frame(DONE)],
    "in a frame with a long length": [frame(DONE, long=True)],
    "in fragments with a ping between": [
        frame(DONE[:7], TEXT, fin=False)
        + frame(b"ping", PING)
        + frame(b"", CONTINUATION, fin=False)
        + frame(DONE[7:200], CONTINUATION, fin=False),
        frame(DONE[200:], CONTINUATION),
    ],
    "byte by byte": [bytes([each]) for each in frame(DONE)],
    "behind a huge event": [
        frame(event("conversation.item.retrieved", item={"audio": "A" * 3_000_000, "usage": {"input_tokens": 7}})),
        frame(DONE),
    ],
    "with its type at the end": [frame(json.dumps({"response": {"usage": USAGE}, "type": "response.done"}).encode())],
}


@pytest.mark.parametrize("pieces", FORMS.values(), ids=FORMS.keys())
async def test_an_event_is_found_however_it_is_framed_and_reaches_the_client_as_it_was(
    stack: Stack, session: aiohttp.ClientSession, upstreams: Upstreams, pieces: list[bytes]
) -> None:
    upstreams.scripted.pieces = [*pieces, BYE]
    async with talking(session, "framed", compress=15) as (socket, request_id):
        events = await heard(socket)
    assert events[-1]["response"]["usage"] == USAGE
    assert await charged(stack, request_id) == ("settled", "provider", COUNTED)
    head = upstreams.scripted.heads[-1].lower()
    assert "sec-websocket-extensions" not in head
    assert head.startswith("get /v1/realtime?model=framed-1 http/1.1\r\n")


async def test_usage_in_what_somebody_says_is_not_taken_for_usage(
    stack: Stack, session: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    said = json.dumps({"type": "response.done", "response": {"usage": {"input_tokens": 999_999}}})
    upstreams.scripted.pieces = [
        frame(event("response.output_text.done", text=said)),
        frame(event("conversation.item.added", item={"content": [{"text": said}]}, usage={"input_tokens": 5})),
        frame(event("response.created", response={"usage": None, "metadata": {"usage": said}})),
        frame(
            event("response.done", response={"output": [{"content": [{"text": said}], "usage": USAGE}], "usage": USAGE})
        ),
        BYE,
    ]
    async with talking(session, "framed") as (socket, request_id):
        assert len(await heard(socket)) == 4
    assert await charged(stack, request_id) == ("settled", "provider", COUNTED)


async def test_transcriptions_are_charged_beside_the_responses(
    stack: Stack, session: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    usage = {
        "type": "tokens",
        "total_tokens": 22,
        "input_tokens": 13,
        "input_token_details": {"text_tokens": 1, "audio_tokens": 12},
        "output_tokens": 9,
    }
    kind = "conversation.item.input_audio_transcription.completed"
    upstreams.scripted.pieces = [frame(event(kind, transcript="Hi", usage=usage)), frame(DONE), BYE]
    async with talking(session, "framed") as (socket, request_id):
        await heard(socket)
    counted = {**COUNTED, "input": 4 + 1, "audio_input": 6 + 12, "output": 3 + 9}
    assert await charged(stack, request_id) == ("settled", "provider", counted)


async def test_a_session_ends_when_what_was_held_does_not_cover_another_response(
    stack: Stack, session: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    del upstreams
    async with talking(session, "scarce-talker") as (socket, request_id):
        await socket.receive_json()
        events: list[Any] = []
        for _ in range(200):
            await socket.send_json({"type": "response.create"})
            while not events or events[-1]["type"] not in {"response.done", "error"}:
                events.append(await socket.receive_json())
            if events[-1]["type"] == "error":
                break
            # What ends it comes with the response, not in place of the next one.
            await asyncio.sleep(0.01)
            events.append({"type": "turn"})
        else:
            pytest.fail("it went on")
        assert events[-1]["error"]["code"] == "session_limit_reached"
        closed = await socket.receive()
        assert (closed.type, socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1008)
    row = await stack.request_row(request_id)
    assert row["outcome"] == "settled"
    assert row["hold_nano_usd"] == 4 * (1000 + 100)
    assert 3 * 1100 < row["price_nano_usd"] <= 4 * 1100


async def test_responses_that_come_at_once_are_each_reckoned_with(
    stack: Stack, session: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    created = frame(event("response.created", response={}))
    upstreams.scripted.pieces = [created * 5 + frame(DONE) * 5]
    async with talking(session, "scarce-framed") as (socket, request_id):
        events = await heard(socket)
        assert [each["type"] for each in events] == ["response.created"] * 5 + ["error"]
    # The provider was told to stop, and what it counted meanwhile is charged.
    await asyncio.wait_for(upstreams.scripted.is_left.wait(), 5)
    assert upstreams.scripted.received.startswith(bytes([0x88, 0x82, 0, 0, 0, 0, 3, 0xE8]))
    outcome, _, meters = await charged(stack, request_id)
    assert (outcome, meters) == ("settled", {meter: 5 * count for meter, count in COUNTED.items()})


UNREADABLE = {
    "compressed": frame(DONE, bits=0x40),
    "masked": b"\x81\x85\0\0\0\0hello",
    "an opcode that is none": frame(b"hello", 3),
    "a continuation of nothing": frame(b"hello", CONTINUATION),
    "a fragmented ping": frame(b"x", PING, fin=False),
    "no JSON": frame(b"response.done"),
    "too long to be read": frame(b'{"response": "' + b"a" * 2_000_000 + b'", "type": "response.done"}'),
    "usage that is none": frame(event("response.done", response={"usage": {"input_tokens": [1]}})),
}


@pytest.mark.parametrize("sent", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_what_cannot_be_counted_ends_the_session(
    stack: Stack, session: aiohttp.ClientSession, upstreams: Upstreams, sent: bytes
) -> None:
    upstreams.scripted.pieces = [frame(DONE), sent, frame(event("later"))]
    async with talking(session, "framed") as (socket, request_id):
        received = [message async for message in socket]
    assert json.loads(received[0].data)["type"] == "response.done"
    assert not any("later" in str(message.data) for message in received)
    assert await charged(stack, request_id) == ("settled", "provider", COUNTED)


async def test_a_key_in_a_subprotocol_admits_and_goes_no_further(stack: Stack, upstreams: Upstreams) -> None:
    key = await stack.make_key("browser-of-sessions", balance="1")
    upstreams.scripted.pieces = [frame(DONE), BYE]
    protocols = ["realtime", KEY_PROTOCOL + key, "openai-organization.org-ours", "openai-beta.realtime-v1"]
    async with aiohttp.ClientSession(stack.url) as browser:
        async with talking(browser, "framed", protocols=protocols) as (socket, request_id):
            await heard(socket)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            async with talking(browser, "framed", protocols=["realtime", KEY_PROTOCOL + "nonsense"]):
                pass
    assert refusal.value.status == 401
    row = await stack.request_row(request_id)
    assert (row["org_id"], row["outcome"]) == ("org_browser-of-sessions", "settled")
    head = upstreams.scripted.heads[-1]
    assert "\r\nsec-websocket-protocol: realtime, openai-beta.realtime-v1\r\n" in head.lower()
    assert key not in head
    for text in (stack.log("envoy"), (stack.data_dir / "spool" / "access.jsonl").read_text()):
        assert key not in text
        assert KEY_PROTOCOL not in text


async def test_each_organisation_pays_for_its_own_session(
    stack: Stack, client: openai.AsyncOpenAI, upstreams: Upstreams
) -> None:
    del upstreams
    key = await stack.make_key("second-talker", balance="1")
    other = client.with_options(api_key=key)
    async with client.realtime.connect(model="talker") as ours, other.realtime.connect(model="talker") as theirs:
        ids = request_id_of(ours), request_id_of(theirs)
        await say(ours, "Hi [[sim output_tokens=10]]")
        await say(theirs, "Hi [[sim output_tokens=20]]")
    rows = [await stack.request_row(request_id) for request_id in ids]
    assert [json.loads(row["meters"])["output"] for row in rows] == [10, 20]
    assert rows[1]["org_id"] == "org_second-talker" != rows[0]["org_id"]


async def test_a_session_may_have_fewer_responses_where_there_is_less_money_and_none_without(
    stack: Stack, upstreams: Upstreams
) -> None:
    upstreams.scripted.pieces = [frame(DONE), BYE]
    for name, balance, hold in (("poor-talker", "0.000001500", 1500), ("poorer-talker", "0.000001099", None)):
        key = await stack.make_key(name, balance=balance)
        async with aiohttp.ClientSession(stack.url, headers={"Authorization": f"Bearer {key}"}) as session:
            if hold is None:
                with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                    async with talking(session, "scarce-framed"):
                        pass
                assert refusal.value.status == 402
                continue
            async with talking(session, "scarce-framed") as (socket, request_id):
                await heard(socket)
            row = await stack.request_row(request_id)
            assert (row["hold_nano_usd"], row["price_nano_usd"]) == (hold, 30)


async def test_a_test_key_talks_to_the_simulator_in_play_money(stack: Stack, upstreams: Upstreams) -> None:
    upstreams.scripted.heads.clear()
    key = await stack.make_key("talk-tester", balance="1", mode=Mode.TEST)
    async with (
        aiohttp.ClientSession(stack.url, headers={"Authorization": f"Bearer {key}"}) as session,
        talking(session, "framed") as (socket, request_id),
    ):
        assert (await socket.receive_json())["session"]["model"] == "framed"
        await socket.send_json({"type": "response.create"})
        while (await socket.receive_json())["type"] != "response.done":
            pass
    row = await stack.request_row(request_id)
    assert (row["mode"], row["outcome"]) == ("test", "settled")
    assert upstreams.scripted.heads == []


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, "missing_model"),
        ("?model=", 400, "invalid_model"),
        ("?model=a%20b", 400, "invalid_model"),
        ("?model=talker&model=framed", 400, "feature_not_offered"),
        ("?model=talker&call_id=rtc_1", 400, "feature_not_offered"),
        ("?model=no-such-talker", 404, "model_not_found"),
        ("?model=gpt-4o-mini", 400, "endpoint_not_supported"),
    ],
)
async def test_a_handshake_that_asks_for_something_else_is_refused(
    session: aiohttp.ClientSession, upstreams: Upstreams, query: str, status: int, code: str
) -> None:
    del upstreams
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    async with session.get(PATH + query, headers=headers) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (status, code)


async def test_only_this_path_is_a_websocket_and_it_is_nothing_else(
    session: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    del upstreams
    async with session.get(f"{PATH}?model=talker") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (426, "upgrade_required")
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    for path in ("/v1/models", "/v1/nothing"):
        async with session.get(path, headers=upgrade) as response:
            assert response.status in {400, 404}
    async with session.post("/v1/chat/completions", json={"model": "gpt-4o-mini"}, headers=upgrade) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "bad_request")


async def test_a_model_whose_name_is_escaped_in_the_query_is_found(
    stack: Stack, session: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    upstreams.scripted.pieces = [frame(DONE), BYE]
    async with asyncio.timeout(15), session.get(f"{PATH}?model=framed") as plain:
        assert plain.status == 426
    async with talking(session, "%66ramed") as (socket, request_id):
        await heard(socket)
    assert (await stack.request_row(request_id))["model"] == "framed"


async def test_no_credential_of_a_provider_is_told_to_a_client(
    stack: Stack, session: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    upstreams.scripted.pieces = [frame(DONE), BYE]
    upstreams.scripted.extensions = "permessage-deflate"
    async with talking(session, "framed") as (socket, _):
        events = await heard(socket)
    upstreams.scripted.extensions = None
    told = json.dumps(events) + str(socket._response.headers)
    assert not any(secret in told for secret in (await provider_credentials(stack)).values())


async def test_what_a_client_says_before_it_is_let_in_reaches_the_provider_that_answers_and_no_other(
    stack: Stack, upstreams: Upstreams
) -> None:
    await add_model(
        stack, "early-framed", [("no-talk", "x"), ("frames", "framed-3")], endpoints=["realtime"], meters=sorted(METERS)
    )
    await wait_until_routed(stack, "early-framed", "realtime")
    upstreams.refusing.status, upstreams.refusing.pieces = 503, [b"{}"]
    upstreams.refusing.bodies.clear()
    upstreams.scripted.pieces = [frame(DONE)]
    said = client_frame(event("session.update", session={}))
    gateway = URL(stack.url)
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
    handshake = {
        "Host": "gateway",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        **stack.headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in handshake.items())
    writer.write(f"GET {PATH}?model=early-framed HTTP/1.1\r\n{head}\r\n".encode() + said)
    async with asyncio.timeout(10):
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(len(frame(DONE))) == frame(DONE)
        writer.close()
        await upstreams.scripted.is_left.wait()
    assert upstreams.scripted.received == said
    assert upstreams.refusing.bodies == [b""]
