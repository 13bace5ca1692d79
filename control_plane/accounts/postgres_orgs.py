"""Organisations, their projects, members and invitations in Postgres."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from control_plane.accounts.budgets import budgets_shown
from control_plane.accounts.model import Invitation, Member, Organization, OrganizationOfUser, Project
from control_plane.accounts.permissions import Role
from control_plane.database import Database, Hold, locked, written
from gateway_core.api_keys import KeyHash
from gateway_core.limits import NO_LIMITS, Limits
from gateway_core.money import NanoUsd

_ORG: Final = """o.org_id AS id, o.name, o.time_zone, o.requests_per_minute_max, o.tokens_per_minute_max, o.concurrency_max,
    o.disabled_at, o.created_at, o.revision"""
_PROJECT: Final = """project_id AS id, org_id, name, budget_per_day_nano_usd, budget_per_month_nano_usd, requests_per_minute_max,
    tokens_per_minute_max, concurrency_max, archived_at, created_at, revision"""
_MEMBER: Final = "u.user_id, u.email, u.name, m.role, m.created_at, m.revision"
_INVITATION: Final = "invitation_id AS id, org_id, email, role, invited_by, created_at, expires_at"


@dataclass(frozen=True, slots=True)
class Standing:
    """An organisation, as somebody comes to it.

    Attributes:
        is_closed: nothing in it can be changed but by operators.
        role: what they are in it, if they are a member.
    """

    is_closed: bool
    role: Role | None


async def add_org(db: Database, org_id: str, name: str) -> Organization:
    """Write a new organisation and open its balance."""
    row = await db.fetchrow(
        f"INSERT INTO accounts.organizations AS o (org_id, name) VALUES ($1, $2) RETURNING {_ORG}",  # noqa: S608 - a list of columns of ours
        org_id,
        name,
    )
    await db.execute("SELECT billing.open_balance($1)", org_id)
    return Organization.model_validate({**written(row)})


async def find_org(
    db: Database, org_id: str, *, user_id: str | None = None, lock: bool = False
) -> OrganizationOfUser | None:
    """An organisation with the role of a user in it. Locked, it stays as it is until the end of the transaction."""
    row = await db.fetchrow(
        f"""
        SELECT {_ORG}, m.role FROM accounts.organizations o
        LEFT JOIN accounts.memberships m ON m.org_id = o.org_id AND m.user_id = $2
        WHERE o.org_id = $1 {locked("o") if lock else ""}
        """,  # noqa: S608 - a list of columns of ours
        org_id,
        user_id,
    )
    return None if row is None else OrganizationOfUser.model_validate({**row})


async def hold_org(db: Database, org_id: str, hold: Hold) -> None:
    """Hold an organisation before anything in it: whoever takes rights away in it has it first, and then they are."""
    await db.execute(f"SELECT FROM accounts.organizations WHERE org_id = $1 {hold}", org_id)


async def find_standing(db: Database, org_id: str, user_id: str | None, *, hold: Hold = Hold.NONE) -> Standing | None:
    """How an organisation stands, and what a user is in it; None if there is no such organisation.

    Held, neither is less before the end of the transaction.
    """
    row = await db.fetchrow(
        f"SELECT disabled_at IS NOT NULL AS is_closed FROM accounts.organizations WHERE org_id = $1 {hold}",  # noqa: S608 - words of ours
        org_id,
    )
    if row is None:
        return None
    role = await db.fetchval(
        f"SELECT role FROM accounts.memberships WHERE org_id = $1 AND user_id = $2 {hold}",  # noqa: S608 - words of ours
        org_id,
        user_id,
    )
    return Standing(is_closed=row["is_closed"], role=None if role is None else Role(role))


async def list_orgs(
    db: Database, *, user_id: str | None, only: str | None, everything: bool, after: int | None, limit: int
) -> list[tuple[int, OrganizationOfUser]]:
    """The organisations of a user, or a certain one, or all there are; oldest first, each with its position."""
    rows = await db.fetch(
        f"""
        SELECT o.seq, {_ORG}, m.role FROM accounts.organizations o
        LEFT JOIN accounts.memberships m ON m.org_id = o.org_id AND m.user_id = $1
        WHERE (m.user_id IS NOT NULL OR $2 OR o.org_id = $5) AND o.seq > coalesce($3, 0) ORDER BY o.seq LIMIT $4
        """,  # noqa: S608 - a list of columns of ours
        user_id,
        everything,
        after,
        limit,
        only,
    )
    return [(row["seq"], OrganizationOfUser.model_validate({**row})) for row in rows]


async def change_org(db: Database, org_id: str, *, name: str, time_zone: str) -> None:
    """Change what its members may."""
    await db.execute(
        "UPDATE accounts.organizations SET name = $2, time_zone = $3, revision = revision + 1 WHERE org_id = $1",
        org_id,
        name,
        time_zone,
    )


async def limit_org(db: Database, org_id: str, limits: Limits) -> None:
    """Write the limits of all its keys together; all of them are under those within a second."""
    await db.execute(
        """
        UPDATE accounts.organizations
        SET requests_per_minute_max = $2, tokens_per_minute_max = $3, concurrency_max = $4, revision = revision + 1
        WHERE org_id = $1
        """,
        org_id,
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.concurrency,
    )


async def set_org_disabled(db: Database, org_id: str, *, disabled: bool) -> None:
    """Close an organisation, or open it again; all its keys follow within a second."""
    await db.execute(
        """
        UPDATE accounts.organizations
        SET disabled_at = CASE WHEN $2 THEN coalesce(disabled_at, now()) END, revision = revision + 1 WHERE org_id = $1
        """,
        org_id,
        disabled,
    )


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """What its organisation decides about a project."""

    name: str
    budget_per_day_nano_usd: NanoUsd | None = None
    budget_per_month_nano_usd: NanoUsd | None = None
    limits: Limits = NO_LIMITS
    archived: bool = False


async def add_project(db: Database, *, project_id: str, org_id: str, settings: ProjectSettings) -> Project | None:
    """Write a new project; None if the organisation has one of that name."""
    row = await db.fetchrow(
        f"""
        INSERT INTO accounts.projects (project_id, org_id, name, budget_per_day_nano_usd, budget_per_month_nano_usd,
                                       requests_per_minute_max, tokens_per_minute_max, concurrency_max)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING {_PROJECT}
        """,  # noqa: S608 - a list of columns of ours
        project_id,
        org_id,
        settings.name,
        settings.budget_per_day_nano_usd,
        settings.budget_per_month_nano_usd,
        settings.limits.requests_per_minute,
        settings.limits.tokens_per_minute,
        settings.limits.concurrency,
    )
    return None if row is None else _project(row)


async def find_project(db: Database, org_id: str, project_id: str, *, lock: bool = False) -> Project | None:
    """A project. Locked, it stays as it is until the end of the transaction."""
    row = await db.fetchrow(
        f"SELECT {_PROJECT} FROM accounts.projects WHERE org_id = $1 AND project_id = $2 {locked('') if lock else ''}",  # noqa: S608 - a list of columns of ours
        org_id,
        project_id,
    )
    return None if row is None else _project(row)


async def first_project(db: Database, org_id: str) -> str | None:
    """Where a key belongs that names no project: the oldest one."""
    project_id: str | None = await db.fetchval(
        "SELECT project_id FROM accounts.projects WHERE org_id = $1 AND archived_at IS NULL ORDER BY seq LIMIT 1",
        org_id,
    )
    return project_id


async def list_projects(db: Database, org_id: str, *, after: int | None, limit: int) -> list[tuple[int, Project]]:
    """Projects of an organisation, oldest first, each with its position."""
    rows = await db.fetch(
        f"""
        SELECT seq, {_PROJECT} FROM accounts.projects
        WHERE org_id = $1 AND seq > coalesce($2, 0) ORDER BY seq LIMIT $3
        """,  # noqa: S608 - a list of columns of ours
        org_id,
        after,
        limit,
    )
    return [(row["seq"], _project(row)) for row in rows]


async def change_project(db: Database, project_id: str, settings: ProjectSettings) -> Project | None:
    """Write a project's settings; None if another one has the name. All its keys are under its budgets and limits within a second."""
    row = await db.fetchrow(
        f"""
        UPDATE accounts.projects p SET name = $2, revision = revision + 1,
            archived_at = CASE WHEN $3 THEN coalesce(archived_at, now()) END,
            budget_per_day_nano_usd = $4, budget_per_month_nano_usd = $5,
            requests_per_minute_max = $6, tokens_per_minute_max = $7, concurrency_max = $8
        WHERE project_id = $1
          AND NOT EXISTS (SELECT FROM accounts.projects o
                          WHERE o.org_id = p.org_id AND o.name = $2 AND o.project_id <> $1)
        RETURNING {_PROJECT}
        """,  # noqa: S608 - a list of columns of ours
        project_id,
        settings.name,
        settings.archived,
        settings.budget_per_day_nano_usd,
        settings.budget_per_month_nano_usd,
        settings.limits.requests_per_minute,
        settings.limits.tokens_per_minute,
        settings.limits.concurrency,
    )
    return None if row is None else _project(row)


def _project(row: asyncpg.Record) -> Project:
    return Project.model_validate({**row, **budgets_shown(dict(row))})


async def add_member(db: Database, org_id: str, user_id: str, role: Role) -> Member:
    """Make a user a member, or leave them what they are."""
    await db.execute(
        "INSERT INTO accounts.memberships (org_id, user_id, role) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        org_id,
        user_id,
        role,
    )
    member = await find_member(db, org_id, user_id)
    if member is None:
        raise LookupError("a member that was just written is not there")
    return member


async def find_member(db: Database, org_id: str, user_id: str, *, lock: bool = False) -> Member | None:
    """A member. Locked, it stays as it is until the end of the transaction."""
    row = await db.fetchrow(
        f"""
        SELECT {_MEMBER} FROM accounts.memberships m JOIN accounts.users u USING (user_id)
        WHERE m.org_id = $1 AND m.user_id = $2 {locked("m") if lock else ""}
        """,  # noqa: S608 - a list of columns of ours
        org_id,
        user_id,
    )
    return None if row is None else Member.model_validate({**row})


async def list_members(db: Database, org_id: str, *, after: int | None, limit: int) -> list[tuple[int, Member]]:
    """Members of an organisation, oldest first, each with its position."""
    rows = await db.fetch(
        f"""
        SELECT m.seq, {_MEMBER} FROM accounts.memberships m JOIN accounts.users u USING (user_id)
        WHERE m.org_id = $1 AND m.seq > coalesce($2, 0) ORDER BY m.seq LIMIT $3
        """,  # noqa: S608 - a list of columns of ours
        org_id,
        after,
        limit,
    )
    return [(row["seq"], Member.model_validate({**row})) for row in rows]


async def has_other_owner(db: Database, org_id: str, user_id: str) -> bool:
    """Whether somebody else owns the organisation. All owners stay what they are until the end of the transaction."""
    rows = await db.fetch(
        "SELECT user_id FROM accounts.memberships WHERE org_id = $1 AND role = 'owner' ORDER BY user_id FOR UPDATE",
        org_id,
    )
    return any(row["user_id"] != user_id for row in rows)


async def set_role(db: Database, org_id: str, user_id: str, role: Role) -> None:
    """Change what a member is."""
    await db.execute(
        "UPDATE accounts.memberships SET role = $3, revision = revision + 1 WHERE org_id = $1 AND user_id = $2",
        org_id,
        user_id,
        role,
    )


async def remove_member(db: Database, org_id: str, user_id: str) -> None:
    """End a membership."""
    await db.execute("DELETE FROM accounts.memberships WHERE org_id = $1 AND user_id = $2", org_id, user_id)


async def add_invitation(
    db: Database,
    *,
    invitation_id: str,
    org_id: str,
    email: str,
    role: Role,
    token_hash: KeyHash,
    invited_by: str,
    expires_at: datetime,
) -> Invitation:
    """Write an invitation; an earlier one to the same address ends."""
    await db.execute(
        """
        UPDATE accounts.invitations SET revoked_at = now()
        WHERE org_id = $1 AND lower(email) = lower($2) AND accepted_at IS NULL AND revoked_at IS NULL
        """,
        org_id,
        email,
    )
    row = await db.fetchrow(
        f"""
        INSERT INTO accounts.invitations (invitation_id, org_id, email, role, token_hash, invited_by, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_INVITATION}
        """,  # noqa: S608 - a list of columns of ours
        invitation_id,
        org_id,
        email,
        role,
        token_hash,
        invited_by,
        expires_at,
    )
    return Invitation.model_validate({**written(row)})


async def list_invitations(
    db: Database, org_id: str, *, now: datetime, after: int | None, limit: int
) -> list[tuple[int, Invitation]]:
    """Open invitations of an organisation, oldest first, each with its position."""
    rows = await db.fetch(
        f"""
        SELECT seq, {_INVITATION} FROM accounts.invitations
        WHERE org_id = $1 AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > $4 AND seq > coalesce($2, 0)
        ORDER BY seq LIMIT $3
        """,  # noqa: S608 - a list of columns of ours
        org_id,
        after,
        limit,
        now,
    )
    return [(row["seq"], Invitation.model_validate({**row})) for row in rows]


async def revoke_invitation(db: Database, org_id: str, invitation_id: str) -> Invitation | None:
    """Take an open invitation back; None if there is none."""
    row = await db.fetchrow(
        f"""
        UPDATE accounts.invitations SET revoked_at = now()
        WHERE org_id = $1 AND invitation_id = $2 AND accepted_at IS NULL AND revoked_at IS NULL RETURNING {_INVITATION}
        """,  # noqa: S608 - a list of columns of ours
        org_id,
        invitation_id,
    )
    return None if row is None else Invitation.model_validate({**row})


async def use_invitation(db: Database, token_hash: KeyHash, email: str, now: datetime) -> Invitation | None:
    """Accept the invitation behind a token; None unless it is open and was sent to this address."""
    row = await db.fetchrow(
        f"""
        UPDATE accounts.invitations SET accepted_at = $3
        WHERE token_hash = $1 AND lower(email) = lower($2) AND expires_at > $3
          AND accepted_at IS NULL AND revoked_at IS NULL RETURNING {_INVITATION}
        """,  # noqa: S608 - a list of columns of ours
        token_hash,
        email,
        now,
    )
    return None if row is None else Invitation.model_validate({**row})


async def billing_mail_addresses(db: Database, org_id: str) -> list[str]:
    """Of those who look after the money of an organisation."""
    rows = await db.fetch(
        """
        SELECT u.email FROM accounts.memberships m JOIN accounts.users u USING (user_id)
        WHERE m.org_id = $1 AND m.role IN ('owner', 'billing') ORDER BY u.email
        """,
        org_id,
    )
    return [row["email"] for row in rows]
