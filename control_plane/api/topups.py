"""`/orgs/{org_id}/topups`: money that organisations pay in through Stripe."""

from typing import Final

from control_plane.accounts.permissions import Permission
from control_plane.api.balance import TAG
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.api.reading import is_dry_run
from control_plane.errors import NoPaymentsError
from control_plane.payments import postgres_topups
from control_plane.payments.model import NewTopUp, TopUp, TopUpWithCheckout, to_cents
from gateway_core.ids import new_id

_REHEARSED: Final = "cs_rehearsal"


async def _begin_checkout(call: Call, body: NewTopUp) -> None:
    """Ask Stripe before the transaction. What fails afterwards leaves a page at Stripe that nobody is told of."""
    payments = call.services.payments
    if payments is None:
        raise NoPaymentsError
    if not is_dry_run(call.request):
        topup_id = new_id("top", call.services.random_bytes)
        call.checkout = await payments.begin_checkout(
            topup_id, call.org_id, to_cents(body.amount), save_payment_method=body.save_payment_method
        )


@operation(
    "POST", "/orgs/{org_id}/topups", tag=TAG, access=Permission.BILLING_WRITE, status=201, prepare=_begin_checkout
)
async def create_topup(call: Call, body: NewTopUp) -> TopUpWithCheckout:
    """Begin to pay in; the answer says where to pay."""
    checkout = call.checkout
    made = await postgres_topups.add_topup(
        call.db,
        topup_id=new_id("top", call.services.random_bytes) if checkout is None else checkout.topup_id,
        org_id=call.org_id,
        cents=to_cents(body.amount),
        session_id=_REHEARSED if checkout is None else checkout.session_id,
        actor=call.actor,
    )
    await call.audit("topup.create", made.id, after=made)
    return TopUpWithCheckout(**made.model_dump(), checkout_url=None if checkout is None else checkout.url)


@operation("GET", "/orgs/{org_id}/topups", tag=TAG, access=Permission.BILLING_READ)
async def list_topups(call: Call, query: PageQuery) -> Page[TopUp]:
    """Top-ups of an organisation, the latest first."""
    return await page_of(
        call,
        query,
        Page[TopUp],
        lambda position, limit: postgres_topups.list_topups(call.db, call.org_id, before=position, limit=limit),
    )


@operation("GET", "/orgs/{org_id}/topups/{topup_id}", tag=TAG, access=Permission.BILLING_READ)
async def get_topup(call: Call) -> TopUp:
    """One top-up."""
    return found(await postgres_topups.find_topup(call.db, call.org_id, call.param("topup_id")))
