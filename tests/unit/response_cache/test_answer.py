"""Which answers are whole, and what is cached of them."""

import secrets
from base64 import urlsafe_b64encode

import pytest
from pydantic import SecretStr

from gateway_core.endpoints import Endpoint
from response_cache.answer import Answer, is_whole, may_be_cached
from response_cache.sealing import MalformedKeyError, Seal, UnreadableAnswerError

KEY = SecretStr(urlsafe_b64encode(b"k" * 32).decode())
DELTA = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'


@pytest.mark.parametrize(
    ("endpoint", "body", "expected"),
    [
        (Endpoint.CHAT, DELTA + b"data: [DONE]\n\n", True),
        (Endpoint.CHAT, DELTA + b"data: [DONE]\n", True),
        (Endpoint.CHAT, (DELTA + b"data: [DONE]\n\n").replace(b"\n", b"\r\n"), True),
        (Endpoint.CHAT, DELTA + b"data: [DONE]\n\n: the end\n\n", True),
        (Endpoint.CHAT, DELTA, False),
        (Endpoint.CHAT, b"", False),
        (Endpoint.CHAT, b": nothing\n\n", False),
        (Endpoint.CHAT, b'data: {"error":{}}\n\ndata: [DONE]\n\n', False),
        (Endpoint.CHAT, b'data: {"choices":[{"delta":{"content":"data: [DONE]"}}]}\n\n', False),
        (Endpoint.MESSAGES, b"event: message_start\ndata: {}\n\nevent: message_stop\ndata: {}\n\n", True),
        (Endpoint.MESSAGES, b"event: message_start\ndata: {}\n\nevent: error\ndata: {}\n\n", False),
        (Endpoint.RESPONSES, b"event: response.completed\ndata: {}\n\n", True),
        (Endpoint.RESPONSES, b"event: response.incomplete\ndata: {}\n\n", False),
        (Endpoint.STREAM_GENERATE, b'data: {"candidates":[{"finishReason":"STOP"}]}\n\n', True),
        (Endpoint.STREAM_GENERATE, b'data: {"text":"\\"finishReason\\""}\n\n', False),
        (Endpoint.EMBEDDINGS, DELTA, False),
    ],
)
def test_a_stream_is_whole_when_its_last_event_says_so(endpoint: Endpoint, body: bytes, expected: bool) -> None:
    assert is_whole(endpoint, Answer("text/event-stream; charset=utf-8", "", body)) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"choices":[]}', True),
        (b'{"error":null,"status":"completed"}', True),
        (b'{"status":"incomplete"}', False),
        (b'{"error":{"message":"no"}}', False),
        (b'{"choices":[]', False),
        (b"[]", False),
        (b"", False),
        (b"[" * 100_000, False),
    ],
)
def test_any_other_answer_is_whole_when_it_is_an_object_without_an_error(body: bytes, expected: bool) -> None:
    assert is_whole(Endpoint.CHAT, Answer("application/json", "", body)) is expected


def test_only_json_and_events_with_status_200_are_looked_at() -> None:
    assert may_be_cached("200", "Application/JSON; charset=utf-8")
    assert may_be_cached("200", "text/event-stream")
    assert not may_be_cached("200", "audio/mpeg")
    assert not may_be_cached("206", "application/json")
    assert not may_be_cached("", "")


def test_an_answer_opens_under_its_own_name_and_key_and_only_as_it_was_cached() -> None:
    seal, answer = Seal(KEY, secrets.token_bytes), Answer("application/json", "seed,tools", b'{"a":\n1}\n')
    cached = seal.close("name:0", answer)
    assert seal.open("name:0", cached) == answer
    assert b"application/json" not in cached
    other = Seal(SecretStr(urlsafe_b64encode(b"o" * 32).decode()), secrets.token_bytes)
    for who, name, value in (
        (seal, "name:1", cached),
        (other, "name:0", cached),
        (seal, "name:0", cached[:-1]),
        (seal, "name:0", b""),
        (seal, "name:0", bytes([cached[0] ^ 1]) + cached[1:]),
    ):
        with pytest.raises(UnreadableAnswerError):
            who.open(name, value)
    assert seal.name(b"a") != seal.name(b"b")
    assert seal.name(b"a") != other.name(b"a")


@pytest.mark.parametrize("key", ["", "short", "ä", "!" * 44])
def test_a_key_of_another_form_is_refused_without_being_quoted(key: str) -> None:
    with pytest.raises(MalformedKeyError) as raised:
        Seal(SecretStr(key), secrets.token_bytes)
    assert not key or key not in str(raised.value)
