"""What Envoy's access log tells of a request, as a value."""

from collections.abc import Mapping
from typing import Any

import pytest

from ext_authz.running_requests import Counted, Heard, parse_entry
from gateway_core.contract import GrantField, Metadata
from gateway_core.ids import OrgId, RequestId
from gateway_core.limits import Scope, Tally
from wire.access_log_pb2 import AccessLogType, HTTPAccessLogEntry

GRANT = {
    GrantField.ORG_ID: "org_1",
    GrantField.RESERVED_FOR: "key:key_1 model:a/b:c",
    GrantField.RESERVED_AT: "1700000000",
    GrantField.RESERVED_TOKENS: "1200",
}
COUNTED = Counted(OrgId("org_1"), (Tally(Scope.KEY, "key_1"), Tally(Scope.MODEL, "a/b:c")), 1_700_000_000)
OPENAI = '{"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}'


def entry(
    told: Mapping[str, Any],
    *,
    grant: Mapping[str, Any] = GRANT,
    status: int = 200,
    is_over: bool = True,
) -> HTTPAccessLogEntry:
    built = HTTPAccessLogEntry()
    built.request.request_id = "request 1"
    built.response.response_code.value = status
    built.common_properties.access_log_type = (
        AccessLogType.DOWNSTREAM_END if is_over else AccessLogType.DOWNSTREAM_PERIODIC
    )
    built.common_properties.metadata.filter_metadata[Metadata.GRANT_NAMESPACE].update(grant)
    built.common_properties.metadata.filter_metadata[Metadata.NAMESPACE].update(told)
    return built


@pytest.mark.parametrize(
    ("endpoint", "usage", "status", "tokens"),
    [
        ("chat", {Metadata.USAGE_FIRST: OPENAI}, 200, 42),
        (
            "messages",
            {
                Metadata.USAGE_FIRST: '{"input_tokens": 30, "output_tokens": 1}',
                Metadata.USAGE_LAST: '{"output_tokens": 12}',
            },
            200,
            42,
        ),
        # A stream that ended early: what it would have used counts, not what it said when it began.
        ("messages", {Metadata.USAGE_FIRST: '{"input_tokens": 30, "output_tokens": 1}'}, 200, 1200),
        ("chat", {}, 200, 1200),
        ("chat", {Metadata.USAGE_FIRST: "not JSON"}, 200, 1200),
        ("chat", {Metadata.USAGE_FIRST: '{"prompt_tokens": 1, "completion_tokens": 1, "unheard_of": 7}'}, 200, 1200),
        # No provider was asked.
        ("chat", {Metadata.USAGE_FIRST: OPENAI, Metadata.CACHE: "hit"}, 200, 0),
        ("chat", {Metadata.USAGE_FIRST: OPENAI, Metadata.CACHE: "miss"}, 200, 42),
        ("chat", {}, 429, 0),
        ("chat", {}, 0, 0),
    ],
)
def test_a_request_that_is_over_used_what_the_provider_counts_or_what_was_expected(
    endpoint: str, usage: dict[str, str], status: int, tokens: int
) -> None:
    told = entry({Metadata.REQUEST: {"endpoint": endpoint, "stream": True}, **usage}, status=status)
    more = tokens - 1200
    assert parse_entry(told) == Heard(COUNTED, RequestId("request 1"), is_over=True, is_leased=False, more_tokens=more)


@pytest.mark.parametrize("flag", ["downstream_connection_termination", "downstream_remote_reset"])
@pytest.mark.parametrize(
    ("usage", "tokens"),
    [({}, 20 + 60), ({Metadata.USAGE_FIRST: '{"input_tokens": 300, "output_tokens": 1}'}, 301)],
)
def test_of_a_client_that_left_no_more_counts_than_it_sent_and_got(
    flag: str, usage: dict[str, str], tokens: int
) -> None:
    told = entry({Metadata.REQUEST: {"endpoint": "messages", "stream": True, "body_bytes": 80}, **usage})
    told.response.response_body_bytes = 60
    setattr(told.common_properties.response_flags, flag, True)
    found = parse_entry(told)
    assert found is not None
    assert found.more_tokens == tokens - 1200


SESSION = (
    '{"responses": 2, "transcriptions": 0, "usage": {"input_tokens": 3000, "output_tokens": 12, "total_tokens": 3012}}'
)


@pytest.mark.parametrize(
    ("usage", "counted", "more"),
    [(SESSION, None, 3012 - 1200), (SESSION, 3012, 0), (SESSION, 2000, 1012), (None, None, 0)],
)
def test_of_a_session_only_that_is_counted_at_its_end_which_was_not_while_it_lasted(
    usage: str | None, counted: int | None, more: int
) -> None:
    told: dict[str, Any] = {Metadata.REQUEST: {"endpoint": "realtime"}}
    if usage is not None:
        told[Metadata.USAGE_FIRST] = usage
    if counted is not None:
        told[Metadata.COUNTED_TOKENS] = counted
    found = parse_entry(entry(told, status=101))
    assert found is not None
    assert found.more_tokens == more


@pytest.mark.parametrize(("unfinished", "more"), [("{}", 42 - 1200), ('{"responses":1}', 0)])
def test_a_session_that_was_left_in_the_middle_counts_as_no_less_than_was_expected(unfinished: str, more: int) -> None:
    used = '{"responses": 1, "transcriptions": 0, "usage": {"input_tokens": 30, "output_tokens": 12}}'
    told = {Metadata.REQUEST: {"endpoint": "realtime"}, Metadata.USAGE_FIRST: used, Metadata.UNFINISHED: unfinished}
    found = parse_entry(entry(told, status=101))
    assert found is not None
    assert found.more_tokens == more


def test_a_request_that_is_told_of_while_it_runs_is_not_over() -> None:
    found = parse_entry(entry({Metadata.REQUEST: {"endpoint": "chat"}}, is_over=False))
    assert found is not None
    assert not found.is_over


def test_a_request_that_came_by_a_lease_counts_where_that_says() -> None:
    told = {Metadata.REQUEST: {"endpoint": "chat"}, Metadata.LEASE: GRANT, Metadata.USAGE_FIRST: OPENAI}
    found = parse_entry(entry(told, grant={}))
    assert found == Heard(COUNTED, RequestId("request 1"), is_over=True, is_leased=True, more_tokens=42 - 1200)


@pytest.mark.parametrize("left_out", GRANT)
def test_a_request_without_a_reservation_is_nobodys(left_out: str) -> None:
    grant = {name: value for name, value in GRANT.items() if name != left_out}
    assert parse_entry(entry({}, grant=grant)) is None


@pytest.mark.parametrize("tallies", ["nobody:key_1", "key"])
def test_a_reservation_against_nothing_that_is_known_is_nobodys(tallies: str) -> None:
    assert parse_entry(entry({}, grant=GRANT | {GrantField.RESERVED_FOR: tallies})) is None
