import json
from datetime import UTC, datetime

import pytest

from gateway_core import errors
from gateway_core.budgets import Budget, Exhausted
from gateway_core.error_headers import error_headers
from gateway_core.errors import (
    BATCH_UNKNOWN,
    BATCHES_BUSY,
    INSUFFICIENT_QUOTA,
    INVALID_API_KEY,
    NOT_FOUND,
    ApiError,
    ErrorType,
    model_not_found,
)

EXHAUSTED = Exhausted(Budget.KEY_PER_DAY, datetime(2026, 11, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    "error", [INVALID_API_KEY, NOT_FOUND, model_not_found("m"), ApiError(402, "c", "m", ErrorType.SERVER)]
)
def test_every_refusal_has_the_shape_of_openais_errors(error: ApiError) -> None:
    assert json.loads(error.body()) == {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    }


def test_a_body_is_serialised_whatever_the_message_holds() -> None:
    message = 'it\'s "quoted", {braced}\n\\ and \u00e9'
    assert json.loads(ApiError(400, "c", message).body())["error"]["message"] == message


def test_an_unknown_model_is_named_to_the_caller() -> None:
    error = model_not_found("gpt-99")
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert "'gpt-99'" in error.message


def test_a_refused_key_is_told_how_to_send_one() -> None:
    assert INVALID_API_KEY.status == 401
    assert "Authorization: Bearer" in INVALID_API_KEY.message
    assert "x-api-key" in INVALID_API_KEY.message


def test_an_error_says_when_to_ask_again_or_that_it_is_no_use() -> None:
    assert error_headers(NOT_FOUND) == {}
    assert error_headers(BATCHES_BUSY) == {"retry-after": "5"}
    assert error_headers(INSUFFICIENT_QUOTA) == error_headers(BATCH_UNKNOWN) == {"x-should-retry": "false"}


def test_whoever_cannot_pay_is_never_told_to_ask_again() -> None:
    worded = [each for each in vars(errors).values() if isinstance(each, ApiError)]
    unpaid = [*(each for each in worded if each.status == 402), errors.budget_exceeded(EXHAUSTED)]
    assert len(unpaid) > 2
    assert all(each.is_final and each.retry_after_s is None for each in unpaid)
