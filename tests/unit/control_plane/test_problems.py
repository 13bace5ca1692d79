"""What an exception becomes as an answer of `/api/v1`."""

import asyncpg
import pytest

from control_plane.api.problems import INTERNAL, problem_of, render_problem
from gateway_core.ids import RequestId


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        asyncpg.CannotConnectNowError(),
        asyncpg.AdminShutdownError(),
        asyncpg.CrashShutdownError(),
        asyncpg.ConnectionDoesNotExistError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("got result for unknown protocol state"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_database_that_dies_raises_is_an_answer_that_says_when_to_ask_again(error: Exception) -> None:
    problem = problem_of(error)
    assert problem is not None
    answer = render_problem(problem, error, RequestId("req_1"))
    assert (answer.status, answer.content_type) == (503, "application/problem+json")
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_fault_of_ours_does_not_ask_to_be_tried_again() -> None:
    assert problem_of(asyncpg.UndefinedTableError()) is None
    assert "Retry-After" not in render_problem(INTERNAL, asyncpg.UndefinedTableError(), RequestId("req_1")).headers
