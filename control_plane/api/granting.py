"""What a caller may give to others: roles and scopes, never more than they have. Asked inside the transaction that gives."""

from collections.abc import Collection

from control_plane.accounts import postgres_orgs, postgres_tokens
from control_plane.accounts.actor import ActorKind
from control_plane.accounts.permissions import PERMISSIONS_BY_ROLE, Permission, Role
from control_plane.api.operation import Call
from control_plane.errors import ForbiddenError, UnauthenticatedError


async def held(call: Call, org_id: str | None) -> frozenset[Permission]:
    """All that the caller may do in an organisation, or with none named on the platform, until the transaction ends.

    Raises:
        UnauthenticatedError: the token has been revoked since the call began.
    """
    actor, role = call.actor, None
    if actor.kind is ActorKind.TOKEN:
        if await postgres_tokens.lock_token(call.db, actor.actor_id) is None:
            raise UnauthenticatedError
    elif org_id is not None:
        member = await postgres_orgs.find_member(call.db, org_id, actor.actor_id, lock=True)
        role = None if member is None else member.role
    return actor.held(role)


async def pass_if_held(call: Call, org_id: str | None, wanted: Collection[Permission]) -> None:
    """Pass only who has all of that.

    Raises:
        ForbiddenError: something of it is missing.
    """
    if missing := frozenset(wanted) - await held(call, org_id):
        raise ForbiddenError(f"You cannot give or take what you do not have: {', '.join(sorted(missing))}.")


async def pass_if_grantable(call: Call, *roles: Role) -> None:
    """Pass only who may all that members of these roles may.

    Raises:
        ForbiddenError: they may not.
    """
    await pass_if_held(call, call.org_id, frozenset[Permission]().union(*(PERMISSIONS_BY_ROLE[role] for role in roles)))
