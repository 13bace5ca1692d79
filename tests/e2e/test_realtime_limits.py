"""What a session costs that its client leaves in the middle, and that one which is over is so on both sides, whatever its client does."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from yarl import URL

from gateway_core.endpoints import FACTS, Endpoint
from tests.support.scripted_websocket import (
    CONTINUATION,
    END,
    PING,
    TEXT,
    ScriptedWebSocket,
    client_frame,
    event,
    frame,
    scripted_websocket,
)
from tests.support.stack import Stack, add_model, add_provider, eventually, wait_until_routed

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = FACTS[Endpoint.REALTIME].path
[METERS] = FACTS[Endpoint.REALTIME].priced_by
CREATE = event("response.create")
CREATED = frame(event("response.created", response={"usage": None}))
USED = {"total_tokens": 12, "input_tokens": 7, "output_tokens": 5}
DONE = frame(event("response.done", response={"usage": USED}))
SECOND = 64_000
"""Of sound in base64: two bytes, 24,000 times."""


def delta(of: str, text: str) -> bytes:
    return frame(event(f"response.{of}.delta", response_id="resp_1", item_id="item_1", delta=text))


def begun(audio: str) -> bytes:
    return frame(event("session.created", session={"audio": {"output": {"format": {"type": audio}}}}))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def provider(stack: Stack) -> AsyncIterator[ScriptedWebSocket]:
    async with scripted_websocket() as scripted:
        await add_provider(stack, "speech", scripted.url, "speech-secret")
        for model in ("speaker", "scarce-speaker"):
            await add_model(stack, model, [("speech", model)], endpoints=["realtime"], meters=sorted(METERS))
        async with stack.database() as database:
            await database.execute(
                "UPDATE catalog.models SET context_tokens = 1000, max_output_tokens = 100 WHERE name = 'scarce-speaker'"
            )
        await wait_until_routed(stack, "scarce-speaker", "realtime")
        yield scripted


@dataclass
class Client:
    """One that does nothing by itself: it sends what a test wants, and answers nothing."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request_id: str
    received: bytes = field(default=b"")

    def send(self, *frames: bytes) -> None:
        """All in one write."""
        self.writer.write(b"".join(frames))

    async def hear(self, text: bytes, times: int = 1) -> None:
        """Until something has come so many times."""
        while self.received.count(text) < times:
            data = await self.reader.read(65536)
            assert data, self.received[-300:]
            self.received += data

    async def hear_all(self) -> bytes:
        """Until the connection has ended."""
        try:
            while data := await self.reader.read(65536):
                self.received += data
        except ConnectionError:
            pass
        return self.received


@asynccontextmanager
async def connected(stack: Stack, model: str) -> AsyncIterator[Client]:
    gateway = URL(stack.url)
    async with asyncio.timeout(60):
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
        writer.write(f"GET {PATH}?model={model} HTTP/1.1\r\n{head}\r\n".encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert answer.startswith("HTTP/1.1 101 ")
        [request_id] = [line[14:] for line in answer.split("\r\n") if line.lower().startswith("x-request-id: ")]
        try:
            yield Client(reader, writer, request_id)
        finally:
            writer.transport.abort()


async def left_after(
    stack: Stack, provider: ScriptedWebSocket, pieces: Sequence[bytes], sent: Sequence[bytes], last: bytes
) -> tuple[str, dict[str, int]]:
    """What a client is charged that leaves when the last of some pieces has come. The provider says them once it has heard the client."""
    provider.pieces = pieces
    async with connected(stack, "speaker") as client:
        client.send(*sent)
        await client.hear(last)
        await asyncio.sleep(0.05)
    row = await stack.request_row(client.request_id)
    return row["outcome"], json.loads(row["meters"])


async def arrived(provider: ScriptedWebSocket, sent: bytes) -> bool:
    """Whether that and nothing else has."""
    return provider.received == sent


ITEM = event(
    "conversation.item.create", item={"type": "message", "content": [{"type": "input_text", "text": "a" * 4000}]}
)
HEARD = event("input_audio_buffer.append", audio="A" * (3 * SECOND))
SENT_TEXT = -(-(len(ITEM) + len(CREATE)) // 4)


@pytest.mark.parametrize(("audio", "density"), [("audio/pcm", 1), ("audio/pcmu", 6)])
async def test_sound_that_was_delivered_is_paid_for_by_its_length_and_what_was_read_for_it_too(
    stack: Stack, provider: ScriptedWebSocket, audio: str, density: int
) -> None:
    said = [
        delta("output_audio", "B" * SECOND),
        delta("output_audio_transcript", "Hel"),
        delta("output_audio", "B" * SECOND),
    ]
    end = delta("output_audio_transcript", "-the-end-")
    # The first pieces take longer than it takes a client to have sent all.
    pieces = [begun(audio), *[frame(b"", PING)] * 30, CREATED, *said, end]
    sent = [client_frame(each) for each in (ITEM, HEARD, CREATE)]
    outcome, meters = await left_after(stack, provider, pieces, sent, b"-the-end-")
    assert outcome == "estimated"
    assert meters == {
        "input": SENT_TEXT,
        "audio_input": 30 * density,
        "output": 2,
        "audio_output": 40 * density,
    }


async def test_what_was_said_before_is_read_again_and_nothing_is_paid_for_twice(
    stack: Stack, provider: ScriptedWebSocket
) -> None:
    ended = [CREATED, delta("output_audio", "B" * SECOND), delta("output_text", "Hello"), DONE]
    pieces = [begun("audio/pcm"), *[frame(b"", PING)] * 30, *ended, CREATED, delta("output_text", "-the-end-")]
    outcome, meters = await left_after(
        stack, provider, pieces, [client_frame(ITEM), client_frame(CREATE)], b"-the-end-"
    )
    assert outcome == "estimated"
    assert meters == {"input": 7, "cached_input": 12, "output": 5 + 1}


async def test_pieces_of_a_transcription_that_has_not_ended_are_paid_for_with_what_was_heard(
    stack: Stack, provider: ScriptedWebSocket
) -> None:
    kind = "conversation.item.input_audio_transcription"
    heard = [frame(event(f"{kind}.delta", item_id="item_1", delta=text)) for text in ("Good", " morning", "-the-end-")]
    pieces = [begun("audio/pcm"), *[frame(b"", PING)] * 30, *heard]
    outcome, meters = await left_after(stack, provider, pieces, [client_frame(HEARD)], b"-the-end-")
    assert (outcome, meters) == ("estimated", {"audio_input": 30, "output": 3})


async def test_a_session_that_is_over_ends_on_both_sides_though_its_client_says_nothing(
    stack: Stack, provider: ScriptedWebSocket
) -> None:
    provider.pieces = [CREATED * 5, *[delta("output_text", "more")] * 800]
    async with connected(stack, "scarce-speaker") as client:
        await client.hear(b"session_limit_reached")
        async with asyncio.timeout(3):
            await provider.is_left.wait()
            received = await client.hear_all()
    assert received.count(b"response.created") == 5
    assert received.count(b"-delta") == 0
    assert (await stack.request_row(client.request_id))["outcome"] == "estimated"


async def test_of_many_responses_asked_for_in_one_write_only_as_many_reach_the_provider_as_are_held_for(
    stack: Stack, provider: ScriptedWebSocket
) -> None:
    provider.pieces = []
    async with connected(stack, "scarce-speaker") as client:
        client.send(*[client_frame(CREATE)] * 9)
        received = await client.hear_all()
    assert provider.received == client_frame(CREATE) * 4 + END
    assert b'"code":"session_limit_reached"' in received
    assert received.endswith(b"\x88\x02\x03\xf0")


def refused(**error: str) -> bytes:
    return frame(event("error", error={"type": "invalid_request_error", "param": None, **error}))


async def test_a_response_that_nobody_begins_keeps_its_place_however_long_that_takes(
    stack: Stack, provider: ScriptedWebSocket
) -> None:
    provider.pieces = []
    async with connected(stack, "scarce-speaker") as client:
        client.send(*[client_frame(CREATE)] * 4)
        await asyncio.sleep(11)
        client.send(client_frame(CREATE))
        received = await client.hear_all()
    assert provider.received == client_frame(CREATE) * 4 + END
    assert b'"code":"session_limit_reached"' in received


async def test_a_response_that_is_refused_since_another_one_is_under_way_has_no_place(
    stack: Stack, provider: ScriptedWebSocket
) -> None:
    refusal = refused(code="conversation_already_has_active_response", message="Wait until it has ended.")
    # The first pieces take longer than it takes a client to have sent all.
    provider.pieces = [*[frame(b"", PING)] * 30, CREATED, refusal * 3]
    async with connected(stack, "scarce-speaker") as client:
        client.send(*[client_frame(CREATE)] * 4)
        await client.hear(b"Wait until", 3)
        client.send(*[client_frame(CREATE)] * 3)
        await eventually(lambda: arrived(provider, client_frame(CREATE) * 7), deadline_s=5)
        client.send(client_frame(CREATE))
        received = await client.hear_all()
    assert provider.received == client_frame(CREATE) * 7 + END
    assert b'"code":"session_limit_reached"' in received


async def test_no_other_error_is_taken_for_a_refusal(stack: Stack, provider: ScriptedWebSocket) -> None:
    word = "conversation_already_has_active_response"
    others = refused(code="invalid_value", message="No.") + refused(code="unknown_parameter", param=word, message=word)
    provider.pieces = [*[frame(b"", PING)] * 30, others * 2 + refused(code="-the-end-")]
    async with connected(stack, "scarce-speaker") as client:
        client.send(*[client_frame(CREATE)] * 4)
        await client.hear(b"-the-end-")
        client.send(client_frame(CREATE))
        received = await client.hear_all()
    assert provider.received == client_frame(CREATE) * 4 + END
    assert b'"code":"session_limit_reached"' in received


async def test_responses_that_have_ended_leave_room_for_others(stack: Stack, provider: ScriptedWebSocket) -> None:
    provider.pieces = [frame(b"", PING)] * 20 + [CREATED + DONE, CREATED + DONE, *[frame(b"", PING)] * 20]
    async with connected(stack, "speaker") as client:
        for number in range(3):
            client.send(client_frame(CREATE))
            await client.hear(b"response.done", min(number, 2))
        await eventually(lambda: arrived(provider, client_frame(CREATE) * 3), deadline_s=5)
        assert b"error" not in client.received


UNCLEAR = {
    "no JSON": [client_frame(b"response.create")],
    "a type twice": [client_frame(b'{"type": "input_audio_buffer.append", "type": "response.create"}')],
    "a type that is escaped": [client_frame(b'{"type": "response\\u002ecreate"}')],
    "two events in one": [client_frame(CREATE + CREATE)],
    "a frame that is not masked": [frame(CREATE)],
    "a continuation of nothing": [client_frame(CREATE, CONTINUATION)],
}


@pytest.mark.parametrize("sent", UNCLEAR.values(), ids=UNCLEAR.keys())
async def test_what_two_could_read_in_two_ways_ends_the_session_and_reaches_no_provider(
    stack: Stack, provider: ScriptedWebSocket, sent: list[bytes]
) -> None:
    provider.pieces = []
    async with connected(stack, "speaker") as client:
        client.send(client_frame(ITEM), *sent, client_frame(CREATE))
        received = await client.hear_all()
    assert provider.received == client_frame(ITEM) + END
    assert b'"code":"invalid_event"' in received


async def test_an_event_arrives_as_it_was_however_it_is_cut(stack: Stack, provider: ScriptedWebSocket) -> None:
    provider.pieces = []
    parts = [
        client_frame(HEARD[:1001], TEXT, fin=False),
        client_frame(b"ping", PING),
        client_frame(HEARD[1001:2002], CONTINUATION, fin=False, mask=b"\1\2\3\4"),
        client_frame(HEARD[2002:], CONTINUATION),
    ]
    sent = b"".join(parts) + client_frame(b"between", PING) + client_frame(CREATE)
    async with connected(stack, "speaker") as client:
        for at in range(1100):
            client.writer.write(sent[at : at + 1])
            await client.writer.drain()
        client.send(sent[1100:5000])
        await asyncio.sleep(0.05)
        client.send(sent[5000:])
        await eventually(lambda: arrived(provider, sent), deadline_s=5)
