from datetime import UTC, datetime

import pytest

from billing_sink.access_log import (
    FINISHED,
    PERIODIC,
    AttemptLine,
    InvalidLineError,
    SpoolLine,
    parse_any_line,
    parse_line,
    request_id_of,
)
from gateway_core.endpoints import Endpoint
from tests.support.spool_lines import (
    GRANT,
    REQUEST,
    chat_stream,
    failed_attempt,
    line,
    messages_stream,
    not_a_request,
    periodic,
    refused,
    render,
)

CAPTURED = (
    rb'{"attempts":1,"bytes_received":85,"bytes_sent":697,"cluster":"provider/openai","duration_ms":3,"first_byte_ms":2,'
    rb'"grant":{"ext_authz_duration":3,"hold_nano_usd":"9840450","key_id":"key_demo","org_id":"org_demo",'
    rb'"price_version":18,"project_id":"prj_demo"},"method":"POST","request":{"body_bytes":67,"endpoint":"chat",'
    rb'"hide_usage":false,"model":"gpt-4o-mini","stream":false},"request_id":"b1d71dd1-746f-46ff-aeb5-045245ff7fd4",'
    rb'"response_details":"via_upstream","response_flags":"-","route":"chat:gpt-4o-mini","sse_events":null,'
    rb'"start_time":"2026-11-23T21:58:03.495Z","status":200,"type":"DownstreamEnd",'
    rb'"usage_first":"{\"prompt_tokens\":5,\"completion_tokens\":18}","usage_last":null,"user_agent":"curl/7.88.1","v":1}'
)
"""A line that Envoy wrote, to the byte."""


def parse(**fields: object) -> SpoolLine:
    return parse_line(render({**line(), **fields}))


def test_a_line_that_envoy_wrote_is_read_whole() -> None:
    found = parse_line(CAPTURED)
    assert (found.v, found.type, found.status, found.request_id) == (
        1,
        FINISHED,
        200,
        "b1d71dd1-746f-46ff-aeb5-045245ff7fd4",
    )
    assert found.start_time == datetime(2026, 11, 23, 21, 58, 3, 495_000, tzinfo=UTC)
    assert found.request is not None
    assert (found.request.endpoint, found.request.model, found.request.stream) == (Endpoint.CHAT, "gpt-4o-mini", False)
    assert (found.request.body_bytes, found.request.max_output_tokens) == (67, None)
    assert found.grant is not None
    assert (found.grant.org_id, found.grant.project_id, found.grant.key_id) == ("org_demo", "prj_demo", "key_demo")
    assert (found.grant.price_version, found.grant.hold_nano_usd, found.grant.error_code) == (18, 9_840_450, None)
    assert found.usage_first == '{"prompt_tokens":5,"completion_tokens":18}'
    assert (found.usage_last, found.sse_events) == (None, None)
    assert (found.cluster, found.attempts, found.duration_ms, found.first_byte_ms) == ("provider/openai", 1, 3, 2)
    assert (found.bytes_received, found.bytes_sent, found.user_agent) == (85, 697, "curl/7.88.1")


@pytest.mark.parametrize(
    "written",
    [line(), chat_stream(), messages_stream(), refused(), not_a_request(), periodic()],
    ids=lambda w: w["type"],
)
def test_every_kind_of_line_is_read(written: dict[str, object]) -> None:
    assert parse_line(render(written)).type in {FINISHED, PERIODIC}


def test_a_connection_that_never_was_a_request_has_no_id_and_no_grant() -> None:
    found = parse_line(render(not_a_request()))
    assert (found.request_id, found.reply_id, found.request, found.grant, found.status) == (None, None, None, None, 0)


def test_a_field_that_is_not_known_yet_is_no_trouble() -> None:
    assert parse(something_new={"deep": [1]}) == parse()


def test_fields_that_were_not_written_last_year_may_be_absent() -> None:
    minimal = {name: line()[name] for name in ("v", "type", "start_time", "status")}
    found = parse_line(render(minimal))
    assert (found.reply_id, found.bytes_sent, found.request) == (None, 0, None)


def test_a_client_writes_what_it_likes_into_its_headers() -> None:
    assert parse(user_agent='q"\\\t\u00ff\u2028 \U0001f600').user_agent == 'q"\\\t\u00ff\u2028 \U0001f600'


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"v": 2}, "v"),
        ({"v": "1"}, "v"),
        ({"type": None}, "type"),
        ({"type": ""}, "type"),
        ({"status": None}, "status"),
        ({"status": 1000}, "status"),
        ({"status": "ok"}, "status"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"start_time": None}, "start_time"),
        ({"request_id": 7}, "request_id"),
        ({"bytes_sent": -1}, "bytes_sent"),
        ({"bytes_sent": 2**63}, "bytes_sent"),
        ({"attempts": 2**31}, "attempts"),
        ({"sse_events": 2**31}, "sse_events"),
        ({"usage_first": {}}, "usage_first"),
        ({"usage_last": ["x"]}, "usage_last"),
        ({"request": "chat"}, "request"),
        ({"request": {**REQUEST, "endpoint": "telepathy"}}, "request.endpoint"),
        ({"request": {**REQUEST, "client_request_id": "x" * 201}}, "request.client_request_id"),
        ({"grant": {**GRANT, "hold_nano_usd": "-1"}}, "grant.hold_nano_usd"),
        ({"grant": {**GRANT, "price_version": 1.5}}, "grant.price_version"),
        ({"grant": {**GRANT, "price_version": 2**63}}, "grant.price_version"),
        ({"grant": {**GRANT, "error_code": ""}}, "grant.error_code"),
    ],
)
def test_a_field_of_another_kind_is_named(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidLineError, match=rf"\b{complaint}\b"):
        parse(**fields)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"{}", b"not json", CAPTURED[:-1], CAPTURED + b"}", b"\xff" + CAPTURED]
)
def test_what_is_not_a_line_is_invalid(content: bytes) -> None:
    with pytest.raises(InvalidLineError):
        parse_line(content)


def test_a_complaint_never_quotes_the_line() -> None:
    with pytest.raises(InvalidLineError) as complaint:
        parse(status="hunter2", user_agent=["hunter2"])
    assert "hunter2" not in str(complaint.value)
    assert "status, user_agent" in str(complaint.value)


def test_a_nul_from_a_client_or_a_provider_is_replaced_and_decides_about_nothing() -> None:
    asked = {**REQUEST, "client_request_id": "a\x00b"}
    parsed = parse_line(render(line(user_agent="\x00", usage_first='{"a": "\x00"}', request=asked)))
    assert parsed.user_agent == "\ufffd"
    assert parsed.usage_first == '{"a": "\ufffd"}'
    assert parsed.request is not None
    assert parsed.request.client_request_id == "a\ufffdb"


def test_six_characters_that_spell_a_nul_are_none() -> None:
    assert parse_line(render(line(user_agent="\\u0000"))).user_agent == "\\u0000"


def test_the_request_id_of_an_unreadable_line_is_found_where_there_is_one() -> None:
    assert request_id_of(render(line("r1", status="high"))) == "r1"
    assert request_id_of(b'{"request_id": 4}') is None
    assert request_id_of(b"not json") is None
    assert request_id_of(b"[]") is None


@pytest.mark.parametrize(
    ("fields", "model"),
    [
        ({"request": {**REQUEST, "model": "alias", "offering": "m p=up"}, "grant": {**GRANT, "model": "n"}}, "m"),
        ({"request": {**REQUEST, "model": "alias"}, "grant": {**GRANT, "model": "n"}}, "n"),
        ({"request": {**REQUEST, "model": "alias"}}, "alias"),
        ({"request": None}, None),
    ],
)
def test_the_model_is_the_one_that_the_route_stands_for(fields: dict[str, object], model: str | None) -> None:
    assert parse(**fields).model == model


@pytest.mark.parametrize(
    ("own_reply", "expected"),
    [
        (None, (503, "-")),
        # The translator was gone, or could not put the request to the provider.
        ("-", (503, "-")),
        ("UC", (0, "UC")),
        ("URX,UF", (0, "UF")),
    ],
)
def test_what_envoy_answers_for_a_provider_behind_the_translator_is_no_answer_of_the_provider(
    own_reply: str | None, expected: tuple[int, str]
) -> None:
    attempt = parse_any_line(render(failed_attempt(status=503, own_reply=own_reply)))
    assert isinstance(attempt, AttemptLine)
    assert (attempt.answered, attempt.flags) == expected


@pytest.mark.parametrize(
    ("status", "flags", "has_failed"), [(101, "UC", False), (101, "-", False), (200, "UC", True), (0, "UC", True)]
)
def test_a_session_that_was_begun_is_no_failed_attempt_whoever_ended_it(
    status: int, flags: str, *, has_failed: bool
) -> None:
    attempt = parse_any_line(render(failed_attempt(status=status, response_flags=flags)))
    assert isinstance(attempt, AttemptLine)
    assert attempt.has_failed is has_failed
