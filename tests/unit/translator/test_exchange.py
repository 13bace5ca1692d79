"""One attempt as Envoy tells of it, without Envoy."""

import json

import pytest

from gateway_core.contract import Header
from translator.exchange import Announce, Exchange, GiveBack, GoOn, Outcome, OutOfOrderError, Refuse, SendOn

HEADERS = {Header.TRANSLATE: "openai/anthropic", ":path": "/v1/messages"}
ASKED = {"model": "m", "messages": [{"role": "user", "content": "x"}], "seed": 1}
ANSWER = {"id": "msg_1", "model": "c", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}
WHOLE = {":status": "200", "content-type": "application/json"}
STREAMED = {":status": "200", "content-type": "text/event-stream; charset=utf-8"}


def begun(body: object = ASKED) -> Exchange:
    exchange = Exchange(now_s=1, new_call_id=lambda: "call_1")
    assert exchange.request_headers(HEADERS) == GoOn()
    assert isinstance(exchange.request_body(json.dumps(body).encode()), SendOn)
    return exchange


def test_a_whole_answer_is_given_back_in_the_clients_dialect_and_tells_what_was_left_out() -> None:
    exchange = begun()
    assert exchange.response_headers(WHOLE) == Announce(streamed=False, dropped="seed")
    step = exchange.response_body(json.dumps(ANSWER).encode(), is_last=True)
    assert isinstance(step, GiveBack)
    assert json.loads(step.body)["choices"][0]["message"]["content"] == "Hi"
    assert exchange.outcome is Outcome.TRANSLATED


def test_an_answer_that_nobody_can_read_is_an_error_that_is_worth_another_provider() -> None:
    exchange = begun()
    exchange.response_headers(WHOLE)
    step = exchange.response_body(b"<html>", is_last=True)
    assert isinstance(step, Refuse)
    assert (step.status, step.is_untranslatable) == (502, False)
    assert exchange.outcome is Outcome.UNREADABLE


def test_an_error_keeps_its_status_and_comes_in_the_clients_dialect() -> None:
    exchange = begun()
    assert exchange.response_headers({":status": "529"}) == Announce(streamed=False, dropped="seed")
    step = exchange.response_body(
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', is_last=True
    )
    assert isinstance(step, GiveBack)
    assert json.loads(step.body)["error"] == {
        "message": "Overloaded",
        "type": "server_error",
        "param": None,
        "code": "overloaded_error",
    }
    assert exchange.outcome is Outcome.REFUSED


def test_what_envoy_says_itself_is_left_as_it_is() -> None:
    exchange = begun()
    assert exchange.response_headers({":status": "503", Header.OWN_REPLY: "true"}) == GoOn()
    assert exchange.response_body(b"{}", is_last=True) == GoOn()
    assert exchange.outcome is Outcome.REFUSED


def test_a_stream_that_breaks_off_ends_with_an_error() -> None:
    exchange = begun()
    assert exchange.response_headers(STREAMED) == Announce(streamed=True, dropped="seed")
    start = b'data: {"type":"message_start","message":{"id":"1","model":"c"}}\n\n'
    assert isinstance(exchange.response_body(start, is_last=False), GiveBack)
    last = exchange.response_body(b"", is_last=True)
    assert isinstance(last, GiveBack)
    assert b"provider_answer_unreadable" in last.body


def test_a_piece_of_which_the_client_has_to_hear_nothing_keeps_the_stream_alive() -> None:
    exchange = begun()
    exchange.response_headers(STREAMED)
    for piece in (b'event: ping\ndata: {"type":"ping"}\n\n', b"event: messa"):
        assert exchange.response_body(piece, is_last=False) == GiveBack(b":\n\n")


def test_googles_clients_are_sent_no_comments() -> None:
    exchange = Exchange(now_s=1, new_call_id=lambda: "call_1")
    exchange.request_headers({Header.TRANSLATE: "gemini/anthropic", ":path": "/v1/messages"})
    exchange.request_body(b'{"model": "m", "contents": [{"role": "user", "parts": [{"text": "x"}]}]}')
    exchange.response_headers(STREAMED)
    ping = b'event: ping\ndata: {"type":"ping"}\n\n'
    assert exchange.response_body(ping, is_last=False) == GiveBack(b"")


def test_what_cannot_be_said_is_refused_before_anybody_is_asked() -> None:
    exchange = Exchange(now_s=1, new_call_id=lambda: "call_1")
    exchange.request_headers(HEADERS)
    step = exchange.request_body(json.dumps(ASKED | {"n": 2}).encode())
    assert isinstance(step, Refuse)
    assert (step.status, step.is_untranslatable) == (400, True)
    assert json.loads(step.body)["error"]["param"] == "n"
    assert exchange.outcome is Outcome.UNTRANSLATABLE


def test_a_clients_own_field_names_are_told_only_where_they_are_plain() -> None:
    exchange = begun({**ASKED, "a\r\nset-cookie": "x", "größe": 1, "b c": 2, "plain": 3})
    assert exchange.response_headers(WHOLE) == Announce(streamed=False, dropped="plain, seed")


def test_a_field_that_a_provider_of_chat_refuses_is_left_out_and_named_in_the_clients_words() -> None:
    exchange = Exchange(now_s=1, new_call_id=lambda: "call_1")
    told = {Header.TRANSLATE: "anthropic/openai", ":path": "/v1/chat/completions", Header.CHAT_FIELDS: "user="}
    exchange.request_headers(told)
    asked = {"model": "m", "messages": [], "max_tokens": 7, "metadata": {"user_id": "u"}}
    step = exchange.request_body(json.dumps(asked).encode())
    assert isinstance(step, SendOn)
    assert json.loads(step.body) == {"model": "m", "messages": [], "max_completion_tokens": 7}
    assert exchange.response_headers(WHOLE) == Announce(streamed=False, dropped="metadata.user_id")


def test_a_field_that_a_provider_of_chat_has_under_another_name_is_sent_under_that() -> None:
    exchange = Exchange(now_s=1, new_call_id=lambda: "call_1")
    told = {Header.TRANSLATE: "gemini/openai", ":path": "/v1/chat/completions?generate=m"}
    exchange.request_headers({**told, Header.CHAT_FIELDS: "seed=random_seed"})
    step = exchange.request_body(b'{"contents": [], "generationConfig": {"seed": 3}}')
    assert isinstance(step, SendOn)
    assert json.loads(step.body) == {"model": "m", "messages": [], "random_seed": 3}


@pytest.mark.parametrize(
    ("told", "sent"),
    [
        ({}, {"max_completion_tokens": 7, "stream_options": {"include_usage": True}}),
        (
            {Header.CHAT_FIELDS: "max_completion_tokens=max_tokens"},
            {"max_tokens": 7, "stream_options": {"include_usage": True}},
        ),
        ({Header.CHAT_FIELDS: "stream_options="}, {"max_completion_tokens": 7}),
        ({Header.CHAT_FIELDS: "max_completion_tokens=max_tokens,stream_options=,user="}, {"max_tokens": 7}),
    ],
)
def test_a_provider_of_chat_is_sent_what_it_takes(told: dict[str, str], sent: dict[str, object]) -> None:
    exchange = Exchange(now_s=1, new_call_id=lambda: "call_1")
    exchange.request_headers({Header.TRANSLATE: "anthropic/openai", ":path": "/v1/chat/completions", **told})
    step = exchange.request_body(json.dumps({"model": "m", "messages": [], "max_tokens": 7, "stream": True}).encode())
    assert isinstance(step, SendOn)
    assert json.loads(step.body) == {"model": "m", "messages": [], "stream": True, **sent}


@pytest.mark.parametrize("pair", ["", "openai", "openai/", "openai/responses", "gemini/responses", "x/y"])
def test_only_dialects_that_somebody_here_speaks_are_a_pair(pair: str) -> None:
    exchange = Exchange(now_s=1, new_call_id=lambda: "call_1")
    with pytest.raises(OutOfOrderError):
        exchange.request_headers({Header.TRANSLATE: pair})


def test_what_comes_out_of_order_is_a_fault() -> None:
    exchange = Exchange(now_s=1, new_call_id=lambda: "call_1")
    with pytest.raises(OutOfOrderError):
        exchange.request_body(b"{}")
    with pytest.raises(OutOfOrderError):
        exchange.response_headers(WHOLE)


@pytest.mark.parametrize(
    ("url", "is_sent"),
    [
        ("https://example.com/a.png", True),
        ("https://notgoogleapis.com/a.png", True),
        ("https://generativelanguage.googleapis.com/v1beta/files/abc", False),
        ("https://GenerativeLanguage.GoogleAPIs.com./v1beta/files/abc", False),
        ("https://storage.googleapis.com/bucket/a.png", False),
        ("https://user@googleapis.com/a.png", False),
        ("gs://bucket/a.png", False),
        ("http://example.com/a.png", False),
        ("files/abc", False),
    ],
)
def test_google_is_shown_nothing_that_it_would_read_with_our_credential(url: str, is_sent: bool) -> None:
    exchange = Exchange(now_s=1, new_call_id=lambda: "call_1")
    exchange.request_headers({Header.TRANSLATE: "openai/gemini", ":path": "/v1beta/models/m:generateContent"})
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    step = exchange.request_body(json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}).encode())
    assert isinstance(step, SendOn) == is_sent
    assert is_sent or (isinstance(step, Refuse) and step.is_untranslatable)
