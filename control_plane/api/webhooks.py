"""`/orgs/{org_id}/webhooks`: where an organisation's own systems are told what happens to its money."""

from datetime import timedelta
from typing import Final

from pydantic import SecretStr

from control_plane.accounts.permissions import Permission
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.errors import ConflictError
from control_plane.sealing import webhook_secret
from control_plane.webhooks import postgres_deliveries, postgres_webhooks
from control_plane.webhooks.model import (
    WEBHOOKS_MAX,
    Delivery,
    DeliveryState,
    NewWebhook,
    SecretRotation,
    Webhook,
    WebhookChange,
    WebhookWithSecret,
)
from control_plane.webhooks.postgres_events import emit_test
from control_plane.webhooks.postgres_webhooks import WebhookSettings
from control_plane.webhooks.signature import new_secret
from gateway_core.ids import new_id

TAG: Final = "webhooks"


@operation("GET", "/orgs/{org_id}/webhooks", tag=TAG, access=Permission.BILLING_READ)
async def list_webhooks(call: Call, query: PageQuery) -> Page[Webhook]:
    """Webhooks of an organisation."""
    return await page_of(
        call,
        query,
        Page[Webhook],
        lambda position, limit: postgres_webhooks.list_webhooks(call.db, call.org_id, after=position, limit=limit),
    )


@operation("POST", "/orgs/{org_id}/webhooks", tag=TAG, access=Permission.BILLING_WRITE, status=201)
async def create_webhook(call: Call, body: NewWebhook) -> WebhookWithSecret:
    """Have something told what happens to the organisation's money from now on."""
    if await postgres_webhooks.count_webhooks(call.db, call.org_id) >= WEBHOOKS_MAX:
        raise ConflictError(f"An organisation has at most {WEBHOOKS_MAX} webhooks.")
    webhook_id = new_id("whk", call.services.random_bytes)
    secret, sealed_secret = _new_secret(call, webhook_id)
    made = await postgres_webhooks.add_webhook(
        call.db,
        webhook_id=webhook_id,
        org_id=call.org_id,
        settings=_settings(None, body),
        sealed_secret=sealed_secret,
    )
    await call.audit("webhook.create", made.id, after=made)
    return WebhookWithSecret(**made.model_dump(), secret=secret.get_secret_value())


@operation("GET", "/orgs/{org_id}/webhooks/{webhook_id}", tag=TAG, access=Permission.BILLING_READ)
async def get_webhook(call: Call) -> Webhook:
    """One webhook."""
    return await _webhook(call)


@operation(
    "PATCH", "/orgs/{org_id}/webhooks/{webhook_id}", tag=TAG, access=Permission.BILLING_WRITE, needs_revision=True
)
async def change_webhook(call: Call, body: WebhookChange) -> Webhook:
    """Change a webhook. One that was disabled because it failed is enabled so."""
    before = await _webhook(call, lock=True)
    call.match(before.revision)
    settings = _settings(before, body)
    after = await postgres_webhooks.change_webhook(
        call.db,
        before.id,
        settings,
        now=call.services.now(),
        disabled_because=None if settings.enabled else before.disabled_because,
    )
    await call.audit("webhook.change", before.id, before=before, after=after)
    return after


@operation("DELETE", "/orgs/{org_id}/webhooks/{webhook_id}", tag=TAG, access=Permission.BILLING_WRITE)
async def delete_webhook(call: Call) -> None:
    """Remove a webhook, with its deliveries."""
    before = await _webhook(call, lock=True)
    await postgres_webhooks.delete_webhook(call.db, before.id)
    await call.audit("webhook.delete", before.id, before=before)


@operation("POST", "/orgs/{org_id}/webhooks/{webhook_id}/rotate", tag=TAG, access=Permission.BILLING_WRITE)
async def rotate_webhook(call: Call, body: SecretRotation) -> WebhookWithSecret:
    """Give a webhook a new secret; the old one signs as well until the overlap is over."""
    before = await _webhook(call, lock=True)
    secret, sealed_secret = _new_secret(call, before.id)
    after = await postgres_webhooks.rotate_secret(
        call.db, before.id, sealed_secret, before_until=call.services.now() + timedelta(seconds=body.overlap_s)
    )
    await call.audit("webhook.rotate", before.id, before=before, after=after)
    return WebhookWithSecret(**after.model_dump(), secret=secret.get_secret_value())


@operation("POST", "/orgs/{org_id}/webhooks/{webhook_id}/test", tag=TAG, access=Permission.BILLING_WRITE, status=201)
async def test_webhook(call: Call) -> Delivery:
    """Tell a webhook that it is being tried out. One test at a time."""
    webhook = _enabled(await _webhook(call, lock=True))
    if await postgres_deliveries.is_test_waiting(call.db, webhook.id):
        raise ConflictError("A test of this webhook is still waiting to be delivered.")
    made = await _delivery(call, await emit_test(call.db, webhook))
    await call.audit("webhook.test", webhook.id, after=made)
    return made


@operation("GET", "/orgs/{org_id}/webhooks/{webhook_id}/deliveries", tag=TAG, access=Permission.BILLING_READ)
async def list_webhook_deliveries(call: Call, query: PageQuery) -> Page[Delivery]:
    """What a webhook was told in the last 30 days, and is to be told; the latest first."""
    webhook = await _webhook(call)
    return await page_of(
        call,
        query,
        Page[Delivery],
        lambda position, limit: postgres_deliveries.list_deliveries(call.db, webhook.id, before=position, limit=limit),
    )


@operation(
    "POST",
    "/orgs/{org_id}/webhooks/{webhook_id}/deliveries/{delivery_id}/replay",
    tag=TAG,
    access=Permission.BILLING_WRITE,
)
async def replay_webhook_delivery(call: Call) -> Delivery:
    """Tell a webhook once more what it was told, or was not; the `webhook-id` stays the same."""
    _enabled(await _webhook(call, lock=True))
    before = await _delivery(call, call.param("delivery_id"), lock=True)
    if before.state is DeliveryState.WAITING:
        raise ConflictError("This delivery is still waiting to be made.")
    await postgres_deliveries.begin_again(call.db, before.id, call.services.now())
    after = await _delivery(call, before.id)
    await call.audit("webhook.replay", before.id, before=before, after=after)
    return after


async def _webhook(call: Call, *, lock: bool = False) -> Webhook:
    return found(await postgres_webhooks.find_webhook(call.db, call.org_id, call.param("webhook_id"), lock=lock))


async def _delivery(call: Call, delivery_id: str, *, lock: bool = False) -> Delivery:
    return found(
        await postgres_deliveries.find_delivery(call.db, call.org_id, call.param("webhook_id"), delivery_id, lock=lock)
    )


def _enabled(webhook: Webhook) -> Webhook:
    if not webhook.enabled:
        raise ConflictError("This webhook is disabled. Enable it first.")
    return webhook


def _new_secret(call: Call, webhook_id: str) -> tuple[SecretStr, bytes]:
    secret = new_secret(call.services.random_bytes)
    return secret, call.services.seal.seal_secret(webhook_secret(webhook_id), secret)


def _settings(before: Webhook | None, body: WebhookChange) -> WebhookSettings:
    """What the webhook's settings are to be: those of the body, and for the rest what they were."""
    if before is not None:
        kept = WebhookChange.model_fields.keys() - body.model_fields_set
        body = body.model_copy(update={name: getattr(before, name) for name in kept})
    return WebhookSettings(body.url, sorted(set(body.event_types)), body.enabled)
