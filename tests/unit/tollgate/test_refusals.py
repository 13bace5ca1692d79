"""Refusals of the API as errors of a command."""

import json

import pytest

from tollgate.connection import Reply
from tollgate.errors import CommandError, NotLoggedInError, RefusedError, UnreachableError
from tollgate.refusals import of_options, refusal


def reply(status: int, problem: dict[str, object], **headers: str) -> Reply:
    return Reply(
        status,
        {"content-type": "application/problem+json; charset=utf-8", **headers},
        json.dumps({"title": "Title", "request_id": "req_1", **problem}).encode(),
    )


def test_a_refusal_is_one_line_and_one_for_each_field_in_the_words_of_its_option() -> None:
    faults = [
        {"pointer": "/name", "detail": "too short"},
        {"pointer": "/ip_allowed/1", "detail": "no network"},
        {"pointer": "/limits/rpm", "detail": "too large"},
        {"pointer": "?limit", "detail": "too many"},
        {"pointer": "/colour", "detail": "unknown"},
        {"pointer": "/", "detail": "odd"},
        {"pointer": "{provider}", "detail": "no name"},
    ]
    known = {"name": "--name", "ip_allowed": "--ip-allowed", "limits": "--limits", "limit": "--limit"}
    error = refusal(reply(422, {"detail": "Some fields are not valid.", "errors": faults}), of_options(known.get))
    assert str(error).splitlines() == [
        "Some fields are not valid.",
        "  --name: too short",
        "  --ip-allowed (number 2): no network",
        "  --limits (/rpm): too large",
        "  --limit: too many",
        "  /colour: unknown",
        "  the body: odd",
        "  PROVIDER: no name",
    ]


def test_faults_that_the_answer_leaves_out_are_counted() -> None:
    faults = [{"pointer": "/name", "detail": "too short"}]
    error = refusal(reply(422, {"detail": "No.", "errors": faults, "errors_left_out": 7}))
    assert str(error).splitlines() == ["No.", "  /name: too short", "  and 7 more"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, NotLoggedInError), (403, RefusedError), (412, RefusedError), (500, RefusedError), (503, UnreachableError)],
)
def test_the_kind_of_error_tells_a_script_what_to_do(status: int, kind: type[CommandError]) -> None:
    assert type(refusal(reply(status, {}))) is kind


def test_a_fault_of_the_server_names_the_request_and_a_throttle_the_time() -> None:
    assert str(refusal(reply(500, {}))) == "Title (request req_1)"
    assert str(refusal(reply(429, {"detail": "Slower."}, **{"retry-after": "7"}))) == "Slower. Try again in 7 s."


def test_an_answer_of_something_else_is_said_to_be_that() -> None:
    error = refusal(Reply(404, {"content-type": "text/html"}, b"<html>"))
    assert isinstance(error, UnreachableError)
    assert "404" in str(error)
