"""Who may do what: the one permission table. Pure.

`api/dispatch.py` is the one place that asks it about operations, `api/granting.py` about what is given to others.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What a member is in an organisation."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    BILLING = "billing"
    VIEWER = "viewer"


class Permission(StrEnum):
    """What an operation needs. Those of `PLATFORM` concern the installation; all others one organisation.

    The values are also the scopes of machine tokens.
    """

    ORG_READ = "org:read"
    ORG_WRITE = "org:write"
    MEMBERS_READ = "members:read"
    MEMBERS_WRITE = "members:write"
    PROJECTS_READ = "projects:read"
    PROJECTS_WRITE = "projects:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    BILLING_READ = "billing:read"
    BILLING_WRITE = "billing:write"
    AUDIT_READ = "audit:read"
    TOKENS_READ = "tokens:read"
    TOKENS_WRITE = "tokens:write"

    NODES_READ = "platform:nodes:read"
    CATALOG_READ = "platform:catalog:read"
    CATALOG_WRITE = "platform:catalog:write"
    PLATFORM_READ = "platform:read"
    PLATFORM_WRITE = "platform:write"


class Open(StrEnum):
    """What needs no permission of the table."""

    ANYONE = "anyone"
    """Without a credential."""
    KNOWN = "known"
    """Any user and any machine token; the handler shows each what is theirs."""
    SIGNED_IN = "signed_in"
    """Any user, in their own name. Machine tokens are nobody's own name and are refused."""


PLATFORM: Final = frozenset(permission for permission in Permission if permission.startswith("platform:"))

_READ: Final = frozenset({Permission.ORG_READ, Permission.MEMBERS_READ, Permission.PROJECTS_READ, Permission.KEYS_READ})

PERMISSIONS_BY_ROLE: Final[Mapping[Role, frozenset[Permission]]] = {
    Role.OWNER: frozenset(Permission) - PLATFORM,
    Role.ADMIN: frozenset(Permission) - PLATFORM - {Permission.BILLING_WRITE},
    Role.DEVELOPER: _READ | {Permission.KEYS_WRITE},
    Role.BILLING: _READ | {Permission.BILLING_READ, Permission.BILLING_WRITE},
    Role.VIEWER: _READ,
}


def roles_within(held: Collection[Permission]) -> frozenset[Role]:
    """The roles whose members may no more than this: nobody gives another one, or takes it."""
    return frozenset(role for role, permissions in PERMISSIONS_BY_ROLE.items() if permissions <= frozenset(held))
