"""Signing in, up and out: with a password, at an issuer, or with a machine token, as the operator of a local stack has one."""

from typing import Final

from aiohttp import web

from control_plane.console import sessions
from control_plane.console.changes import change_on, to
from control_plane.console.forms import Form, text
from control_plane.console.guard import SIGN_IN
from control_plane.console.rendering import page
from control_plane.console.sessions import PATH
from control_plane.console.visitor import VISITOR
from control_plane.errors import RefusedError, UnauthenticatedError

HOME: Final = f"{PATH}/"
REGISTER: Final = f"{PATH}/register"

_LOG_IN_COOKIE: Final = "tollgate_log_in"
_LOG_IN_S: Final = 600
"""How long a log-in at an issuer may take, as long as the API keeps it."""


async def show_sign_in(
    request: web.Request, *, form: Form | None = None, refused: RefusedError | None = None
) -> web.Response:
    """GET /sign-in."""
    issuers = (await request[VISITOR].ask("list_issuers"))["data"]
    after = after_sign_in((form or request.query).get("next", ""))
    return page(request, "sign_in.html", form=form, refused=refused, issuers=issuers, after=after)


@change_on(show_sign_in)
async def sign_in(request: web.Request, form: Form) -> web.Response:
    """POST /sign-in: with a token if there is one, else with address and password."""
    visitor = request[VISITOR]
    token = text(form, "token")
    if token is not None:
        credential = await sessions.credential_of_token(visitor, token)
    else:
        tokens = await visitor.ask("login", body={"email": form.get("email", ""), "password": form.get("password", "")})
        credential = await sessions.credential_of_log_in(visitor, tokens["access_token"])
    response = to(after_sign_in(form.get("next", "")))
    await sessions.sign_in(request, credential, response)
    return response


async def begin_at_issuer(request: web.Request) -> web.Response:
    """GET /sign-in/at/{issuer}: on to the issuer, which sends the browser back to the page it came from."""
    visitor = request[VISITOR]
    begun = await visitor.ask("begin_log_in", body={"issuer": request.match_info["issuer"], "return_to": SIGN_IN})
    response = to(begun["authorization_url"])
    sessions.set_cookie(visitor.services, response, _LOG_IN_COOKIE, begun["log_in_secret"], max_age_s=_LOG_IN_S)
    return response


@change_on(show_sign_in)
async def end_at_issuer(request: web.Request, form: Form) -> web.Response:
    """POST /sign-in/back: with what the issuer has sent the browser back with."""
    visitor = request[VISITOR]
    secret = request.cookies.get(_LOG_IN_COOKIE)
    if secret is None:
        raise UnauthenticatedError("This log-in was not begun here. Begin again.")
    tokens = await visitor.ask(
        "exchange_code",
        body={"log_in_secret": secret, "state": form.get("state", ""), "code": form.get("code", "")},
    )
    response = to(HOME)
    response.del_cookie(_LOG_IN_COOKIE, path=PATH)
    credential = await sessions.credential_of_log_in(visitor, tokens["access_token"])
    await sessions.sign_in(request, credential, response)
    return response


async def show_register(
    request: web.Request, *, form: Form | None = None, refused: RefusedError | None = None
) -> web.Response:
    """GET /register."""
    return page(request, "register.html", form=form, refused=refused)


@change_on(show_register)
async def register(request: web.Request, form: Form) -> web.Response:
    """POST /register: a user with an organisation of their own, who is signed in at once if that needs no verified address."""
    visitor = request[VISITOR]
    who = {"email": form.get("email", ""), "password": form.get("password", "")}
    await visitor.ask("register", body={**who, "organization": form.get("organization", "")})
    if visitor.services.require_verified_email:
        return page(request, "registered.html", email=who["email"])
    tokens = await visitor.ask("login", body=who)
    response = to(HOME)
    await sessions.sign_in(request, await sessions.credential_of_log_in(visitor, tokens["access_token"]), response)
    return response


async def sign_out(request: web.Request) -> web.Response:
    """POST /sign-out."""
    response = to(SIGN_IN)
    await sessions.sign_out(request[VISITOR], response)
    return response


def after_sign_in(path: str) -> str:
    """Where a browser goes after signing in: to a page of the console and nowhere else."""
    is_ours = path.startswith(HOME) and "//" not in path and "\\" not in path and path.isprintable()
    return path if is_ours and not path.startswith(SIGN_IN) else HOME
