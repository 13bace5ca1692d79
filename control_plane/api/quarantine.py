"""`/billing/quarantine`: requests that nobody could price, and what an operator decides about them."""

import re
from typing import Annotated, Final

from pydantic import Field

from control_plane.accounts.permissions import Permission
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.errors import ConflictError, NotFoundError
from control_plane.payments import postgres_quarantine
from control_plane.payments.quarantine import Decision, NewDecision, QuarantinedLine, QuarantinedLineWhole
from gateway_core.money import parse_usd

TAG: Final = "quarantine"

_ID: Final = re.compile(r"[0-9]{1,18}")


class QuarantineQuery(PageQuery):
    """Which lines."""

    reason: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="How the reason begins, such as UnpricedError."
    )
    open: bool | None = Field(default=None, description="Those without a decision, or those with one.")


@operation("GET", "/billing/quarantine", tag=TAG, access=Permission.PLATFORM_READ)
async def list_quarantine(call: Call, query: QuarantineQuery) -> Page[QuarantinedLine]:
    """Lines that did not become finished requests by themselves, the latest first."""
    return await page_of(
        call,
        query,
        Page[QuarantinedLine],
        lambda position, limit: postgres_quarantine.list_lines(
            call.db, reason=query.reason, is_open=query.open, before=position, limit=limit
        ),
    )


@operation("GET", "/billing/quarantine/{quarantine_id}", tag=TAG, access=Permission.PLATFORM_READ)
async def get_quarantined(call: Call) -> QuarantinedLineWhole:
    """One line, whole."""
    return found(await postgres_quarantine.find_line(call.db, _id(call)))


@operation("POST", "/billing/quarantine/{quarantine_id}/decision", tag=TAG, access=Permission.PLATFORM_WRITE)
async def decide_quarantined(call: Call, body: NewDecision) -> QuarantinedLineWhole:
    """Charge for the request of a line, or release what is held for it: once, and for good.

    The same decision again answers with what was done then.
    """
    quarantine_id = _id(call)
    before = found(await postgres_quarantine.find_line(call.db, quarantine_id))
    if not await postgres_quarantine.decide(call.db, quarantine_id, body, call.actor):
        raise ConflictError("Its request is recorded already, or nobody is known who would pay for it.")
    after = found(await postgres_quarantine.find_line(call.db, quarantine_id))
    if not _is_the_same(found(after.decision), body):
        raise ConflictError("Another decision was made about it before.")
    await call.audit(
        "quarantine.decide",
        str(quarantine_id),
        before=before.without_evidence(),
        after=after.without_evidence(),
        org_id=after.org_id,
    )
    return after


def _is_the_same(made: Decision, wanted: NewDecision) -> bool:
    stated = None if made.amount is None else parse_usd(made.amount)
    return made.decision is wanted.decision and stated == (None if wanted.amount is None else parse_usd(wanted.amount))


def _id(call: Call) -> int:
    text = call.param("quarantine_id")
    if not _ID.fullmatch(text):
        raise NotFoundError
    return int(text)
