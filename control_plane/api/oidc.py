"""`/auth/oidc`: log in with an account at an OpenID Connect issuer, by authorization code with PKCE.

Whoever begins gets a secret and keeps it. The browser goes to the issuer and comes back with a state and a code, which are
worth nothing without that secret: it is looked up with the state, and the PKCE verifier and the nonce are derived from it.
"""

from base64 import urlsafe_b64encode
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated, ClassVar, Final
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from control_plane.accounts import postgres_identities, postgres_sessions, postgres_users, throttle
from control_plane.accounts.actor import Actor, ActorKind
from control_plane.accounts.model import User
from control_plane.accounts.permissions import Open
from control_plane.accounts.postgres_identities import LogIn
from control_plane.api import sign_in_page
from control_plane.api.auth import TAG, Tokens, issue_tokens, open_session
from control_plane.api.context import Services
from control_plane.api.mailed_tokens import new_secret
from control_plane.api.operation import PREFIX, Audit, Call, Redirect, found, operation
from control_plane.circumstances import Circumstances, judged
from control_plane.errors import ConflictError, ForbiddenError, InvalidField, InvalidFieldsError, UnauthenticatedError
from control_plane.fields import SECRET, SHOWN_ONCE, Body
from control_plane.oidc.admission import Link, SignUp, TakeOver, admit
from control_plane.oidc.id_token import Identity
from control_plane.oidc.issuer_client import Challenge, Code, IssuerClient
from control_plane.oidc.issuers import IssuerSettings
from control_plane.resource import Resource
from gateway_core.api_keys import hash_key
from gateway_core.ids import new_id

LOG_IN_LIFETIME: Final = timedelta(minutes=10)

LocalPath = Annotated[
    str,
    StringConstraints(pattern=r"^/([A-Za-z0-9_-][A-Za-z0-9._~-]*/)*([A-Za-z0-9_-][A-Za-z0-9._~-]*)?$", max_length=200),
    Field(description="A path of this server, such as /console/."),
]
"""Joined to our own URL and nothing else; no `//host`, no `..`, no query."""
Opaque = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{1,2500}$")]
"""What the issuer made: visible ASCII (RFC 6749, appendix A), and no more of it than a URL holds."""
Secret = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""What we made."""


class IssuerName(Resource):
    """An issuer to log in at."""

    name: str
    issuer: str = Field(description="Its URL.")


class IssuerNames(Resource):
    """The issuers to log in at."""

    data: list[IssuerName]


def _known(issuer: str, circumstances: Circumstances) -> None:
    if issuer not in circumstances.issuers:
        raise ValueError("not an issuer of this installation")


class LogInRequest(Body):
    """Where to log in."""

    issuer: Annotated[str, judged(_known)] = Field(min_length=1, max_length=40, description="The issuer's name.")
    return_to: LocalPath = Field(
        default=sign_in_page.PAGE.path,
        description="Where on this server the browser ends up, with `code` and `state`, or `error`, in the fragment. "
        "Without it: at a page that shows what to paste into the program that began.",
    )


class LogInBegun(Resource):
    """A log-in under way."""

    authorization_url: str = Field(description="Open it in a browser.")
    log_in_secret: str = Field(
        description="Keep it for the exchange, and show it to nobody: not to the browser either.",
        json_schema_extra=SHOWN_ONCE,
    )
    expires_at: datetime


class AuthorizationAnswer(BaseModel):
    """What the issuer sends the browser back with (RFC 6749, section 4.1.2; RFC 9207). Issuers add what they like."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", frozen=True)

    state: Secret
    code: Opaque | None = None
    error: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")] | None = None
    iss: Opaque | None = None


class CodeExchange(Body):
    """What came back to the browser, and the secret of whoever began."""

    log_in_secret: Annotated[Secret, Field(json_schema_extra=SECRET)]
    state: Secret
    code: Annotated[Opaque, Field(json_schema_extra=SECRET)]


@operation("GET", "/auth/oidc/issuers", tag=TAG, access=Open.ANYONE)
async def list_issuers(call: Call) -> IssuerNames:
    """The issuers one can log in at."""
    issuers = [client.settings for client in call.services.issuers.values()]
    return IssuerNames(data=[IssuerName(name=each.name, issuer=each.issuer) for each in issuers])


@operation(
    "POST",
    "/auth/oidc/log-ins",
    tag=TAG,
    access=Open.ANYONE,
    status=201,
    in_transaction=False,
    audit=Audit.NONE,
)
async def begin_log_in(call: Call, body: LogInRequest) -> LogInBegun:
    """Begin a log-in at an issuer. It is good for ten minutes and one use."""
    services = call.services
    issuer = services.issuers[body.issuer]
    await services.throttle.attempt(throttle.OIDC_PER_SOURCE, call.actor.actor_id)
    secret, secret_hash = new_secret(services)
    state, state_hash = new_secret(services)
    challenge = Challenge(
        redirect_uri=_redirect_uri(services, issuer.settings),
        state=state,
        nonce=_derived(services, secret, "nonce"),
        code_challenge=_base64url(sha256(_derived(services, secret, "verifier").encode()).digest()),
    )
    authorization_url = await issuer.authorization_url(challenge)
    expires_at = services.now() + LOG_IN_LIFETIME
    await postgres_identities.begin_log_in(
        call.db,
        state_hash=state_hash,
        secret_hash=secret_hash,
        log_in=LogIn(body.issuer, body.return_to),
        expires_at=expires_at,
    )
    return LogInBegun(authorization_url=authorization_url, log_in_secret=secret, expires_at=expires_at)


@operation("GET", "/auth/oidc/callback/{issuer}", tag=TAG, access=Open.ANYONE, status=303)
async def come_back(call: Call, query: AuthorizationAnswer) -> Redirect:
    """Where the issuer sends the browser. It goes on to where the log-in was begun, which exchanges the code."""
    services = call.services
    log_in = await postgres_identities.find_log_in(call.db, hash_key(query.state, services.pepper), services.now())
    issuer = None if log_in is None else services.issuers.get(log_in.issuer)
    # Each issuer has a redirect URI of its own, so that none gets a code of another one (RFC 9700, section 4.4).
    if log_in is None or issuer is None or issuer.settings.name != call.param("issuer"):
        raise InvalidFieldsError(InvalidField("?state", "unknown, used or too old; begin the log-in again"))
    if query.iss is not None and query.iss != issuer.settings.issuer:
        raise InvalidFieldsError(InvalidField("?iss", "another issuer than the one the log-in was begun at"))
    if (query.code is None) == (query.error is None):
        raise InvalidFieldsError(InvalidField("?code", "there must be a code, or an error in its place"))
    answer = {"error": query.error} if query.code is None else {"code": query.code}
    fragment = urlencode({**answer, "state": query.state})
    return Redirect(location=f"{services.public_url}{log_in.return_to}#{fragment}")


@operation("POST", "/auth/oidc/tokens", tag=TAG, access=Open.ANYONE, in_transaction=False, audit=Audit.BY_ITSELF)
async def exchange_code(call: Call, body: CodeExchange) -> Tokens:
    """Log in with what the issuer sent the browser back with, and the secret from the beginning."""
    services = call.services
    await services.throttle.attempt(throttle.OIDC_PER_SOURCE, call.actor.actor_id)
    # Used from here on, whatever comes of it.
    log_in = await postgres_identities.use_log_in(
        call.db,
        state_hash=hash_key(body.state, services.pepper),
        secret_hash=hash_key(body.log_in_secret, services.pepper),
        now=services.now(),
    )
    issuer = None if log_in is None else services.issuers.get(log_in.issuer)
    if issuer is None:
        raise UnauthenticatedError("The log-in is unknown, used, too old, or was begun elsewhere. Begin again.")
    identity = await _identify(services, issuer, body)
    async with services.pool.acquire() as connection, connection.transaction():
        call.db = connection
        user_id = await _admitted(call, identity, issuer.settings)
        session, refresh_token = await open_session(call, user_id)
    return await issue_tokens(call, session, refresh_token)


async def _identify(services: Services, issuer: IssuerClient, body: CodeExchange) -> Identity:
    return await issuer.identify(
        Code(
            code=body.code,
            redirect_uri=_redirect_uri(services, issuer.settings),
            code_verifier=_derived(services, body.log_in_secret, "verifier"),
            nonce=_derived(services, body.log_in_secret, "nonce"),
        )
    )


async def _admitted(call: Call, identity: Identity, issuer: IssuerSettings) -> str:
    """The id of the user whom an identity logs in as, from now on at the latest."""
    known_id = await postgres_identities.find_user_id(call.db, identity.issuer, identity.subject)
    if known_id is not None:
        if await postgres_users.find_user(call.db, known_id) is None:
            raise ForbiddenError("This account cannot log in.")
        return known_id
    same_address = None
    if identity.email is not None:
        same_address = await postgres_users.find_user_by_email(call.db, identity.email, lock=True)
    user = await _user(call, admit(identity, issuer, same_address), identity.name)
    linked = await postgres_identities.link_identity(
        call.db, issuer=identity.issuer, subject=identity.subject, user_id=user.id, email=identity.email or user.email
    )
    await call.audit("user.link_identity", user.id, after=linked, actor=Actor(ActorKind.USER, user.id))
    return user.id


async def _user(call: Call, way: SignUp | Link | TakeOver, name: str) -> User:
    match way:
        case SignUp(email):
            return await _sign_up(call, email, name)
        case TakeOver(user):
            return await _take_over(call, user)
        case Link(user):
            return user


async def _sign_up(call: Call, email: str, name: str) -> User:
    user = await postgres_users.add_user(
        call.db,
        user_id=new_id("usr", call.services.random_bytes),
        email=email,
        name=name,
        password_hash=None,
        verified_at=call.services.now(),
    )
    if user is None:
        raise ConflictError("This e-mail address has an account that cannot log in, or that was made just now.")
    await call.audit("user.register", user.id, after=user, actor=Actor(ActorKind.USER, user.id))
    return user


async def _take_over(call: Call, user: User) -> User:
    now = call.services.now()
    await postgres_sessions.end_sessions_of(call.db, user.id)
    await postgres_users.void_credentials(call.db, user.id, now)
    await postgres_users.verify_email(call.db, user.id, now)
    after = found(await postgres_users.find_user(call.db, user.id))
    await call.audit("user.take_over", user.id, before=user, after=after, actor=Actor(ActorKind.USER, user.id))
    return after


def _redirect_uri(services: Services, issuer: IssuerSettings) -> str:
    return f"{services.public_url}{PREFIX}/auth/oidc/callback/{issuer.name}"


def _derived(services: Services, secret: str, purpose: str) -> str:
    """A text that only who has the secret, and we, can make: 256 bits in 43 characters."""
    return _base64url(hash_key(f"oidc {purpose} {secret}", services.pepper))


def _base64url(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")
