"""Error bodies of providers, in whichever of the known shapes. Pure.

Sources: the API references of OpenAI, Anthropic and Google. Servers that imitate one of them mix the shapes, so all are read alike.
"""

from collections.abc import Mapping
from typing import Final

from translator.json_values import Json, JsonObject, ShapeError, parse
from translator.reply import Failure

MESSAGE_MAX: Final = 4000
_STATUS_BY_KIND: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "RESOURCE_EXHAUSTED": 429,
    "INVALID_ARGUMENT": 400,
    "UNAVAILABLE": 503,
    "timeout_error": 504,
    "overloaded_error": 529,
}
INTERNAL: Final = 500


def read_failure(status: int, body: bytes) -> Failure:
    """What a provider says of a request it did not serve. Anything is taken: the status says most of it."""
    try:
        value = parse(body)
    except ShapeError:
        value = None
    return failure_in(value, status) or Failure(status, f"The model provider answered with status {status}.")


def failure_in(value: Json, status: int = 0) -> Failure | None:
    """The failure that a JSON value tells of; None if it tells of none."""
    if isinstance(value, list) and value:
        # Google's compatible endpoint puts its error into a list.
        value = value[0]
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if isinstance(error, str):
        error = {"message": error}
    if error is None and isinstance(value.get("message"), str) and value.get("object") == "error":
        error = value
    if not isinstance(error, dict):
        return None
    kind = _word(error, "type") or _word(error, "status")
    code = error.get("code")
    if not status:
        status = code if isinstance(code, int) and 400 <= code <= 599 else _STATUS_BY_KIND.get(kind or "", INTERNAL)  # noqa: PLR2004 - HTTP's errors
    message = _word(error, "message") or "The model provider failed."
    return Failure(status, message[:MESSAGE_MAX], kind, code if isinstance(code, str) else None)


def broken_stream() -> Failure:
    """What is told of an answer that ends, or becomes unreadable, before its end."""
    return Failure(502, "The model provider's answer broke off.", code="provider_answer_unreadable")


def _word(error: JsonObject, name: str) -> str | None:
    value = error.get(name)
    return value if isinstance(value, str) and value else None
