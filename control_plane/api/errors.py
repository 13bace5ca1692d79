"""Errors as answers: OpenAI's shape under `/v1`, RFC 9457 under `/api/v1`. One middleware, and a request id on every answer."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from control_plane.api.operation import PREFIX
from control_plane.api.problems import INTERNAL as INTERNAL_PROBLEM
from control_plane.api.problems import problem_of, render_problem
from control_plane.errors import ApiRefusedError, NoTestModeError, UnauthenticatedError, UnknownModelError
from gateway_core.contract import Header
from gateway_core.errors import (
    DATABASE_UNAVAILABLE,
    INTERNAL,
    INVALID_API_KEY,
    NOT_FOUND,
    TEST_MODE_UNAVAILABLE,
    ApiError,
    model_not_found,
)
from gateway_core.ids import RandomBytes, RequestId, new_id
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble

REQUEST_ID: Final = web.RequestKey("request_id", str)

ERROR_BY_TYPE: Final[Mapping[type[Exception], ApiError]] = {
    UnauthenticatedError: INVALID_API_KEY,
    NoTestModeError: TEST_MODE_UNAVAILABLE,
    web.HTTPNotFound: NOT_FOUND,
    web.HTTPMethodNotAllowed: NOT_FOUND,
    **dict.fromkeys(Trouble, DATABASE_UNAVAILABLE),
}
"""Under `/v1`, and everywhere else but under `/api/v1`."""


def render_error(error: ApiError) -> web.Response:
    """The answer for an error in OpenAI's shape."""
    return web.Response(status=error.status, text=error.body(), content_type="application/json")


def error_middleware(log: Logger, random_bytes: RandomBytes) -> Middleware:
    """Turns exceptions into answers; what is in no list is logged and answered as internal."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(PREFIX + "/"):
            return await _openai(request, handler, log)
        request_id = RequestId(new_id("req", random_bytes))
        request[REQUEST_ID] = request_id
        response = await _problem(request, handler, request_id, log)
        response.headers[Header.REQUEST_ID] = request_id
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return middleware


async def _openai(request: web.Request, handler: Handler, log: Logger) -> web.StreamResponse:
    try:
        return await handler(request)
    except UnknownModelError as error:
        return render_error(model_not_found(error.model))
    except ApiRefusedError as refused:
        return render_error(refused.error)
    except Exception as error:  # the outermost edge: every exception becomes an answer
        for kind, answer in ERROR_BY_TYPE.items():
            if isinstance(error, kind):
                return render_error(answer)
        log.exception("request_failed", method=request.method, path=request.path)
        return render_error(INTERNAL)


async def _problem(request: web.Request, handler: Handler, request_id: RequestId, log: Logger) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:  # the outermost edge: every exception becomes an answer
        problem = problem_of(error)
        if problem is None:
            log.exception("request_failed", method=request.method, path=request.path, request_id=request_id)
            problem = INTERNAL_PROBLEM
        return render_problem(problem, error, request_id)
