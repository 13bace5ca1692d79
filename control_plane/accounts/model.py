"""Users, organisations, projects, keys and what belongs to them, as the API shows them. Pure; no secret is in any of them."""

from datetime import datetime
from typing import Final

from pydantic import Field

from control_plane.accounts.budgets import PER_DAY, PER_MONTH
from control_plane.accounts.permissions import Permission, Role
from control_plane.resource import Resource, Revised
from gateway_core.mode import Mode

REQUESTS_PER_MINUTE: Final = "How many requests may begin in any minute; more are refused with 429."
TOKENS_PER_MINUTE: Final = (
    "How many tokens the requests of any minute may read and write together: as expected while they run, as counted by the provider once "
    "they are over. More are refused with 429."
)
CONCURRENCY: Final = "How many requests may run at once; more are refused with 429."


class User(Revised):
    """A person."""

    id: str
    email: str
    name: str
    email_verified_at: datetime | None
    is_operator: bool = Field(description="Whether this user runs the installation.")
    created_at: datetime


class LinkedIdentity(Resource):
    """A subject at an issuer that logs in as a user."""

    issuer: str
    subject: str
    user_id: str
    email: str
    created_at: datetime


class Organization(Revised):
    """A tenant."""

    id: str
    name: str
    time_zone: str = Field(description="By whose clock its days and months begin.")
    requests_per_minute_max: int | None = Field(description=REQUESTS_PER_MINUTE)
    tokens_per_minute_max: int | None = Field(description=TOKENS_PER_MINUTE)
    concurrency_max: int | None = Field(description=CONCURRENCY)
    disabled_at: datetime | None
    created_at: datetime


class Project(Revised):
    """A part of an organisation's work; every key belongs to one."""

    id: str
    org_id: str
    name: str
    budget_per_day_usd: str | None = Field(description=PER_DAY)
    budget_per_month_usd: str | None = Field(description=PER_MONTH)
    requests_per_minute_max: int | None = Field(description=REQUESTS_PER_MINUTE)
    tokens_per_minute_max: int | None = Field(description=TOKENS_PER_MINUTE)
    concurrency_max: int | None = Field(description=CONCURRENCY)
    archived_at: datetime | None
    created_at: datetime


class OrganizationOfUser(Organization):
    """An organisation and what the caller is in it."""

    role: Role | None = Field(description="Null for an operator who is no member.")


class Member(Revised):
    """A user in an organisation."""

    user_id: str
    email: str
    name: str
    role: Role
    created_at: datetime


class Invitation(Resource):
    """An offer of membership, open until it is accepted, revoked or too old."""

    id: str
    org_id: str
    email: str
    role: Role
    invited_by: str
    created_at: datetime
    expires_at: datetime


class Key(Revised):
    """An API key, without the key."""

    id: str
    org_id: str
    project_id: str
    name: str
    mode: Mode = Field(description="`test`: its requests go to the simulator and cost play money.")
    hint: str = Field(description="The first characters of the key, to tell keys apart.")
    models_allowed: list[str] = Field(description="Shell-style patterns of model names; none admits every model.")
    ip_allowed: list[str] = Field(
        description="Networks in CIDR notation it may be used from; none admits every address."
    )
    budget_per_day_usd: str | None = Field(description=PER_DAY)
    budget_per_month_usd: str | None = Field(description=PER_MONTH)
    requests_per_minute_max: int | None = Field(description=REQUESTS_PER_MINUTE)
    tokens_per_minute_max: int | None = Field(description=TOKENS_PER_MINUTE)
    concurrency_max: int | None = Field(description=CONCURRENCY)
    disabled: bool
    expires_at: datetime | None
    previous_valid_until: datetime | None = Field(description="Until when the key before the last rotation works.")
    last_used_at: datetime | None
    created_at: datetime


class MachineToken(Resource):
    """A token for a program, without the token."""

    id: str
    org_id: str | None = Field(description="The organisation it acts in; null for one of the platform.")
    name: str
    scopes: list[Permission] | None = Field(description="Null: everything, which only platform tokens can have.")
    expires_at: datetime | None
    disabled_at: datetime | None
    created_at: datetime


class AuditEntry(Resource):
    """One change: who did what to which thing. `before` and `after` show it without its secrets."""

    seq: int
    at: datetime
    org_id: str | None
    actor_kind: str
    actor_id: str
    actor: str | None = Field(
        description="Who that is, for people: the address of a user, the name of a machine token; null where there is neither, and for who "
        "runs the installation in the log of an organisation."
    )
    action: str
    target_id: str
    before: dict[str, object] | None
    after: dict[str, object] | None
    request_id: str
