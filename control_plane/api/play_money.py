"""`/orgs/{org_id}/test-balance`: play money for test keys. It goes with the keys and not with the bills."""

from typing import Final

from control_plane.accounts.permissions import Permission
from control_plane.accounts.postgres_play_money import PlayMoney, find_play_money, refill_play_money
from control_plane.api.operation import Call, found, operation

TAG: Final = "keys"


@operation("GET", "/orgs/{org_id}/test-balance", tag=TAG, access=Permission.KEYS_READ)
async def get_test_balance(call: Call) -> PlayMoney:
    """The play money that is left for test keys."""
    return found(await find_play_money(call.db, call.org_id))


@operation("POST", "/orgs/{org_id}/test-balance/refill", tag=TAG, access=Permission.KEYS_WRITE)
async def refill_test_balance(call: Call) -> PlayMoney:
    """Fill the test balance up to 1,000 US dollars again. No real money moves."""
    before = found(await find_play_money(call.db, call.org_id))
    await refill_play_money(call.db, call.org_id)
    after = found(await find_play_money(call.db, call.org_id))
    await call.audit("test_balance.refill", call.org_id, before=before, after=after)
    return after
