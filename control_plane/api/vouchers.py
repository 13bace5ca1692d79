"""`/vouchers`: codes that operators make and organisations redeem."""

from typing import Final

from control_plane.accounts.permissions import Permission
from control_plane.api.balance import TAG
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.payments import postgres_vouchers
from control_plane.payments.model import NewVoucher, Redemption, Transaction, Voucher, VoucherWithCode
from control_plane.payments.postgres_balance import find_transaction
from control_plane.webhooks.model import EventType
from control_plane.webhooks.postgres_events import emit
from gateway_core.api_keys import KeyHash, hash_key
from gateway_core.ids import RandomBytes, new_id

_GROUP: Final = 4


@operation("GET", "/vouchers", tag=TAG, access=Permission.PLATFORM_READ)
async def list_vouchers(call: Call, query: PageQuery) -> Page[Voucher]:
    """All vouchers, the latest first."""
    return await page_of(
        call,
        query,
        Page[Voucher],
        lambda position, limit: postgres_vouchers.list_vouchers(call.db, before=position, limit=limit),
    )


@operation("POST", "/vouchers", tag=TAG, access=Permission.PLATFORM_WRITE, status=201)
async def create_voucher(call: Call, body: NewVoucher) -> VoucherWithCode:
    """Make a code that gives credit."""
    code = _new_code(call.services.random_bytes)
    made = await postgres_vouchers.add_voucher(
        call.db,
        voucher_id=new_id("vou", call.services.random_bytes),
        code_hash=_hash(call, code),
        spec=body,
        created_by=call.actor.actor_id,
    )
    await call.audit("voucher.create", made.id, after=made)
    return VoucherWithCode(**made.model_dump(), code=code)


@operation("DELETE", "/vouchers/{voucher_id}", tag=TAG, access=Permission.PLATFORM_WRITE)
async def withdraw_voucher(call: Call) -> None:
    """Withdraw a voucher. What was redeemed stays in the balances."""
    withdrawn = found(await postgres_vouchers.withdraw_voucher(call.db, call.param("voucher_id")))
    await call.audit("voucher.withdraw", withdrawn.id, after=withdrawn)


@operation("POST", "/orgs/{org_id}/redemptions", tag=TAG, access=Permission.BILLING_WRITE, status=201)
async def create_redemption(call: Call, body: Redemption) -> Transaction:
    """Redeem a voucher, once for each organisation."""
    transaction_id = await postgres_vouchers.redeem(
        call.db, call.org_id, _hash(call, body.code), now=call.services.now(), actor=call.actor
    )
    made = await find_transaction(call.db, call.org_id, transaction_id)
    await emit(call.db, call.org_id, EventType.VOUCHER_REDEEMED, made)
    await call.audit("voucher.redeem", made.reference or "", after=made)
    return made


def _new_code(random_bytes: RandomBytes) -> str:
    """Such as `TG-7C2K-...`: 80 random bits, which nobody finds by trying, in an alphabet without look-alikes."""
    characters = new_id("TG", random_bytes).partition("_")[2].upper()
    return "-".join(["TG", *(characters[start : start + _GROUP] for start in range(0, len(characters), _GROUP))])


def _hash(call: Call, code: str) -> KeyHash:
    # However somebody has typed it.
    return hash_key("".join(filter(str.isalnum, code.upper())), call.services.pepper)
