"""Every error a client can get from us, whichever process words it, in OpenAI's form, Anthropic's or Google's.

The scripts of envoy/lua hold their own texts, because Lua cannot import this; a test compares their codes with these.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from gateway_core.budgets import AllHeld, Budget, Exhausted
from gateway_core.kept import KeptName
from gateway_core.limits import Scope


class ErrorType(StrEnum):
    """OpenAI's classes of errors."""

    INVALID_REQUEST = "invalid_request_error"
    INSUFFICIENT_QUOTA = "insufficient_quota"
    REQUESTS = "requests"
    TOKENS = "tokens"
    SERVER = "server_error"
    TIMEOUT = "timeout_error"


class ErrorForm(StrEnum):
    """Whose errors ours look like: those of the endpoint that was asked."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"


ANTHROPIC_PATHS: Final = "/v1/messages"
"""What the path of every request begins with whose errors are in Anthropic's form. errors.lua knows it too."""

GOOGLE_PATHS: Final = "/v1beta/"
"""The same of Google's form."""

GOOGLE_CALLS: Final = "^/v1/models/.+:[a-zA-Z]+Content"
"""A regular expression of those that are not among them: Google's other version, beside OpenAI's paths."""

_GOOGLE_STATUSES: Final[Mapping[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    504: "DEADLINE_EXCEEDED",
}
_ANTHROPIC_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
"""Anthropic's classes by status; of the others, what the caller has to mend, and what we have."""
_OURS: Final = 500


def anthropic_type(status: int) -> str:
    """Anthropic's class of an error."""
    return _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < _OURS else "api_error")


def google_status(status: int) -> str:
    """Google's class of an error."""
    return _GOOGLE_STATUSES.get(status, "INVALID_ARGUMENT" if status < _OURS else "UNAVAILABLE")


Detail = str | int | None


@dataclass(frozen=True, slots=True)
class ApiError:
    """One refusal: an HTTP status and what the caller is told. The message is for people and never quotes a secret.

    Attributes:
        retry_after_s: after which the same request may pass, where that is known.
        is_final: whether the official SDKs are told not to ask again by themselves: it would be no use, or do something twice.
    """

    status: int
    code: str
    message: str
    type: ErrorType = ErrorType.INVALID_REQUEST
    param: str | None = None
    retry_after_s: int | None = None
    is_final: bool = False

    def document(
        self, form: ErrorForm = ErrorForm.OPENAI, request_id: str | None = None
    ) -> dict[str, dict[str, Detail] | Detail]:
        """The JSON object: `{"error": {message, type, param, code}}`.

        In Anthropic's form `{"type": "error", "error": {type, message, code}, "request_id"}`, where the code is ours; in Google's
        `{"error": {code, message, status, reason}}`, where the code is the HTTP status and the reason our code.
        """
        match form:
            case ErrorForm.OPENAI:
                return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}
            case ErrorForm.ANTHROPIC:
                error: dict[str, Detail] = {
                    "type": anthropic_type(self.status),
                    "message": self.message,
                    "code": self.code,
                }
                return {"type": "error", "error": error, "request_id": request_id}
            case ErrorForm.GOOGLE:
                return {
                    "error": {
                        "code": self.status,
                        "message": self.message,
                        "status": google_status(self.status),
                        "reason": self.code,
                    }
                }
            case _:
                assert_never(form)

    def body(self, form: ErrorForm = ErrorForm.OPENAI, request_id: str | None = None) -> str:
        """The JSON text."""
        return json.dumps(self.document(form, request_id))


# The caller's, worded by ext_authz or control_plane.
INVALID_API_KEY: Final = ApiError(
    401, "invalid_api_key", "No valid API key was given. Send it as 'Authorization: Bearer ...' or 'x-api-key: ...'."
)
API_KEY_ENDED: Final = ApiError(401, "invalid_api_key", "This API key is disabled, revoked or has expired.")
INSUFFICIENT_QUOTA: Final = ApiError(
    402,
    "insufficient_quota",
    "What is left in the balance of your organisation does not cover even a short answer. "
    "Add credit, shorten the request, or lower max_tokens.",
    type=ErrorType.INSUFFICIENT_QUOTA,
    is_final=True,
)
TOO_MANY_WAITING: Final = ApiError(
    429,
    "rate_limit_exceeded",
    "Too many requests of your organisation are being decided about at once. Try again shortly.",
    type=ErrorType.REQUESTS,
    retry_after_s=1,
)
BURST_EXCEEDED: Final = ApiError(
    429,
    "rate_limit_exceeded",
    "Your API key has brought as many requests in a second as it may. Try again in 1 s.",
    type=ErrorType.REQUESTS,
    retry_after_s=1,
)
ADDRESS_NOT_ALLOWED: Final = ApiError(
    403, "address_not_allowed", "This API key may not be used from your network address."
)
KEPT_APART: Final = ApiError(
    400, "kept_elsewhere", "What the request names is kept at different providers, and can be read at none together."
)
NOT_AT_ITS_PROVIDER: Final = ApiError(
    400, "endpoint_not_supported", "The provider that keeps this does not offer that to be done with it."
)
TEST_MODE_UNAVAILABLE: Final = ApiError(
    403, "test_mode_unavailable", "Test keys cannot be used here: this gateway has no simulator. Use a live key."
)
NOT_FOUND: Final = ApiError(404, "not_found", "Unknown path or method.")

# The caller's, worded by reading.lua and bodies.lua, which say in the message what is wrong.
INVALID_JSON: Final = ApiError(400, "invalid_json", "The body is not valid JSON.")
MISSING_MODEL: Final = ApiError(400, "missing_model", "The field 'model' is required.", param="model")
INVALID_MODEL: Final = ApiError(400, "invalid_model", "The field 'model' is not a model's name.", param="model")

INVALID_STREAM: Final = ApiError(400, "invalid_stream", "The field 'stream' is true, false or null.", param="stream")
INVALID_NUMBER: Final = ApiError(400, "invalid_number", "This field must be a whole number of at least 1.")
INFERENCE_GEO_NOT_OFFERED: Final = ApiError(
    400,
    "inference_geo_not_offered",
    "Answers are not offered from a place of your choice. Leave the field 'inference_geo' out.",
    param="inference_geo",
)
STORED_STATE_NOT_OFFERED: Final = ApiError(
    400,
    "stored_state_not_offered",
    "What a provider has stored cannot be kept to its owner here. Send the whole conversation, and wait for the answer.",
)
PROVIDER_NOT_OFFERED: Final = ApiError(
    400, "provider_not_offered", "The header 'x-tollgate-provider' is not a provider's name."
)
INVALID_CACHE_WISH: Final = ApiError(400, "invalid_header", "The header 'x-tollgate-cache' says 'on' or 'off'.")
TOOL_NOT_OFFERED: Final = ApiError(
    400, "tool_not_offered", "The field 'tools' has a tool that is not offered on this endpoint.", param="tools"
)
INVALID_FORM: Final = ApiError(400, "invalid_form", "The form could be read in more than one way, or in none.")
UNSUPPORTED_MEDIA_TYPE: Final = ApiError(
    415, "unsupported_media_type", "A form is required: multipart/form-data with a plain boundary."
)
EVENTS_REQUIRED: Final = ApiError(
    400, "stream_required", "Streams are offered as events only: ask with ?alt=sse.", param="alt"
)
USAGE_REQUIRED: Final = ApiError(
    400, "usage_required", "An answer in this form does not say how much was heard.", param="response_format"
)
INVALID_INPUT: Final = ApiError(
    400, "invalid_input", "The field 'input' is not what this endpoint reads.", param="input"
)
STREAM_NOT_OFFERED: Final = ApiError(
    400, "stream_not_offered", "Pictures are not streamed here. Leave the field 'stream' out.", param="stream"
)
INVALID_SERVICE_TIER: Final = ApiError(
    400, "invalid_service_tier", "The field 'service_tier' is not a tier's name.", param="service_tier"
)
FIELD_NOT_OFFERED: Final = ApiError(
    400, "feature_not_offered", "What this field asks for is counted in no usage. Leave it out."
)

UPGRADE_REQUIRED: Final = ApiError(426, "upgrade_required", "This is a WebSocket: ask for an upgrade to it.")
SESSION_SPENT: Final = ApiError(
    402,
    "session_limit_reached",
    "What was held for this session does not cover another response. Begin a new one.",
    type=ErrorType.INSUFFICIENT_QUOTA,
    is_final=True,
)
"""In an event, since the answer has begun, like the next two."""
SESSION_CROWDED: Final = ApiError(
    402,
    "session_limit_reached",
    "What was held for this session does not cover so many responses at once. Begin a new one.",
    type=ErrorType.INSUFFICIENT_QUOTA,
    is_final=True,
)
INVALID_EVENT: Final = ApiError(
    400,
    "invalid_event",
    "An event of the client could not be read: it is no JSON object, repeats or escapes a key, is longer than 16 MiB or in too many frames.",
)

# The caller's, worded by Envoy.
BAD_REQUEST: Final = ApiError(400, "bad_request", "The request is not valid HTTP.")
REQUEST_TIMEOUT: Final = ApiError(408, "request_timeout", "The request did not arrive in time.", type=ErrorType.TIMEOUT)
REQUEST_TOO_LARGE: Final = ApiError(413, "request_too_large", "The request body is too large.")
HEADERS_TOO_LARGE: Final = ApiError(431, "headers_too_large", "The headers are too large.")

# Ours.
NOT_RECORDED: Final = ApiError(
    503,
    "not_recorded",
    "The provider has kept this, but the gateway could not write down whose it is. Look for it in the list, or try again.",
    type=ErrorType.SERVER,
)
INTERNAL: Final = ApiError(500, "internal_error", "Something went wrong on our side.", type=ErrorType.SERVER)
DATABASE_UNAVAILABLE: Final = ApiError(503, "database_unavailable", "Try again shortly.", type=ErrorType.SERVER)
AUTHORIZATION_UNAVAILABLE: Final = ApiError(
    503,
    "authorization_unavailable",
    "The gateway cannot check this request right now. Try again shortly.",
    type=ErrorType.SERVER,
    retry_after_s=1,
)
GATEWAY_ERROR: Final = ApiError(503, "gateway_error", "The gateway could not read this request.", type=ErrorType.SERVER)
MODEL_CHANGING: Final = ApiError(
    503,
    "model_changing",
    "What serves this model is being changed at this moment. Try again shortly.",
    type=ErrorType.SERVER,
    param="model",
)
TRANSLATOR_UNAVAILABLE: Final = ApiError(
    503,
    "translator_unavailable",
    "The gateway cannot translate for this provider right now. Try again shortly.",
    type=ErrorType.SERVER,
)
TRANSLATOR_ERROR: Final = ApiError(
    502,
    "provider_answer_unreadable",
    "The model provider's answer could not be read.",
    type=ErrorType.SERVER,
)
PROVIDER_CREDENTIAL_REJECTED: Final = ApiError(
    502,
    "provider_credential_rejected",
    "The provider refused the credential of this gateway.",
    type=ErrorType.SERVER,
    is_final=True,
)
OWN_KEY_NOT_OFFERED: Final = ApiError(
    403,
    "own_key_not_offered",
    "Your organisation has a key of its own at a provider of this, with which sessions and what a provider keeps are not offered.",
)
OWN_KEY_REJECTED: Final = ApiError(
    502,
    "own_key_rejected",
    "The provider refused your organisation's own key.",
    type=ErrorType.SERVER,
    is_final=True,
)
PROVIDER_CREDENTIAL_UNAVAILABLE: Final = ApiError(
    503,
    "provider_credential_unavailable",
    "The gateway has no credential for this provider.",
    type=ErrorType.SERVER,
)
PROVIDER_ADDRESS_REFUSED: Final = ApiError(
    503,
    "provider_address_refused",
    "The model provider is at an address that this gateway may not reach.",
    type=ErrorType.SERVER,
)

# The provider's.
PROVIDER_UNAVAILABLE: Final = ApiError(
    503, "provider_unavailable", "The model provider cannot be reached.", type=ErrorType.SERVER
)
PROVIDER_FULL: Final = ApiError(
    503,
    "provider_full",
    "The model provider has as many requests as it may have at once.",
    type=ErrorType.SERVER,
    retry_after_s=1,
)
PROVIDER_LIMITED: Final = ApiError(
    429,
    "rate_limit_exceeded",
    "The providers of this model are asked as much as they may be, or as much of it as is your organisation's share. Try again shortly.",
    type=ErrorType.REQUESTS,
)
"""When to come back, ext_authz says."""
PROVIDER_PAUSED: Final = ApiError(
    503, "provider_paused", "Every provider of this model is paused by the operator.", type=ErrorType.SERVER
)
KEEPER_PAUSED: Final = ApiError(
    503,
    PROVIDER_PAUSED.code,
    "The provider that keeps this, or was to keep it, is paused by the operator.",
    type=ErrorType.SERVER,
)
PROVIDER_TIMEOUT: Final = ApiError(
    504, "provider_timeout", "The model provider did not answer in time.", type=ErrorType.TIMEOUT
)


def model_not_found(model: str) -> ApiError:
    """No such model, or none that this organisation can see."""
    return ApiError(404, "model_not_found", f"The model '{model}' does not exist.", param="model")


def model_not_allowed(model: str) -> ApiError:
    """The organisation can see the model, but this key may not use it."""
    return ApiError(403, "model_not_allowed", f"This API key may not use the model '{model}'.", param="model")


_BUDGETS: Final[Mapping[Budget, str]] = {
    Budget.KEY_PER_DAY: "the daily budget of this API key",
    Budget.KEY_PER_MONTH: "the monthly budget of this API key",
    Budget.PROJECT_PER_DAY: "the daily budget of this API key's project",
    Budget.PROJECT_PER_MONTH: "the monthly budget of this API key's project",
}


def budget_exceeded(exhausted: Exhausted) -> ApiError:
    """A limit that the organisation has set itself, whatever there is in its balance."""
    return ApiError(
        402,
        "budget_exceeded",
        f"What is left of {_BUDGETS[exhausted.budget]} does not cover even a short answer. "
        f"It renews at {exhausted.renewal}. Raise it, shorten the request, or lower max_tokens.",
        type=ErrorType.INSUFFICIENT_QUOTA,
        is_final=True,
    )


_LIMITED: Final[Mapping[Scope, str]] = {
    Scope.KEY: "This API key",
    Scope.PROJECT: "The project of this API key",
    Scope.ORGANIZATION: "Your organization",
    Scope.MODEL: "This model",
}


def requests_per_minute_exceeded(scope: Scope, limit: int, retry_after_s: int) -> ApiError:
    """As many requests have begun in the last minute as may."""
    return _rate_limit_exceeded(scope, f"{limit} requests per minute", ErrorType.REQUESTS, retry_after_s)


def tokens_per_minute_exceeded(scope: Scope, limit: int, retry_after_s: int) -> ApiError:
    """What the requests of the last minute use, and this one would, is more than they may."""
    return _rate_limit_exceeded(scope, f"{limit} tokens per minute", ErrorType.TOKENS, retry_after_s)


def concurrency_exceeded(scope: Scope, limit: int, retry_after_s: int) -> ApiError:
    """As many requests are running as may."""
    return _rate_limit_exceeded(scope, f"{limit} requests at once", ErrorType.REQUESTS, retry_after_s)


def _rate_limit_exceeded(scope: Scope, limit: str, of: ErrorType, retry_after_s: int) -> ApiError:
    return ApiError(
        429,
        "rate_limit_exceeded",
        f"{_LIMITED[scope]} is limited to {limit}. Try again in {retry_after_s} s.",
        type=of,
        retry_after_s=retry_after_s,
    )


def budget_held(held: AllHeld) -> ApiError:
    """A budget that is not spent, and that running requests have set aside for what they may cost."""
    return ApiError(
        429,
        "budget_held",
        f"Running requests hold what is left of {_BUDGETS[held.budget]} for what they may cost. Try again when one has ended.",
        type=ErrorType.REQUESTS,
        retry_after_s=1,
    )


def service_tier_not_offered(model: str) -> ApiError:
    """Nobody has priced the tier for every provider that may serve the model, so nobody could be charged for it."""
    message = f"The model '{model}' is not offered at this service tier."
    return ApiError(400, "service_tier_not_offered", message, param="service_tier")


def feature_not_offered(model: str, feature: str) -> ApiError:
    """Nobody has priced what the request asks for at every provider that may serve it, so nobody could be charged for it."""
    return ApiError(400, "feature_not_offered", f"The model '{model}' is not offered with {feature}.")


def stream_required(model: str) -> ApiError:
    """Its price is by tokens, and the provider counts them aloud in streams only."""
    message = f'The model \'{model}\' is offered here as a stream of events only: send "stream_format": "sse".'
    return ApiError(400, "stream_required", message, param="stream_format")


def endpoint_not_priced(model: str) -> ApiError:
    """It is served there, but nobody has priced what the endpoint counts."""
    return ApiError(400, "endpoint_not_priced", f"The model '{model}' has no price on this endpoint.", param="model")


def nothing_kept(model: str) -> ApiError:
    """It is not sold with anything kept: its operator has not said so, or none of its providers keeps anything."""
    message = f"The model '{model}' is offered without anything kept at its provider. Send the whole conversation, and leave out 'store'."
    return ApiError(400, "stored_state_not_offered", message)


def no_such(name: KeptName) -> ApiError:
    """Not this organisation's, whether it is somebody's or not."""
    return ApiError(404, "not_found", f"There is no {name.kind} '{name.object_id}'.")


def files_exceeded(count: int, total_bytes: int) -> ApiError:
    """An organisation keeps as much at providers as it may."""
    return ApiError(
        403,
        "file_quota_exceeded",
        f"Your organisation may keep {count:,} files, and {total_bytes:,} bytes in them together. Delete some that it needs no longer.",
    )


BATCHES_BUSY: Final = ApiError(
    429,
    "rate_limit_exceeded",
    "Other batches are being read at this moment. Try again shortly.",
    type=ErrorType.REQUESTS,
    retry_after_s=5,
)
BATCHES_MAX_OPEN: Final = ApiError(
    429,
    "rate_limit_exceeded",
    "Your organisation has as many batches under way as it may. Wait until one is over, or cancel one.",
    type=ErrorType.REQUESTS,
    is_final=True,
)
INPUT_UNREADABLE: Final = ApiError(
    503, "provider_unavailable", "The provider that keeps the file could not be asked for it.", type=ErrorType.SERVER
)
BATCH_NOT_BEGUN: Final = ApiError(
    502, "batch_not_begun", "The provider has not begun the batch. Nothing is held for it.", type=ErrorType.SERVER
)
BATCH_UNKNOWN: Final = ApiError(
    503,
    "batch_unknown",
    "Whether the provider has begun the batch is not known yet. Look for it in the list before you try again.",
    type=ErrorType.SERVER,
    is_final=True,
)
NOT_TO_BE_CANCELLED: Final = ApiError(
    409, "batch_not_cancelled", "The batch is over, or has not been begun yet: there is nothing to cancel."
)


def invalid_batch(message: str) -> ApiError:
    """An input that is none."""
    return ApiError(400, "invalid_batch", message, param="input_file_id")


def invalid_batch_line(number: int, error: ApiError) -> ApiError:
    """What is wrong with one line, counted from 1."""
    field = f" ({error.param})" if error.param else ""
    return ApiError(400, error.code, f"Line {number}{field}: {error.message}"[:500], param="input_file_id")


def kept_elsewhere(model: str) -> ApiError:
    """The one provider that it could be asked at does not serve the model."""
    message = f"What the request names is kept at a provider that does not serve the model '{model}'."
    return ApiError(400, "kept_elsewhere", message, param="model")


def provider_not_offered(names: Iterable[str]) -> ApiError:
    """Where a file goes is the client's to say, where there is more than one place."""
    message = "Say in the header 'x-tollgate-provider' which provider is to keep this: one of {}."
    return ApiError(400, "provider_not_offered", message.format(", ".join(names)))


NO_KEEPER: Final = ApiError(400, "provider_not_offered", "No provider that you may use keeps files.")


def endpoint_not_supported(model: str, paths: Iterable[str]) -> ApiError:
    """The model is served on other paths than the one asked. Endpoints that share a path are one of them."""
    message = f"The model '{model}' is not served here; it is served on {', '.join(dict.fromkeys(paths))}."
    return ApiError(400, "endpoint_not_supported", message, param="model")
