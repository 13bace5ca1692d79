"""`/orgs/{org_id}/members` and `/invitations`: who belongs to an organisation, and who is asked to."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from control_plane.accounts import postgres_makers, postgres_orgs, postgres_users, throttle
from control_plane.accounts.mail import Mail
from control_plane.accounts.model import Invitation, Member
from control_plane.accounts.permissions import PERMISSIONS_BY_ROLE, Open, Permission, Role, roles_within
from control_plane.api import mail_pages
from control_plane.api.granting import pass_if_grantable
from control_plane.api.listing import page_of
from control_plane.api.mailed_tokens import new_secret
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.errors import ClosedOrganizationError, ConflictError, InvalidField, InvalidFieldsError
from control_plane.fields import Body, Email, MailToken
from gateway_core.api_keys import hash_key
from gateway_core.ids import new_id

TAG: Final = "members"
INVITATION_LIFETIME: Final = timedelta(days=7)


class RoleChange(Body):
    """What a member shall be."""

    role: Role


class NewInvitation(Body):
    """Whom to ask, and what they would be."""

    email: Email
    role: Role


class Acceptance(Body):
    """The token of the mail."""

    token: MailToken


@operation("GET", "/orgs/{org_id}/members", tag=TAG, access=Permission.MEMBERS_READ)
async def list_members(call: Call, query: PageQuery) -> Page[Member]:
    """Members of an organisation."""
    return await page_of(
        call,
        query,
        Page[Member],
        lambda position, limit: postgres_orgs.list_members(call.db, call.org_id, after=position, limit=limit),
    )


@operation("GET", "/orgs/{org_id}/members/{user_id}", tag=TAG, access=Permission.MEMBERS_READ)
async def get_member(call: Call) -> Member:
    """One member."""
    return found(await postgres_orgs.find_member(call.db, call.org_id, call.param("user_id")))


@operation(
    "PATCH",
    "/orgs/{org_id}/members/{user_id}",
    tag=TAG,
    access=Permission.MEMBERS_WRITE,
    needs_revision=True,
    takes_rights=True,
)
async def change_member(call: Call, body: RoleChange) -> Member:
    """Change a member's role. Nobody gives or takes more than they have; the last owner stays."""
    before = await _member_to_change(call, body.role)
    call.match(before.revision)
    if before.role is Role.OWNER and body.role is not Role.OWNER:
        await _require_other_owner(call, before)
    await postgres_orgs.set_role(call.db, call.org_id, before.user_id, body.role)
    await _take_back_what_is_beyond(call, before.user_id, body.role)
    after = found(await postgres_orgs.find_member(call.db, call.org_id, before.user_id))
    await call.audit("member.change", before.user_id, before=before, after=after)
    return after


@operation("DELETE", "/orgs/{org_id}/members/{user_id}", tag=TAG, access=Permission.MEMBERS_WRITE, takes_rights=True)
async def remove_member(call: Call) -> None:
    """Remove a member, with the machine tokens and invitations that are theirs. The last owner stays."""
    before = await _member_to_change(call)
    await _leave(call, before)


@operation("DELETE", "/orgs/{org_id}/membership", tag=TAG, access=Permission.ORG_READ, takes_rights=True)
async def leave_org(call: Call) -> None:
    """Leave an organisation, which ends the machine tokens and invitations that are one's own. The last owner stays."""
    found(await postgres_orgs.find_org(call.db, call.org_id, lock=True))
    await _leave(call, found(await postgres_orgs.find_member(call.db, call.org_id, call.actor.actor_id, lock=True)))


@operation("GET", "/orgs/{org_id}/invitations", tag=TAG, access=Permission.MEMBERS_READ)
async def list_invitations(call: Call, query: PageQuery) -> Page[Invitation]:
    """Open invitations of an organisation."""
    return await page_of(
        call,
        query,
        Page[Invitation],
        lambda position, limit: postgres_orgs.list_invitations(
            call.db, call.org_id, now=call.services.now(), after=position, limit=limit
        ),
    )


@operation("POST", "/orgs/{org_id}/invitations", tag=TAG, access=Permission.MEMBERS_WRITE, status=201)
async def invite(call: Call, body: NewInvitation) -> Invitation:
    """Invite somebody by mail. An earlier invitation to the address ends."""
    services = call.services
    await services.throttle.attempt(throttle.SIGN_UP_PER_SOURCE, call.org_id)
    pass_if_grantable(call, body.role)
    user = await postgres_users.find_user_by_email(call.db, body.email)
    if user is not None and await postgres_orgs.find_member(call.db, call.org_id, user.id) is not None:
        raise ConflictError("This person is a member.", [InvalidField("/email", "is a member")])
    token, token_hash = new_secret(services)
    invitation = await postgres_orgs.add_invitation(
        call.db,
        invitation_id=new_id("inv", services.random_bytes),
        org_id=call.org_id,
        email=body.email,
        role=body.role,
        token_hash=token_hash,
        invited_by=call.actor.actor_id,
        expires_at=services.now() + INVITATION_LIFETIME,
    )
    await call.audit("invitation.create", invitation.id, after=invitation)
    link = mail_pages.link(services.public_url, mail_pages.ACCEPT_INVITATION, token)
    mail = Mail(body.email, "You are invited", link)
    call.after_commit.append(lambda: services.mail.send(mail))
    return invitation


@operation("DELETE", "/orgs/{org_id}/invitations/{invitation_id}", tag=TAG, access=Permission.MEMBERS_WRITE)
async def revoke_invitation(call: Call) -> None:
    """Take an open invitation back."""
    before = found(await postgres_orgs.revoke_invitation(call.db, call.org_id, call.param("invitation_id")))
    await call.audit("invitation.revoke", before.id, before=before)


@operation("POST", "/invitations/accept", tag=TAG, access=Open.SIGNED_IN)
async def accept_invitation(call: Call, body: Acceptance) -> Member:
    """Accept an invitation that was sent to my address, which verifies it."""
    services = call.services
    user = found(await postgres_users.find_user(call.db, call.actor.actor_id, lock=True))
    invitation = await postgres_orgs.use_invitation(
        call.db, hash_key(body.token, services.pepper), user.email, services.now()
    )
    if invitation is None:
        raise InvalidFieldsError(InvalidField("/token", "unknown, used, too old, or sent to another address"))
    if found(await postgres_orgs.find_org(call.db, invitation.org_id)).disabled_at is not None:
        raise ClosedOrganizationError
    member = await postgres_orgs.add_member(call.db, invitation.org_id, user.id, invitation.role)
    if user.email_verified_at is None:
        # The token came to the user's own address, by a mail like the one for this purpose.
        await postgres_users.verify_email(call.db, user.id, services.now())
        verified = await postgres_users.find_user(call.db, user.id)
        await call.audit("user.verify_email", user.id, before=user, after=verified)
    await call.audit("invitation.accept", invitation.id, before=invitation, after=member, org_id=invitation.org_id)
    return member


async def _member_to_change(call: Call, *to_give: Role) -> Member:
    # Locked in this order by everybody who changes members, so that two owners cannot remove each other.
    found(await postgres_orgs.find_org(call.db, call.org_id, lock=True))
    member = found(await postgres_orgs.find_member(call.db, call.org_id, call.param("user_id"), lock=True))
    pass_if_grantable(call, member.role, *to_give)
    return member


async def _leave(call: Call, member: Member) -> None:
    if member.role is Role.OWNER:
        await _require_other_owner(call, member)
    await postgres_orgs.remove_member(call.db, call.org_id, member.user_id)
    await call.audit("member.remove", member.user_id, before=member)
    makers = await postgres_makers.with_what_they_made(call.db, [member.user_id], org_id=call.org_id)
    await _take_back(call, makers)


async def _take_back_what_is_beyond(call: Call, user_id: str, role: Role) -> None:
    """End what a member has made that may more than they may from now on."""
    held = PERMISSIONS_BY_ROLE[role]
    tokens = await postgres_makers.tokens_beyond(call.db, call.org_id, user_id, held)
    await _take_back(call, await postgres_makers.with_what_they_made(call.db, tokens))
    still = roles_within(held) if Permission.MEMBERS_WRITE in held else ()
    await postgres_makers.take_back_invitations(
        call.db, [user_id], call.services.now(), org_id=call.org_id, but_to=still
    )


async def _take_back(call: Call, makers: Sequence[str]) -> None:
    now = call.services.now()
    for token in await postgres_makers.end_tokens(call.db, makers, now):
        await call.audit("token.revoke", token.id, before=token)
    await postgres_makers.take_back_invitations(call.db, makers, now, org_id=call.org_id)


async def _require_other_owner(call: Call, member: Member) -> None:
    if not await postgres_orgs.has_other_owner(call.db, call.org_id, member.user_id):
        raise ConflictError("An organisation needs an owner. Make somebody else one first.")
