"""`/auth`: sign up, log in, stay in, leave, and get back in."""

from datetime import timedelta
from typing import Final

from pydantic import Field

from control_plane.accounts import postgres_orgs, postgres_sessions, postgres_users, throttle
from control_plane.accounts.actor import Actor, ActorKind
from control_plane.accounts.mail import Mail
from control_plane.accounts.model import Organization, Project, User
from control_plane.accounts.permissions import Open, Permission, Role
from control_plane.accounts.postgres_sessions import Session
from control_plane.accounts.postgres_signing import LIFETIME, Claims
from control_plane.api import mail_pages
from control_plane.api.mailed_tokens import new_secret
from control_plane.api.operation import Audit, Call, found, operation
from control_plane.errors import ConflictError, ForbiddenError, InvalidField, InvalidFieldsError, UnauthenticatedError
from control_plane.fields import SECRET, Body, Email, MailToken, Name, Password
from control_plane.resource import Resource
from gateway_core.api_keys import hash_key
from gateway_core.ids import new_id

TAG: Final = "auth"
SESSION_LIFETIME: Final = timedelta(days=30)
VERIFY_LIFETIME: Final = timedelta(days=3)
RESET_LIFETIME: Final = timedelta(hours=1)
DEFAULT_PROJECT: Final = "Default"
_WRONG: Final = "E-mail address or password is wrong."


class Registration(Body):
    """A new user and their organisation."""

    email: Email
    password: Password
    organization: Name = Field(description="Name of the organisation to begin with.")
    name: Name | None = Field(default=None, description="What the user is called.")


class Registered(Resource):
    """What a registration made."""

    user: User
    organization: Organization
    project: Project


class Credentials(Body):
    """Who logs in."""

    email: Email
    password: str = Field(min_length=1, max_length=200, json_schema_extra=SECRET)


class RefreshToken(Body):
    """A refresh token."""

    refresh_token: str = Field(min_length=1, max_length=200, json_schema_extra=SECRET)


class Tokens(Resource):
    """A session's tokens."""

    access_token: str = Field(description="Send it as `Authorization: Bearer ...`.")
    token_type: str = "Bearer"  # noqa: S105 - RFC 6750's name for it
    expires_in: int = Field(description="Seconds the access token is good for.")
    refresh_token: str = Field(description="Good for one use. A second use ends the session.")


class EmailAddress(Body):
    """Where to send a mail."""

    email: Email


class NewPassword(Body):
    """The token of the mail, and the password to set."""

    token: MailToken
    password: Password


class TokenOfMail(Body):
    """The token of the mail."""

    token: MailToken


class Verified(Resource):
    """Whose address was verified."""

    email: str


class SigningKeyMade(Resource):
    """The key that signs from now on."""

    kid: str


async def _hash_new_users_password(call: Call, body: Registration) -> None:
    await call.services.throttle.attempt(throttle.SIGN_UP_PER_SOURCE, call.actor.actor_id)
    call.password_hash = await call.services.passwords.hash(body.password)


async def _hash_new_password(call: Call, body: NewPassword) -> None:
    await call.services.throttle.attempt(throttle.RESET_PER_SOURCE, call.actor.actor_id)
    call.password_hash = await call.services.passwords.hash(body.password)


@operation("POST", "/auth/register", tag=TAG, access=Open.ANYONE, status=201, prepare=_hash_new_users_password)
async def register(call: Call, body: Registration) -> Registered:
    """Sign up: a user who owns a new organisation with a default project and an empty balance."""
    services = call.services
    user = await postgres_users.add_user(
        call.db,
        user_id=new_id("usr", services.random_bytes),
        email=body.email,
        name=body.name or "",
        password_hash=call.password_hash,
    )
    if user is None:
        raise ConflictError(
            "This e-mail address has an account. Log in, or reset the password.",
            [InvalidField("/email", "has an account")],
        )
    actor = Actor(ActorKind.USER, user.id)
    organization, project = await make_org(call, user.id, body.organization, actor)
    await call.audit("user.register", user.id, after=user, org_id=organization.id, actor=actor)
    await _mail_verification(call, user)
    return Registered(user=user, organization=organization, project=project)


async def make_org(call: Call, owner_id: str, name: str, actor: Actor) -> tuple[Organization, Project]:
    """A new organisation with its owner and its default project."""
    organization = await postgres_orgs.add_org(call.db, new_id("org", call.services.random_bytes), name)
    project = found(
        await postgres_orgs.add_project(
            call.db,
            project_id=new_id("prj", call.services.random_bytes),
            org_id=organization.id,
            settings=postgres_orgs.ProjectSettings(DEFAULT_PROJECT),
        )
    )
    await postgres_orgs.add_member(call.db, organization.id, owner_id, Role.OWNER)
    await call.audit("org.create", organization.id, after=organization, org_id=organization.id, actor=actor)
    return organization, project


@operation("POST", "/auth/login", tag=TAG, access=Open.ANYONE, in_transaction=False, audit=Audit.BY_ITSELF)
async def login(call: Call, body: Credentials) -> Tokens:
    """Log in with e-mail address and password."""
    services = call.services
    await services.throttle.attempt(throttle.LOGIN_PER_SOURCE, call.actor.actor_id)
    # First what one source may: it does not use up what all of them may together.
    await services.throttle.attempt(throttle.LOGIN_PER_ACCOUNT_AND_SOURCE, _from_here(call, body.email))
    await services.throttle.attempt(throttle.LOGIN_PER_ACCOUNT, body.email)
    user = await postgres_users.find_user_by_email(call.db, body.email)
    stored = None if user is None else await postgres_users.password_hash(call.db, user.id)
    if not await services.passwords.is_right(body.password, stored) or user is None:
        raise UnauthenticatedError(_WRONG)
    await _forgive_wrong_passwords(call, body.email)
    if services.require_verified_email and user.email_verified_at is None:
        raise ForbiddenError("Verify your e-mail address first: follow the link in the mail.")
    async with services.pool.acquire() as connection, connection.transaction():
        call.db = connection
        # Whoever changed the password or took it away while it was being checked has ended all sessions: this one too.
        if await postgres_users.password_hash(connection, user.id, lock=True) != stored:
            raise UnauthenticatedError(_WRONG)
        session, refresh_token = await open_session(call, user.id)
    return await issue_tokens(call, session, refresh_token)


def _from_here(call: Call, email: str) -> str:
    return f"{email} {call.actor.actor_id}"


async def _forgive_wrong_passwords(call: Call, email: str) -> None:
    await call.services.throttle.forgive(throttle.LOGIN_PER_ACCOUNT_AND_SOURCE, _from_here(call, email))
    await call.services.throttle.forgive(throttle.LOGIN_PER_ACCOUNT, email)


async def open_session(call: Call, user_id: str) -> tuple[Session, str]:
    """Begin a session of a user who has shown who they are; with its first refresh token."""
    services = call.services
    session = Session(new_id("ses", services.random_bytes), user_id)
    refresh_token, token_hash = new_secret(services)
    await postgres_sessions.open_session(call.db, session, token_hash, services.now() + SESSION_LIFETIME)
    await call.audit("session.open", session.session_id, actor=Actor(ActorKind.USER, user_id))
    return session, refresh_token


async def issue_tokens(call: Call, session: Session, refresh_token: str) -> Tokens:
    """The answer of a log-in. Signing may read keys: not while a connection is held."""
    access_token = await call.services.access_tokens.issue(Claims(session.user_id, session.session_id))
    return Tokens(access_token=access_token, expires_in=int(LIFETIME.total_seconds()), refresh_token=refresh_token)


@operation("POST", "/auth/refresh", tag=TAG, access=Open.ANYONE, in_transaction=False, audit=Audit.NONE)
async def refresh(call: Call, body: RefreshToken) -> Tokens:
    """Exchange a refresh token for new tokens. Used twice, it ends its session."""
    services = call.services
    new, new_hash = new_secret(services)
    async with services.pool.acquire() as connection:
        session = await postgres_sessions.exchange(
            connection, hash_key(body.refresh_token, services.pepper), new_hash, services.now()
        )
    # Not while a connection is held, or as many calls as the pool is large wait for each other.
    return await issue_tokens(call, session, new)


@operation("POST", "/auth/logout", tag=TAG, access=Open.SIGNED_IN, takes_rights=True)
async def logout(call: Call) -> None:
    """End the session of the access token, at once."""
    session_id = found(call.actor.session_id)
    await postgres_sessions.end_session(call.db, session_id, "logout")
    await call.audit("session.close", session_id)


@operation("POST", "/auth/verify-email", tag=TAG, access=Open.ANYONE)
async def verify_email(call: Call, body: TokenOfMail) -> Verified:
    """Verify an e-mail address with the token of the mail."""
    services = call.services
    user_id = await postgres_users.use_mail_token(
        call.db, hash_key(body.token, services.pepper), "verify_email", services.now()
    )
    user = None if user_id is None else await postgres_users.find_user(call.db, user_id, lock=True)
    if user is None:
        raise InvalidFieldsError(InvalidField("/token", "unknown, used or too old"))
    await postgres_users.verify_email(call.db, user.id, services.now())
    verified = await postgres_users.find_user(call.db, user.id)
    await call.audit("user.verify_email", user.id, before=user, after=verified, actor=Actor(ActorKind.USER, user.id))
    return Verified(email=user.email)


@operation("POST", "/auth/verification-mails", tag=TAG, access=Open.SIGNED_IN, audit=Audit.NONE, status=202)
async def send_verification(call: Call) -> None:
    """Send the mail with the verification link once more."""
    await call.services.throttle.attempt(throttle.SIGN_UP_PER_SOURCE, call.actor.actor_id)
    user = found(await postgres_users.find_user(call.db, call.actor.actor_id))
    wanted = user.email_verified_at is None
    if wanted and await call.services.throttle.admits(throttle.MAILS_PER_RECIPIENT, f"verify {user.email}"):
        await _mail_verification(call, user)


@operation("POST", "/auth/password-reset-mails", tag=TAG, access=Open.ANYONE, audit=Audit.NONE, status=202)
async def send_password_reset(call: Call, body: EmailAddress) -> None:
    """Send a mail to reset the password. The answer is the same whether or not the address has an account."""
    services = call.services
    await services.throttle.attempt(throttle.SIGN_UP_PER_SOURCE, call.actor.actor_id)
    user = await postgres_users.find_user_by_email(call.db, body.email)
    if user is None or not await services.throttle.admits(throttle.MAILS_PER_RECIPIENT, f"reset {user.email}"):
        return
    token, token_hash = new_secret(services)
    await postgres_users.add_mail_token(
        call.db,
        token_hash=token_hash,
        user_id=user.id,
        purpose="reset_password",
        expires_at=services.now() + RESET_LIFETIME,
    )
    link = mail_pages.link(services.public_url, mail_pages.RESET_PASSWORD, token)
    mail = Mail(user.email, "Reset your password", link)
    call.after_commit.append(lambda: services.mail.send(mail))


@operation("POST", "/auth/password-resets", tag=TAG, access=Open.ANYONE, prepare=_hash_new_password)
async def reset_password(call: Call, body: NewPassword) -> None:
    """Set a new password with the token of the mail. Every session of the user ends."""
    services = call.services
    user_id = await postgres_users.use_mail_token(
        call.db, hash_key(body.token, services.pepper), "reset_password", services.now()
    )
    if user_id is None:
        raise InvalidFieldsError(InvalidField("/token", "unknown, used or too old"))
    user = found(await postgres_users.find_user(call.db, user_id, lock=True))
    # First, so that nothing is made any more of what is voided next.
    await postgres_sessions.end_sessions_of(call.db, user_id)
    if user.email_verified_at is None:
        # Somebody else may have registered with this address: what they made with it does not outlive them.
        await postgres_users.void_credentials(call.db, user_id, services.now())
    await postgres_users.set_password(call.db, user_id, call.password_hash)
    await postgres_users.void_resets(call.db, user_id, services.now())
    # Whoever reads the mailbox has shown that it is theirs.
    await postgres_users.verify_email(call.db, user_id, services.now())
    await call.audit("user.reset_password", user_id, actor=Actor(ActorKind.USER, user_id))
    call.after_commit.append(lambda: _forgive_wrong_passwords(call, user.email))


@operation("POST", "/auth/signing-keys", tag=TAG, access=Permission.PLATFORM_WRITE, status=201)
async def rotate_signing_key(call: Call) -> SigningKeyMade:
    """Sign access tokens with a new key from now on; those out there stay valid."""
    kid = await call.services.access_tokens.add_key(call.db)
    await call.audit("signing_key.rotate", kid)
    call.after_commit.append(call.services.access_tokens.read_keys)
    return SigningKeyMade(kid=kid)


async def _mail_verification(call: Call, user: User) -> None:
    services = call.services
    token, token_hash = new_secret(services)
    await postgres_users.add_mail_token(
        call.db,
        token_hash=token_hash,
        user_id=user.id,
        purpose="verify_email",
        expires_at=services.now() + VERIFY_LIFETIME,
    )
    link = mail_pages.link(services.public_url, mail_pages.VERIFY_EMAIL, token)
    call.after_commit.append(lambda: services.mail.send(Mail(user.email, "Verify your e-mail address", link)))
