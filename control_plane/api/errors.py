"""Errors as answers: one table and one middleware, in OpenAI's shape."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway_core.errors import DATABASE_UNAVAILABLE, INTERNAL, INVALID_API_KEY, NOT_FOUND, ApiError
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble


class UnauthenticatedError(Exception):
    """No credential, or none that is valid."""


ERROR_BY_TYPE: Final[Mapping[type[Exception], ApiError]] = {
    UnauthenticatedError: INVALID_API_KEY,
    web.HTTPNotFound: NOT_FOUND,
    web.HTTPMethodNotAllowed: NOT_FOUND,
    **dict.fromkeys(Trouble, DATABASE_UNAVAILABLE),
}


def render_error(error: ApiError) -> web.Response:
    """The answer for an error."""
    return web.Response(status=error.status, text=error.body(), content_type="application/json")


def error_middleware(log: Logger) -> Middleware:
    """Turns exceptions into answers; what is in no list is logged and answered as internal."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:  # the outermost edge: every exception becomes an answer
            for kind, answer in ERROR_BY_TYPE.items():
                if isinstance(error, kind):
                    return render_error(answer)
            log.exception("request_failed", method=request.method, path=request.path)
            return render_error(INTERNAL)

    return middleware
