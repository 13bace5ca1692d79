"""`/requests/{request_id}` and `/orgs/{org_id}/requests`: what became of single requests, and what was tried for them."""

from typing import Final

from pydantic import Field

from control_plane.accounts.permissions import Open, Permission
from control_plane.api.dispatch import standing_in
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.errors import NotFoundError
from control_plane.fields import Moment
from control_plane.requests import postgres_requests
from control_plane.requests.model import Outcome, Request, RequestSummary

TAG: Final = "requests"


class RequestsQuery(PageQuery):
    """Which requests."""

    since: Moment | None = Field(default=None, description="That began then or later.")
    until: Moment | None = Field(default=None, description="And before this.")
    status: int | None = Field(default=None, ge=0, le=999)
    outcome: Outcome | None = None
    key_id: str | None = Field(default=None, max_length=200)
    model: str | None = Field(default=None, max_length=200, description="Its own name, or the one that was asked for.")


@operation("GET", "/requests/{request_id}", tag=TAG, access=Open.KNOWN)
async def get_request(call: Call) -> Request:
    """A finished request by its `x-request-id`, with every attempt that was made for it; for members of its organisation."""
    request_id = call.param("request_id")
    owner = found(await postgres_requests.find_owner(call.db, request_id))
    role = None if owner.org_id is None else (await standing_in(owner.org_id, call.actor, call.db)).role
    for_operator = call.actor.may(Permission.PLATFORM_READ, role)
    if not for_operator and (owner.org_id is None or not call.actor.may(Permission.ORG_READ, role)):
        raise NotFoundError
    return found(await postgres_requests.find_request(call.db, request_id, for_operator=for_operator))


@operation("GET", "/orgs/{org_id}/requests", tag=TAG, access=Permission.ORG_READ)
async def list_requests(call: Call, query: RequestsQuery) -> Page[RequestSummary]:
    """Finished requests of an organisation, the latest first; those in quarantine are not among them."""
    return await page_of(
        call,
        query,
        Page[RequestSummary],
        lambda position, limit: postgres_requests.list_requests(
            call.db,
            call.org_id,
            since=query.since,
            until=query.until,
            status=query.status,
            outcome=query.outcome,
            key_id=query.key_id,
            model=query.model,
            before=position,
            limit=limit,
        ),
    )
