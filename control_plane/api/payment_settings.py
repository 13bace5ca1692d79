"""`/orgs/{org_id}/payment-settings`: what is done when a balance runs low."""

from control_plane.accounts.permissions import Permission
from control_plane.api.balance import TAG
from control_plane.api.operation import Call, operation
from control_plane.errors import NoPaymentsError
from control_plane.payments import postgres_settings
from control_plane.payments.model import PaymentSettings, PaymentSettingsSpec


@operation("GET", "/orgs/{org_id}/payment-settings", tag=TAG, access=Permission.BILLING_READ)
async def get_payment_settings(call: Call) -> PaymentSettings:
    """What is done when the balance runs low."""
    return await postgres_settings.find_settings(call.db, call.org_id)


@operation("PUT", "/orgs/{org_id}/payment-settings", tag=TAG, access=Permission.BILLING_WRITE, needs_revision=True)
async def put_payment_settings(call: Call, body: PaymentSettingsSpec) -> PaymentSettings:
    """Replace what is done when the balance runs low."""
    if body.automatic_topup is not None and call.services.payments is None:
        raise NoPaymentsError
    before = await postgres_settings.find_settings(call.db, call.org_id, lock=True)
    if before.revision or call.has_precondition:
        call.match(before.revision)
    after = await postgres_settings.write_settings(call.db, call.org_id, body)
    await call.audit("payment_settings.put", call.org_id, before=before, after=after)
    return after
