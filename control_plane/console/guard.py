"""What holds for every page: who looks is found out, a change comes from a page of ours, a refusal is a page, and no page lets in what is not ours."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from control_plane.api.context import SERVICES
from control_plane.api.problems import problem_of
from control_plane.console.rendering import refusal
from control_plane.console.sessions import PATH, visitor_of
from control_plane.console.visitor import VISITOR, Visitor
from control_plane.errors import ForbiddenError, UnauthenticatedError

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SIGN_IN: Final = f"{PATH}/sign-in"
STATIC: Final = f"{PATH}/static/"
_READS: Final = {"GET", "HEAD"}
_FROM_US: Final = {"same-origin", "none"}
"""`none`: the person at the browser did it, and no page."""


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Put what holds for every page on an answer; nothing is kept that does not say otherwise."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


def guard() -> Middleware:
    """The middleware around every page."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(STATIC):
            return await handler(request)
        services = request.app[SERVICES]
        # Whatever fails below is told to somebody, even if it is who they are that could not be found out.
        request[VISITOR] = Visitor(services, "unknown")
        try:
            request[VISITOR] = await visitor_of(request, services)
            _refuse_others(request)
            return await handler(request)
        except web.HTTPRedirection as redirection:
            return redirection
        except UnauthenticatedError as error:
            if request[VISITOR].actor is not None or request.path == SIGN_IN:
                return refusal(request, error)
            return _to_sign_in(request)
        except Exception as error:  # the outermost edge: every exception becomes a page
            if problem_of(error) is None:
                services.log.exception("page_failed", method=request.method, path=request.path)
            return refusal(request, error)

    return middleware


def _refuse_others(request: web.Request) -> None:
    if request.method not in _READS and not comes_from_us(request.headers, request.host):
        raise ForbiddenError("This did not come from a page of the console.")


def comes_from_us(headers: Mapping[str, str], host: str) -> bool:
    """Whether a request that changes something comes from a page of this server, by the word of the browser.

    `Sec-Fetch-Site` is sent to https and to this machine only; elsewhere `Origin` says where the page is from.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in _FROM_US
    origin = headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc == host


def _to_sign_in(request: web.Request) -> web.Response:
    if "HX-Request" in request.headers:
        # A part of a page that asks by itself: the whole page has to go.
        return web.Response(status=401, headers={"HX-Redirect": SIGN_IN})
    after = f"?next={quote(request.path_qs, safe='')}" if request.method == "GET" else ""
    return web.Response(status=303, headers={"Location": SIGN_IN + after})
