"""`/orgs`: organisations, their projects, and the audit log."""

from typing import Annotated, Final

from pydantic import Field

from control_plane.accounts import postgres_audit, postgres_orgs, throttle
from control_plane.accounts.actor import ActorKind
from control_plane.accounts.budgets import PER_DAY, PER_MONTH, limit_nano_usd
from control_plane.accounts.model import (
    CONCURRENCY,
    REQUESTS_PER_MINUTE,
    TOKENS_PER_MINUTE,
    AuditEntry,
    OrganizationOfUser,
    Project,
)
from control_plane.accounts.permissions import Open, Permission
from control_plane.accounts.postgres_orgs import ProjectSettings
from control_plane.api.auth import make_org
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.errors import ConflictError, ForbiddenError, InvalidField
from control_plane.fields import Body, Count, LeftOut, Name, Usd
from control_plane.statements.calendar import TimeZone
from gateway_core.ids import new_id
from gateway_core.limits import Limits

TAG: Final = "organisations"
LIMITS: Final = ("requests_per_minute_max", "tokens_per_minute_max", "concurrency_max")
"""As bodies name them, in the order of `Limits`."""


class OrganizationName(Body):
    """An organisation, as its members may write it."""

    name: Name


class OrganizationChange(Body):
    """What can be changed about an organisation; what is left out stays, null removes a limit. `disabled` and limits are for operators."""

    name: Annotated[Name | None, LeftOut()] = None
    time_zone: Annotated[TimeZone | None, LeftOut()] = Field(
        default=None,
        description="By whose clock its days and months begin: those of budgets at once, those of invoices from the next one on.",
    )
    requests_per_minute_max: Count | None = Field(default=None, description=REQUESTS_PER_MINUTE)
    tokens_per_minute_max: Count | None = Field(default=None, description=TOKENS_PER_MINUTE)
    concurrency_max: Count | None = Field(default=None, description=CONCURRENCY)
    disabled: Annotated[bool | None, LeftOut()] = None


class NewProject(Body):
    """A new project."""

    name: Name
    budget_per_day_usd: Usd | None = Field(default=None, description=PER_DAY)
    budget_per_month_usd: Usd | None = Field(default=None, description=PER_MONTH)
    requests_per_minute_max: Count | None = Field(default=None, description=REQUESTS_PER_MINUTE)
    tokens_per_minute_max: Count | None = Field(default=None, description=TOKENS_PER_MINUTE)
    concurrency_max: Count | None = Field(default=None, description=CONCURRENCY)


class ProjectChange(Body):
    """What can be changed about a project; what is left out stays, null removes a budget or a limit. An archived one takes no new keys."""

    name: Annotated[Name | None, LeftOut()] = None
    budget_per_day_usd: Usd | None = Field(default=None, description=PER_DAY)
    budget_per_month_usd: Usd | None = Field(default=None, description=PER_MONTH)
    requests_per_minute_max: Count | None = Field(default=None, description=REQUESTS_PER_MINUTE)
    tokens_per_minute_max: Count | None = Field(default=None, description=TOKENS_PER_MINUTE)
    concurrency_max: Count | None = Field(default=None, description=CONCURRENCY)
    archived: Annotated[bool | None, LeftOut()] = None


@operation("GET", "/orgs", tag=TAG, access=Open.KNOWN)
async def list_orgs(call: Call, query: PageQuery) -> Page[OrganizationOfUser]:
    """My organisations; for operators, all; for a token of an organisation, this one."""
    may_read = call.actor.may(Permission.ORG_READ, None)
    return await page_of(
        call,
        query,
        Page[OrganizationOfUser],
        lambda position, limit: postgres_orgs.list_orgs(
            call.db,
            user_id=_user_id(call),
            only=call.actor.org_id if may_read else None,
            everything=call.actor.is_operator and may_read,
            after=position,
            limit=limit,
        ),
    )


@operation("POST", "/orgs", tag=TAG, access=Open.SIGNED_IN, status=201)
async def create_org(call: Call, body: OrganizationName) -> OrganizationOfUser:
    """Create an organisation and own it."""
    await call.services.throttle.attempt(throttle.ORGS_PER_USER, call.actor.actor_id)
    made, _ = await make_org(call, call.actor.actor_id, body.name, call.actor)
    return found(await postgres_orgs.find_org(call.db, made.id, user_id=call.actor.actor_id))


@operation("GET", "/orgs/{org_id}", tag=TAG, access=Permission.ORG_READ)
async def get_org(call: Call) -> OrganizationOfUser:
    """One organisation."""
    return found(await postgres_orgs.find_org(call.db, call.org_id, user_id=_user_id(call)))


@operation("PATCH", "/orgs/{org_id}", tag=TAG, access=Permission.ORG_WRITE, needs_revision=True, takes_rights=True)
async def change_org(call: Call, body: OrganizationChange) -> OrganizationOfUser:
    """Change name and time zone of an organisation; operators can close and limit it too."""
    before = found(await postgres_orgs.find_org(call.db, call.org_id, user_id=_user_id(call), lock=True))
    call.match(before.revision)
    is_limited = not body.model_fields_set.isdisjoint(LIMITS)
    if (body.disabled is not None or is_limited) and not call.actor.may(Permission.PLATFORM_WRITE, None):
        raise ForbiddenError("Only an operator closes, opens or limits an organisation.")
    if body.disabled is not None:
        await postgres_orgs.set_org_disabled(call.db, call.org_id, disabled=body.disabled)
    if is_limited:
        await postgres_orgs.limit_org(call.db, call.org_id, _limits(body, before))
    if body.name is not None or body.time_zone is not None:
        await postgres_orgs.change_org(
            call.db, call.org_id, name=body.name or before.name, time_zone=body.time_zone or before.time_zone
        )
    after = found(await postgres_orgs.find_org(call.db, call.org_id, user_id=_user_id(call)))
    await call.audit("org.change", call.org_id, before=before, after=after)
    return after


@operation("GET", "/orgs/{org_id}/projects", tag=TAG, access=Permission.PROJECTS_READ)
async def list_projects(call: Call, query: PageQuery) -> Page[Project]:
    """Projects of an organisation."""
    return await page_of(
        call,
        query,
        Page[Project],
        lambda position, limit: postgres_orgs.list_projects(call.db, call.org_id, after=position, limit=limit),
    )


@operation("POST", "/orgs/{org_id}/projects", tag=TAG, access=Permission.PROJECTS_WRITE, status=201)
async def create_project(call: Call, body: NewProject) -> Project:
    """Create a project."""
    project = await postgres_orgs.add_project(
        call.db,
        project_id=new_id("prj", call.services.random_bytes),
        org_id=call.org_id,
        settings=ProjectSettings(
            body.name,
            limit_nano_usd(body.budget_per_day_usd),
            limit_nano_usd(body.budget_per_month_usd),
            Limits(body.requests_per_minute_max, body.tokens_per_minute_max, body.concurrency_max),
        ),
    )
    if project is None:
        raise _name_taken()
    await call.audit("project.create", project.id, after=project)
    return project


@operation("GET", "/orgs/{org_id}/projects/{project_id}", tag=TAG, access=Permission.PROJECTS_READ)
async def get_project(call: Call) -> Project:
    """One project."""
    return found(await postgres_orgs.find_project(call.db, call.org_id, call.param("project_id")))


@operation(
    "PATCH", "/orgs/{org_id}/projects/{project_id}", tag=TAG, access=Permission.PROJECTS_WRITE, needs_revision=True
)
async def change_project(call: Call, body: ProjectChange) -> Project:
    """Rename or archive a project, or change its budgets and limits, which every Envoy follows within a second.

    An archived one takes no new keys; those that it has go on until they are revoked.
    """
    before = found(await postgres_orgs.find_project(call.db, call.org_id, call.param("project_id"), lock=True))
    call.match(before.revision)
    # A budget may be null, which is something else than left out.
    budgets = {
        field: getattr(body if field in body.model_fields_set else before, field)
        for field in ("budget_per_day_usd", "budget_per_month_usd")
    }
    after = await postgres_orgs.change_project(
        call.db,
        before.id,
        ProjectSettings(
            name=before.name if body.name is None else body.name,
            budget_per_day_nano_usd=limit_nano_usd(budgets["budget_per_day_usd"]),
            budget_per_month_nano_usd=limit_nano_usd(budgets["budget_per_month_usd"]),
            limits=_limits(body, before),
            archived=before.archived_at is not None if body.archived is None else body.archived,
        ),
    )
    if after is None:
        raise _name_taken()
    await call.audit("project.change", before.id, before=before, after=after)
    return after


@operation("GET", "/orgs/{org_id}/audit", tag=TAG, access=Permission.AUDIT_READ)
async def list_audit_of_org(call: Call, query: PageQuery) -> Page[AuditEntry]:
    """Who changed what in an organisation, newest first."""
    return await _audit(call, query, call.org_id)


@operation("GET", "/audit", tag="platform", access=Permission.PLATFORM_READ)
async def list_audit(call: Call, query: PageQuery) -> Page[AuditEntry]:
    """Who changed what anywhere, newest first."""
    return await _audit(call, query, None)


async def _audit(call: Call, query: PageQuery, org_id: str | None) -> Page[AuditEntry]:
    return await page_of(
        call,
        query,
        Page[AuditEntry],
        lambda position, limit: postgres_audit.list_entries(call.db, org_id=org_id, before_seq=position, limit=limit),
    )


def _limits(body: OrganizationChange | ProjectChange, before: OrganizationOfUser | Project) -> Limits:
    """Those of the body, and for what it leaves out what they were."""
    return Limits(*(getattr(body if field in body.model_fields_set else before, field) for field in LIMITS))


def _user_id(call: Call) -> str | None:
    return call.actor.actor_id if call.actor.kind is ActorKind.USER else None


def _name_taken() -> ConflictError:
    return ConflictError(
        "The organisation has a project of this name.", [InvalidField("/name", "another project has it")]
    )
