"""The cookie of the console: a secret for whoever has shown a session or a machine token, good until that is over or twelve hours have passed."""

from datetime import timedelta
from typing import Final

from aiohttp import web

from control_plane.accounts.postgres_console_sessions import (
    end_console_session,
    find_console_session,
    open_console_session,
)
from control_plane.accounts.postgres_sessions import Session
from control_plane.accounts.throttle import LOGIN_PER_SOURCE
from control_plane.api.authentication import Credential
from control_plane.api.context import Services
from control_plane.api.dispatch import address_of
from control_plane.api.mailed_tokens import new_secret
from control_plane.console.visitor import VISITOR, Visitor
from control_plane.errors import UnauthenticatedError
from gateway_core.api_keys import hash_key, is_well_formed

PATH: Final = "/console"
COOKIE: Final = "tollgate_console"
LIFETIME: Final = timedelta(hours=12)
_COOKIE_CHARACTERS_MAX: Final = 100


async def visitor_of(request: web.Request, services: Services) -> Visitor:
    """Who looks: whoever the cookie says, if it is good and what it was opened with is not over."""
    address = address_of(request, services)
    cookie = request.cookies.get(COOKIE, "")
    if not 0 < len(cookie) <= _COOKIE_CHARACTERS_MAX:
        return Visitor(services, address)
    cookie_hash = hash_key(cookie, services.pepper)
    credential = await find_console_session(services.pool, cookie_hash, services.now())
    if credential is None:
        return Visitor(services, address)
    try:
        actor = await services.authenticator.actor(credential, services.pool)
    except UnauthenticatedError:
        return Visitor(services, address)
    return Visitor(services, address, cookie_hash, credential, actor)


async def credential_of_token(visitor: Visitor, token: str) -> Credential:
    """What a machine token is looked up by.

    Raises:
        UnauthenticatedError: it is none, or none that is good.
        ThrottledError: too many have been tried from there.
    """
    await visitor.services.throttle.attempt(LOGIN_PER_SOURCE, visitor.address)
    if not is_well_formed(token):
        raise UnauthenticatedError("The token is not valid.")
    credential = hash_key(token, visitor.services.pepper)
    await visitor.services.authenticator.actor(credential, visitor.services.pool)
    return credential


async def credential_of_log_in(visitor: Visitor, access_token: str) -> Credential:
    """What the session that a log-in has begun is looked up by."""
    claims = await visitor.services.access_tokens.check(access_token)
    if claims is None:
        raise UnauthenticatedError
    return Session(claims.session_id, claims.user_id)


async def sign_in(request: web.Request, credential: Credential, response: web.Response) -> None:
    """Give the browser its cookie, in the place of any that it has."""
    visitor = request[VISITOR]
    services = visitor.services
    if visitor.cookie_hash is not None:
        await end_console_session(services.pool, visitor.cookie_hash)
    secret, cookie_hash = new_secret(services)
    await open_console_session(services.pool, cookie_hash, credential, services.now() + LIFETIME)
    set_cookie(services, response, COOKIE, secret, max_age_s=int(LIFETIME.total_seconds()))


def set_cookie(services: Services, response: web.Response, name: str, value: str, *, max_age_s: int) -> None:
    """A cookie for the console alone, which no script reads."""
    response.set_cookie(
        name,
        value,
        path=PATH,
        max_age=max_age_s,
        httponly=True,
        samesite="Lax",
        secure=services.public_url.startswith("https:"),
    )


async def sign_out(visitor: Visitor, response: web.Response) -> None:
    """End it here, in the browser and, of a user, at the API."""
    if visitor.cookie_hash is not None:
        await end_console_session(visitor.services.pool, visitor.cookie_hash)
    if visitor.is_user:
        await visitor.ask("logout")
    response.del_cookie(COOKIE, path=PATH)
