"""Forms that change something: read, done once, and shown again with what is wrong where the API refuses.

Every page gives its forms an id of its own. The same form sent again with the same in it, by a double click or a way back, is the same
attempt, and gets the same answer; a page that is loaded anew begins another one.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import wraps
from hashlib import sha256
from typing import Final, Protocol

from aiohttp import web

from control_plane.api.context import SERVICES
from control_plane.api.reading import read_raw_body
from control_plane.console.forms import Form, parse_form
from control_plane.console.rendering import status_of
from control_plane.console.visitor import VISITOR
from control_plane.errors import RefusedError

FORM_BYTES_MAX: Final = 256 * 1024

Change = Callable[[web.Request, Form], Awaitable[web.Response]]
Handler = Callable[[web.Request], Awaitable[web.Response]]


class Show(Protocol):
    """Makes the page that a form is on."""

    async def __call__(self, request: web.Request, *, form: Form, refused: RefusedError | None) -> web.Response:
        """The page, with what was written into the form and why that was refused."""


def change_on(show: Show) -> Callable[[Change], Handler]:
    """A change that somebody asks for on a page. Refused, the page is shown again; if even that is refused, that is what is told."""

    def decorate(change: Change) -> Handler:
        @wraps(change)
        async def handle(request: web.Request) -> web.Response:
            within_s = request.app[SERVICES].body_s
            raw = await read_raw_body(request, bytes_max=FORM_BYTES_MAX, within_s=within_s)
            form = dict(parse_form(raw))
            if form.pop("form_id", ""):
                request[VISITOR] = replace(request[VISITOR], attempt=sha256(raw).hexdigest())
            try:
                return await change(request, form)
            except RefusedError as refused:
                response = await show(request, form=form, refused=refused)
                response.set_status(status_of(refused))
                return response

        return handle

    return decorate


def to(path: str) -> web.Response:
    """Where the browser goes on after a change; loading that again changes nothing again."""
    return web.Response(status=303, headers={"Location": path})
