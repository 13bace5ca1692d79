"""`/orgs/{org_id}/balance`, `/transactions`, `/credits`: what an organisation has, how that came about, and what operators give."""

from typing import Final

from control_plane.accounts.permissions import Permission
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.errors import InsufficientBalanceError
from control_plane.payments import postgres_balance
from control_plane.payments.model import Balance, Credit, Transaction
from control_plane.webhooks.model import EventType
from control_plane.webhooks.postgres_events import emit

TAG: Final = "billing"


@operation("GET", "/orgs/{org_id}/balance", tag=TAG, access=Permission.BILLING_READ)
async def get_balance(call: Call) -> Balance:
    """What an organisation has to spend, in real money."""
    return found(await postgres_balance.find_balance(call.db, call.org_id))


@operation("GET", "/orgs/{org_id}/transactions", tag=TAG, access=Permission.BILLING_READ)
async def list_transactions(call: Call, query: PageQuery) -> Page[Transaction]:
    """Everything that has changed the balance, the latest first."""
    return await page_of(
        call,
        query,
        Page[Transaction],
        lambda position, limit: postgres_balance.list_transactions(call.db, call.org_id, before=position, limit=limit),
    )


@operation("POST", "/orgs/{org_id}/credits", tag=TAG, access=Permission.PLATFORM_WRITE, status=201)
async def create_credit(call: Call, body: Credit) -> Transaction:
    """Give an organisation credit; with an amount below zero, take credit back."""
    transaction_id = await postgres_balance.credit(call.db, call.org_id, body.nano_usd, body.reason, call.actor)
    if transaction_id is None:
        raise InsufficientBalanceError
    made = await postgres_balance.find_transaction(call.db, call.org_id, transaction_id)
    await emit(call.db, call.org_id, EventType.CREDIT_CREATED, made)
    await call.audit("credit.create", call.org_id, after=made)
    return made
