"""Refusals of `/api/v1` as `application/problem+json` (RFC 9457): one table from error to status."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import asyncpg
from aiohttp import web

from control_plane import errors
from gateway_core.ids import RequestId

CONTENT_TYPE: Final = "application/problem+json"

FAULTS_MAX: Final = 100
"""Fields that an answer names; of the others it tells how many they are."""
POINTER_CHARACTERS_MAX: Final = 1000
"""A pointer quotes the names of fields, which the caller may have made as long as a body. No field of ours is as deep."""

RETRY_AFTER_S: Final = 2
"""A database that starts again, or the standby that takes over, needs about as long."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind of refusal: its status, its stable code, and what people read."""

    status: int
    code: str
    title: str


INTERNAL: Final = Problem(500, "internal_error", "Something went wrong on our side")
_UNAVAILABLE: Final = Problem(503, "database_unavailable", "The database cannot be reached")
_NOT_FOUND: Final = Problem(404, "not_found", "Not found")

PROBLEM_BY_ERROR: Final[Mapping[type[Exception], Problem]] = {
    errors.MalformedBodyError: Problem(400, "malformed_body", "The body cannot be read"),
    errors.UnauthenticatedError: Problem(401, "unauthenticated", "Who is calling is not known"),
    errors.StolenSessionError: Problem(401, "session_revoked", "The session is over"),
    errors.ForbiddenError: Problem(403, "forbidden", "Not allowed"),
    errors.NotFoundError: _NOT_FOUND,
    errors.BodyTooSlowError: Problem(408, "body_too_slow", "The body did not come in time"),
    errors.ConflictError: Problem(409, "conflict", "It contradicts what is there"),
    errors.ClosedOrganizationError: Problem(409, "organization_closed", "The organisation is closed"),
    errors.InsufficientBalanceError: Problem(409, "insufficient_balance", "The balance does not cover it"),
    errors.NoTestModeError: Problem(409, "test_mode_unavailable", "There are no test keys here"),
    errors.NoPaymentsError: Problem(409, "payments_not_configured", "There are no payments here"),
    errors.VoucherRefusedError: Problem(409, "voucher_refused", "The voucher gives nothing"),
    errors.StaleRevisionError: Problem(412, "stale_revision", "It has changed meanwhile"),
    errors.UnsupportedMediaTypeError: Problem(415, "unsupported_media_type", "The body must be JSON"),
    errors.InvalidFieldsError: Problem(422, "invalid_fields", "Some fields are not valid"),
    errors.IdempotencyMismatchError: Problem(422, "idempotency_mismatch", "The key belongs to another request"),
    errors.RevisionRequiredError: Problem(428, "revision_required", "If-Match is required"),
    errors.ThrottledError: Problem(429, "throttled", "Too many attempts"),
    errors.IssuerUnavailableError: Problem(503, "issuer_unavailable", "The issuer cannot be reached"),
    errors.AnalyticsUnavailableError: Problem(503, "analytics_unavailable", "The analytics cannot be reached"),
    errors.CachedAnswersUnavailableError: Problem(503, "cache_unavailable", "Kept answers cannot be reached"),
    errors.GatewayUnavailableError: Problem(503, "gateway_unavailable", "The gateway cannot be reached"),
    errors.PaymentsUnavailableError: Problem(503, "payments_unavailable", "The payment provider cannot be reached"),
    web.HTTPRequestEntityTooLarge: Problem(413, "body_too_large", "The body is too large"),
    web.HTTPMethodNotAllowed: Problem(405, "method_not_allowed", "This path has other methods"),
    web.HTTPNotFound: _NOT_FOUND,
    web.HTTPClientError: Problem(400, "bad_request", "The request cannot be read"),
    # A race two callers had between our look and our write.
    asyncpg.IntegrityConstraintViolationError: Problem(409, "conflict", "It contradicts what is there"),
    asyncpg.TransactionRollbackError: _UNAVAILABLE,
    asyncpg.PostgresConnectionError: _UNAVAILABLE,
    asyncpg.OperatorInterventionError: _UNAVAILABLE,
    asyncpg.InsufficientResourcesError: _UNAVAILABLE,
    asyncpg.InterfaceError: _UNAVAILABLE,
    # A connection that is cut while it is handed out.
    asyncpg.InternalClientError: _UNAVAILABLE,
    OSError: _UNAVAILABLE,
    TimeoutError: _UNAVAILABLE,
}
"""The first that fits counts. What is not here is ours to mend: logged, and answered as internal."""


def problem_of(error: Exception) -> Problem | None:
    """The kind of refusal an exception is, or None if it is a fault."""
    return next((problem for kind, problem in PROBLEM_BY_ERROR.items() if isinstance(error, kind)), None)


def render_problem(problem: Problem, error: Exception, request_id: RequestId) -> web.Response:
    """The answer for a refusal. Only our own refusals say more than their kind."""
    document: dict[str, object] = {
        "type": f"urn:tollgate:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "code": problem.code,
        "request_id": request_id,
    }
    headers = {}
    if isinstance(error, errors.RefusedError):
        document["detail"] = error.detail
        if error.fields:
            document["errors"] = [
                {"pointer": field.pointer[:POINTER_CHARACTERS_MAX], "detail": field.detail}
                for field in error.fields[:FAULTS_MAX]
            ]
        if len(error.fields) > FAULTS_MAX:
            document["errors_left_out"] = len(error.fields) - FAULTS_MAX
    if isinstance(error, errors.ThrottledError):
        headers["Retry-After"] = str(error.retry_after_s)
    if problem.status == 503:  # noqa: PLR2004 - what is away comes back
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(error, web.HTTPMethodNotAllowed):
        headers["Allow"] = ", ".join(sorted(error.allowed_methods))
    if problem.status == 401:  # noqa: PLR2004 - the status that needs it
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(status=problem.status, text=json.dumps(document), content_type=CONTENT_TYPE, headers=headers)
