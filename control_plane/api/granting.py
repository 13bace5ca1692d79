"""What a caller may give to others: roles and scopes, never more than they have. Asked inside the transaction that gives."""

from collections.abc import Collection

from control_plane.accounts.permissions import PERMISSIONS_BY_ROLE, Permission, Role
from control_plane.api.operation import Call
from control_plane.errors import ForbiddenError


def pass_if_held(call: Call, wanted: Collection[Permission]) -> None:
    """Pass only who has all of that, in the organisation of the path or, without one, on the platform.

    Raises:
        ForbiddenError: something of it is missing.
    """
    if missing := frozenset(wanted) - call.actor.held(call.role):
        raise ForbiddenError(f"You cannot give or take what you do not have: {', '.join(sorted(missing))}.")


def pass_if_grantable(call: Call, *roles: Role) -> None:
    """Pass only who may all that members of these roles may.

    Raises:
        ForbiddenError: they may not.
    """
    pass_if_held(call, frozenset[Permission]().union(*(PERMISSIONS_BY_ROLE[role] for role in roles)))
