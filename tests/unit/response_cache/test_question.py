"""Which requests are the same question, and of which the answer is worth keeping."""

from dataclasses import replace
from typing import Any

import pytest

from gateway_core.contract import CacheWish
from gateway_core.endpoints import Endpoint
from gateway_core.ids import OrgId
from gateway_core.mode import Mode
from response_cache.asked import Asked, Fields, UnreadableRequestError, read_asked
from response_cache.question import question_of

ASKED = Asked(
    *(OrgId("org_1"), Mode.LIVE, Endpoint.CHAT, "m openai=m", CacheWish.CLIENT, None),
    is_cut_down=False,
    looks_elsewhere=False,
)
BY_ROUTE = replace(ASKED, wish=CacheWish.ROUTE)
BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"temperature":0}'


def text(asked: Asked = ASKED, body: bytes = BODY) -> bytes:
    found = question_of(asked, body)
    assert found is not None
    return found.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"temperature" : 0, "messages":[{"content":"Hi","role":"user"}],"model":"m"}',
        BODY.replace(b'"m"', b'"alias"'),
        BODY[:-1] + b',"user":"somebody","metadata":{"a":"b"},"prompt_cache_key":"k","safety_identifier":"s"}',
        BODY[:-1] + b',"stream":false}',
        BODY[:-1] + b',"stream":null}',
        BODY.replace(b"Hi", b"\\u0048i"),
    ],
    ids=["order", "alias", "who", "no stream", "null", "escapes"],
)
def test_bodies_that_say_the_same_are_one_question(body: bytes) -> None:
    assert text(body=body) == text()


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace(b"Hi", b"hi"),
        BODY[:-1] + b',"stream":true}',
        BODY[:-1] + b',"seed":1}',
        BODY.replace(b'"temperature":0', b'"temperature":1'),
        BODY.replace(b'"Hi"', b'"Hi","user":"x"'),
    ],
    ids=["words", "stream", "another field", "temperature", "a user inside"],
)
def test_bodies_that_say_something_else_are_another_question(body: bytes) -> None:
    assert text(body=body) != text()


@pytest.mark.parametrize(
    "other",
    [
        {"org_id": OrgId("org_2")},
        {"mode": Mode.TEST},
        {"endpoint": Endpoint.COMPLETIONS},
        {"served_by": "m azure=m"},
        {"org_id": OrgId('org_1","live')},
    ],
    ids=["organisation", "mode", "endpoint", "provider", "a name that looks like two"],
)
def test_another_organisation_mode_endpoint_or_provider_is_another_question(other: dict[str, Any]) -> None:
    assert text(replace(ASKED, **other)) != text()


@pytest.mark.parametrize("name", ["anthropic-beta", "anthropic-version", "openai-beta", "groq-model-version"])
def test_headers_that_ask_for_another_answer_are_part_of_the_question(name: str) -> None:
    with_one, with_another = (replace(ASKED, headers=((name, value),)) for value in ("1", "2"))
    assert len({text(), text(with_one), text(with_another)}) == 3


def test_of_the_headers_those_are_read_that_ask_for_another_answer_in_any_order() -> None:
    told = [
        ("openai-beta", "b"),
        ("content-type", "application/json"),
        ("anthropic-beta", "2"),
        ("anthropic-beta", "1"),
    ]
    assert read_asked(REQUEST, {"org_id": "org_1"}, told).headers == (
        ("anthropic-beta", "2"),
        ("anthropic-beta", "1"),
        ("openai-beta", "b"),
    )


def test_a_response_says_again_who_asked_so_that_is_part_of_the_question() -> None:
    response = replace(ASKED, endpoint=Endpoint.RESPONSES)
    assert text(response, b'{"input":"Hi","user":"a"}') != text(response, b'{"input":"Hi","user":"b"}')


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"content":"a","content":"b"}]}',
        b'{"seed":1,"seed":2}',
        b"[]",
        b"{",
        b'{"x":NaN}',
        b'{"x":1e999}',
        b"[" * 100_000,
        b'{"x":' + b"9" * 5000 + b"}",
        b"\xff",
    ],
    ids=["twice inside", "twice", "a list", "half", "no number", "beyond bounds", "deep", "long number", "no text"],
)
def test_what_two_readers_could_read_in_two_ways_is_no_question(body: bytes) -> None:
    assert question_of(ASKED, body) is None


@pytest.mark.parametrize(
    ("endpoint", "body", "is_asked"),
    [
        (Endpoint.CHAT, b'{"temperature":0}', True),
        (Endpoint.CHAT, b'{"temperature":0.0,"n":1,"tools":[]}', True),
        (Endpoint.CHAT, b"{}", False),
        (Endpoint.CHAT, b'{"temperature":null}', False),
        (Endpoint.CHAT, b'{"temperature":false}', False),
        (Endpoint.CHAT, b'{"temperature":"0"}', False),
        (Endpoint.CHAT, b'{"temperature":0.1}', False),
        (Endpoint.CHAT, b'{"temperature":0,"n":2}', False),
        (Endpoint.CHAT, b'{"temperature":0,"n":[1]}', False),
        (Endpoint.COMPLETIONS, b'{"temperature":0,"best_of":2}', False),
        (Endpoint.GENERATE, b'{"generationConfig":{"temperature":0}}', True),
        (Endpoint.GENERATE, b'{"temperature":0}', False),
        (Endpoint.GENERATE, b'{"generationConfig":{"temperature":0,"candidateCount":2}}', False),
        (Endpoint.EMBEDDINGS, b'{"input":"a"}', True),
    ],
)
def test_a_route_asks_for_what_is_answered_alike_and_a_client_for_anything(
    endpoint: Endpoint, body: bytes, is_asked: bool
) -> None:
    assert (question_of(replace(BY_ROUTE, endpoint=endpoint), body) is not None) is is_asked
    assert question_of(replace(ASKED, endpoint=endpoint), body) is not None


def test_what_hangs_on_more_than_the_body_is_only_cached_when_a_client_asks() -> None:
    assert question_of(replace(BY_ROUTE, looks_elsewhere=True), BODY) is None
    assert question_of(replace(ASKED, looks_elsewhere=True), BODY) is not None


def test_an_answer_that_will_be_made_shorter_is_nobody_elses() -> None:
    assert question_of(replace(ASKED, is_cut_down=True), BODY) is None


REQUEST: Fields = {
    "mode": "live",
    "endpoint": "chat",
    "model": "m",
    "offering": "m openai=m",
    "cache": "route",
    "cache_ttl_s": 60.0,
}


def test_what_envoy_tells_is_read() -> None:
    told = read_asked(
        {**REQUEST, "references": True, "meters": "web_search"}, {"org_id": "org_1", "max_tokens": "9"}, ()
    )
    assert told == replace(BY_ROUTE, ttl_s=60, is_cut_down=True, looks_elsewhere=True)
    without = {name: value for name, value in REQUEST.items() if name not in {"offering", "cache_ttl_s"}}
    assert read_asked(without, {"org_id": "org_1"}, ()) == replace(BY_ROUTE, served_by="m")


@pytest.mark.parametrize(
    ("request_", "grant"),
    [
        (REQUEST, {}),
        (REQUEST, {"org_id": ""}),
        ({}, {"org_id": "org_1"}),
        ({**REQUEST, "mode": "other"}, {"org_id": "org_1"}),
        ({**REQUEST, "cache": "other"}, {"org_id": "org_1"}),
        ({**REQUEST, "cache_ttl_s": "60"}, {"org_id": "org_1"}),
    ],
)
def test_what_envoy_does_not_tell_is_refused(request_: dict[str, Any], grant: dict[str, Any]) -> None:
    with pytest.raises(UnreadableRequestError):
        read_asked(request_, grant, ())
