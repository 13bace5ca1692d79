"""Webhooks and deliveries as the API shows them, and what it reads. Pure."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from control_plane.catalog.addresses import check_url
from control_plane.circumstances import Circumstances, judged
from control_plane.fields import SHOWN_ONCE, Body
from control_plane.resource import Resource, Revised

WEBHOOKS_MAX: Final = 20
"""Of one organisation. Each of them is one more attempt for everything that happens."""

_DAY_S: Final = 24 * 3600


class EventType(StrEnum):
    """What can have happened. Beside each, what its `data` is."""

    BALANCE_LOW = "balance.low"  # LowBalanceNotice
    TOPUP_PAID = "topup.paid"  # TopUp
    TOPUP_FAILED = "topup.failed"  # TopUp
    PAYMENT_REFUNDED = "payment.refunded"  # Transaction
    PAYMENT_DISPUTED = "payment.disputed"  # Transaction
    DISPUTE_CLOSED = "dispute.closed"  # Dispute
    CREDIT_CREATED = "credit.created"  # Transaction
    VOUCHER_REDEEMED = "voucher.redeemed"  # Transaction
    INVOICE_CLOSED = "invoice.closed"  # InvoiceSummary
    WEBHOOK_TEST = "webhook.test"  # Webhook


class DisabledBecause(StrEnum):
    """Why we have disabled a webhook."""

    GONE = "gone"
    """It answered 410."""
    FAILING = "failing"
    """It has taken nothing for three days."""


class DeliveryState(StrEnum):
    """How far a delivery has got."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


class Fault(StrEnum):
    """Why an attempt did not succeed."""

    ANSWER = "answer"
    """Answered, but not with a 2xx."""
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    """Not reached, cut off, or not answered in HTTP."""
    TLS = "tls"
    ADDRESS = "address"
    """Its name leads to where no webhook may be."""
    SECRET = "secret"  # noqa: S105 - a kind of fault
    """What it is signed with does not open with the keys of this installation."""
    DISABLED = "disabled"
    """No attempt at all: its webhook was disabled while it waited."""


# Printable ASCII without space, # and \.
_QUERY: Final = re.compile(r'[!"$-\[\]-~]*')


def _check_url(url: str, circumstances: Circumstances) -> None:
    # The name is not looked up: what it means now binds nobody, and whoever connects judges the address.
    place, _, query = url.partition("?")
    check_url(place, private_allowed=circumstances.private_webhooks_allowed)
    if not _QUERY.fullmatch(query):
        raise ValueError("the query must be in plain characters")


Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2000),
    judged(_check_url),
    Field(
        description="`https` only, unless the operator allows private addresses, as a local stack does. Redirects are not followed.",
        examples=["https://example.com/hooks/tollgate"],
    ),
]


class WebhookChange(Body):
    """What can be changed about a webhook; what is left out stays as it is."""

    url: Url = ""
    event_types: list[EventType] = Field(
        default=[],
        max_length=len(EventType),
        description="What it is told; none means everything, new types included. `webhook.test` always comes.",
    )
    enabled: bool = Field(
        default=True, description="Disabled, it is told nothing: what waits fails, what happens meanwhile is left out."
    )


class NewWebhook(WebhookChange):
    """Where to tell what happens."""

    url: Url


class SecretRotation(Body):
    """How long the old secret goes on signing beside the new one."""

    overlap_s: int = Field(default=_DAY_S, ge=0, le=30 * _DAY_S)


class Webhook(Revised):
    """Where it is told what happens, without the secret that signs it."""

    id: str
    org_id: str
    url: str
    event_types: list[EventType] = Field(description="None means everything.")
    enabled: bool
    disabled_because: DisabledBecause | None = Field(
        description="Why it was disabled without anybody asking: it answered 410, or took nothing for three days."
    )
    previous_secret_until: datetime | None = Field(
        description="Until when the secret before the last rotation signs as well."
    )
    created_at: datetime


class WebhookWithSecret(Webhook):
    """A webhook, this once with its secret."""

    secret: str = Field(
        description="Keep it: it is shown only now. Standard Webhooks libraries take it as it is.",
        json_schema_extra=SHOWN_ONCE,
    )


class Delivery(Resource):
    """One event for one webhook."""

    id: str
    event_id: str = Field(description="`webhook-id` of every attempt, and `id` in the body.")
    event_type: str
    state: DeliveryState
    attempts: int = Field(description="How many have begun, replays included.")
    last_status: int | None = Field(description="The status of the latest answer.")
    last_fault: Fault | None = Field(description="Why the latest attempt did not succeed.")
    next_attempt_at: datetime | None
    created_at: datetime
    ended_at: datetime | None = Field(description="When it was delivered, or given up.")
