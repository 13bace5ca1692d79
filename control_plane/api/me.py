"""`/me`: one's own profile and password."""

from typing import Final

from pydantic import Field

from control_plane.accounts import postgres_sessions, postgres_users, throttle
from control_plane.accounts.model import User
from control_plane.accounts.permissions import Open
from control_plane.api.operation import Call, found, operation
from control_plane.errors import InvalidField, InvalidFieldsError
from control_plane.fields import SECRET, Body, Name, Password

TAG: Final = "me"


class Profile(Body):
    """What a user may change about themselves."""

    name: Name


class PasswordChange(Body):
    """The old password, to be sure, and the new one."""

    current_password: str = Field(min_length=1, max_length=200, json_schema_extra=SECRET)
    new_password: Password


@operation("GET", "/me", tag=TAG, access=Open.SIGNED_IN)
async def get_me(call: Call) -> User:
    """Who I am."""
    return found(await postgres_users.find_user(call.db, call.actor.actor_id))


@operation("PATCH", "/me", tag=TAG, access=Open.SIGNED_IN, needs_revision=True)
async def change_me(call: Call, body: Profile) -> User:
    """Change my profile."""
    before = found(await postgres_users.find_user(call.db, call.actor.actor_id, lock=True))
    call.match(before.revision)
    after = await postgres_users.rename_user(call.db, before.id, body.name)
    await call.audit("user.change", before.id, before=before, after=after)
    return after


async def _check_and_hash(call: Call, body: PasswordChange) -> None:
    services, user_id = call.services, call.actor.actor_id
    await services.throttle.attempt(throttle.PASSWORD_CHANGE, user_id)
    stored = await postgres_users.password_hash(call.db, user_id)
    if not await services.passwords.is_right(body.current_password, stored):
        raise _wrong()
    await services.throttle.forgive(throttle.PASSWORD_CHANGE, user_id)
    call.checked_hash = stored
    call.password_hash = await services.passwords.hash(body.new_password)


@operation("POST", "/me/password", tag=TAG, access=Open.SIGNED_IN, prepare=_check_and_hash, takes_rights=True)
async def change_password(call: Call, body: PasswordChange) -> None:  # noqa: ARG001 - read by what prepares it
    """Change my password. Every session ends, this one too."""
    user_id = call.actor.actor_id
    if await postgres_users.password_hash(call.db, user_id, lock=True) != call.checked_hash:
        raise _wrong()
    await postgres_users.set_password(call.db, user_id, call.password_hash)
    await postgres_users.void_resets(call.db, user_id, call.services.now())
    await postgres_sessions.end_sessions_of(call.db, user_id)
    await call.audit("user.change_password", user_id)


def _wrong() -> InvalidFieldsError:
    return InvalidFieldsError(InvalidField("/current_password", "wrong"))
