"""Who is calling, once that is known. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from control_plane.accounts.permissions import PERMISSIONS_BY_ROLE, PLATFORM, Permission, Role
from gateway_core.ids import OrgId


class ActorKind(StrEnum):
    """The kinds of callers, as the audit log names them."""

    USER = "user"
    TOKEN = "token"  # noqa: S105 - a kind
    ANONYMOUS = "anonymous"
    STRIPE = "stripe"
    """Stripe of its own accord: a refund, a dispute. Its id is that of the event."""
    SYSTEM = "system"
    """This installation of its own accord, by what it was told to do; its id says what does it."""


@dataclass(frozen=True, slots=True)
class Actor:
    """A caller.

    Attributes:
        actor_id: the user's or the token's id; the address for somebody anonymous.
        is_operator: whether they run this installation: every permission, in every organisation.
        scopes: of a machine token: what it is limited to. None: no limit beyond its role.
        org_id: of a machine token: the only organisation it acts in. None: not bound to one.
        expires_at: of a machine token: when it ends, and whatever is made with it. None: it does not end by itself.
        session_id: of a user: the session their access token belongs to.
    """

    kind: ActorKind
    actor_id: str
    is_operator: bool = False
    scopes: frozenset[Permission] | None = None
    org_id: OrgId | None = None
    expires_at: datetime | None = None
    session_id: str | None = None

    def may(self, permission: Permission, role: Role | None) -> bool:
        """Whether they may do something, given their role in the organisation it concerns.

        A machine token that is bound to an organisation acts there by its scopes alone.
        """
        if self.scopes is not None and permission not in self.scopes:
            return False
        if self.is_operator:
            return True
        if self.org_id is not None:
            return permission not in PLATFORM
        return role is not None and permission in PERMISSIONS_BY_ROLE[role]

    def held(self, role: Role | None) -> frozenset[Permission]:
        """All that they may do, given their role in the organisation it concerns."""
        return frozenset(permission for permission in Permission if self.may(permission, role))
