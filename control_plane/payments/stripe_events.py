"""What Stripe tells us, read: three facts about payments. Pure.

Several kinds of events tell the same fact; whichever comes first counts, and the others find it known. Facts are absolute
("refunded 5 in all", "lost"), so it does not matter in which order or how often they are told.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from control_plane.payments.model import DisputeStatus

TOPUP_ID: Final = "topup_id"
"""In the metadata of what we ask Stripe for. What has none is not ours: the account may be used for other things, too."""


OFF_SESSION: Final = "off_session"
"""Stripe's word for a payment while nobody is there."""


class UnreadableEventError(ValueError):
    """An event that has not what its type promises."""


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """What can be charged while nobody is there, by its names at Stripe."""

    customer: str
    payment_method: str


@dataclass(frozen=True, slots=True)
class Paid:
    """Somebody has paid.

    Attributes:
        saved: what they have paid with, if they have agreed to pay with it again. Not every event that tells of the payment
            tells this.
    """

    topup_id: str
    payment_intent: str
    cents: int
    currency: str
    saved: PaymentMethod | None = None


@dataclass(frozen=True, slots=True)
class Refunded:
    """So much of a payment has been given back, in all."""

    payment_intent: str
    cents: int
    currency: str


@dataclass(frozen=True, slots=True)
class Disputed:
    """A bank takes a payment back, or has decided about that."""

    payment_intent: str
    dispute_id: str
    cents: int
    currency: str
    status: DisputeStatus


Fact = Paid | Refunded | Disputed


class _Part(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class _Data(_Part):
    object: dict[str, Any]


class StripeEvent(_Part):
    """An event, its object not yet read."""

    id: str = Field(min_length=1, max_length=255)
    type: str = Field(max_length=255)
    data: _Data

    @classmethod
    def read(cls, raw: bytes) -> "StripeEvent":
        """From the body of a delivery.

        Raises:
            UnreadableEventError: it is none.
        """
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise UnreadableEventError("not an event") from error

    @property
    def input_hash(self) -> bytes:
        """Equal for every delivery of the same event."""
        text = json.dumps([self.type, self.data.object], sort_keys=True)
        return hashlib.sha256(text.encode()).digest()


class _Session(_Part):
    payment_intent: str
    payment_status: str
    amount_total: int
    currency: str
    metadata: Mapping[str, str]


class _PaymentIntent(_Part):
    id: str
    amount_received: int
    currency: str
    metadata: Mapping[str, str]
    setup_future_usage: str | None = None
    customer: str | None = None
    payment_method: str | None = None

    @property
    def saved(self) -> PaymentMethod | None:
        if self.setup_future_usage != OFF_SESSION or self.customer is None or self.payment_method is None:
            return None
        return PaymentMethod(self.customer, self.payment_method)


class _Charge(_Part):
    payment_intent: str | None
    amount_refunded: int = Field(ge=0)
    currency: str


class _Dispute(_Part):
    id: str
    payment_intent: str | None
    amount: int = Field(gt=0)
    currency: str
    status: str


_Kind = Literal["session", "payment_intent", "charge", "dispute"]

_KINDS: Final[Mapping[str, _Kind]] = {
    "checkout.session.completed": "session",
    "checkout.session.async_payment_succeeded": "session",
    "payment_intent.succeeded": "payment_intent",
    "charge.refunded": "charge",
    "charge.dispute.created": "dispute",
    "charge.dispute.closed": "dispute",
}
"""What the webhook endpoint at Stripe has to send. Others are taken and mean nothing."""

# An inquiry moves no money, nor does the end of one.
_INQUIRIES: Final = "warning_"
_DECIDED: Final = {"won": DisputeStatus.WON, "lost": DisputeStatus.LOST}


def fact_of(event: StripeEvent) -> Fact | None:
    """The fact that an event tells; None if it is about nothing of ours, or about nothing that moves money.

    Raises:
        UnreadableEventError: it is of a type we know and not what that promises.
    """
    try:
        return _fact(_KINDS.get(event.type), event.data.object)
    except ValidationError as error:
        missing = ", ".join(".".join(map(str, each["loc"])) for each in error.errors())
        raise UnreadableEventError(f"unreadable: {missing}") from error


def _fact(kind: _Kind | None, found: Mapping[str, Any]) -> Fact | None:
    match kind:
        case "session":
            if TOPUP_ID not in (found.get("metadata") or {}) or found.get("payment_status") != "paid":
                return None
            session = _Session.model_validate(found)
            return Paid(session.metadata[TOPUP_ID], session.payment_intent, session.amount_total, session.currency)
        case "payment_intent":
            if TOPUP_ID not in (found.get("metadata") or {}):
                return None
            intent = _PaymentIntent.model_validate(found)
            return Paid(
                intent.metadata[TOPUP_ID], intent.id, intent.amount_received, intent.currency, saved=intent.saved
            )
        case "charge":
            charge = _Charge.model_validate(found)
            if charge.payment_intent is None:
                return None
            return Refunded(charge.payment_intent, charge.amount_refunded, charge.currency)
        case "dispute":
            dispute = _Dispute.model_validate(found)
            if dispute.payment_intent is None or dispute.status.startswith(_INQUIRIES):
                return None
            status = _DECIDED.get(dispute.status, DisputeStatus.OPEN)
            return Disputed(dispute.payment_intent, dispute.id, dispute.amount, dispute.currency, status)
        case None:
            return None
