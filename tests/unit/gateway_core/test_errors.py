import json

import pytest

from gateway_core.errors import INVALID_API_KEY, NOT_FOUND, ApiError, ErrorType, model_not_found


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
