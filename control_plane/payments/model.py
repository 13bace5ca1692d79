"""Balances and their history, as the API shows them, and amounts as it reads them. Pure."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator

from control_plane.fields import SECRET, SHOWN_ONCE, Body, Moment, Name
from control_plane.resource import Resource, Revised
from gateway_core.money import Currency, InvalidAmountError, NanoUsd, parse_usd

CURRENCY_AT_STRIPE: Final = "usd"
NANO_USD_PER_CENT: Final = 10_000_000
TOPUP_CENTS_MIN: Final = 50
TOPUP_CENTS_MAX: Final = 99_999_999
"""Stripe's bounds for one payment in US dollars."""

CREDIT_NANO_USD_MAX: Final = 1_000_000 * 1_000_000_000
"""One million dollars: a slip of the finger is smaller than that, and no sum of an account comes near its bound."""


def _amount(text: str) -> str:
    try:
        amount = parse_usd(text)
    except InvalidAmountError as error:
        raise ValueError("not an amount of US dollars with at most nine decimals") from error
    if amount == 0:
        raise ValueError("must not be zero")
    if abs(amount) > CREDIT_NANO_USD_MAX:
        raise ValueError("must be at most 1000000")
    return text


def to_cents(text: str) -> int:
    """An amount in Stripe's unit.

    Raises:
        ValueError: it is no amount, no whole number of cents, or not what one payment can be.
    """
    try:
        cents, rest = divmod(parse_usd(text), NANO_USD_PER_CENT)
    except InvalidAmountError as error:
        raise ValueError("not an amount of US dollars") from error
    if rest:
        raise ValueError("must be whole cents")
    if not TOPUP_CENTS_MIN <= cents <= TOPUP_CENTS_MAX:
        raise ValueError("must be from 0.50 to 999999.99")
    return cents


def from_cents(cents: int) -> NanoUsd:
    """The amount that is so many cents."""
    return NanoUsd(cents * NANO_USD_PER_CENT)


def _payable(text: str) -> str:
    to_cents(text)
    return text


def _positive(text: str) -> str:
    if parse_usd(_amount(text)) < 0:
        raise ValueError("must be more than zero")
    return text


PositiveAmount = Annotated[str, StringConstraints(max_length=24), AfterValidator(_positive), Field(examples=["25.00"])]
PayableAmount = Annotated[str, StringConstraints(max_length=24), AfterValidator(_payable), Field(examples=["25.00"])]
SignedAmount = Annotated[str, StringConstraints(max_length=24), AfterValidator(_amount), Field(examples=["25.00"])]


class DisputeStatus(StrEnum):
    """Where the money of a disputed payment is: with the bank, back with us, or with the bank for good."""

    OPEN = "open"
    WON = "won"
    LOST = "lost"


class TransactionKind(StrEnum):
    """Why money moved."""

    USAGE = "usage"
    CREDIT = "credit"
    VOUCHER = "voucher"
    TOPUP = "topup"
    REFUND = "refund"
    DISPUTE = "dispute"
    DISPUTE_WON = "dispute_won"


class Balance(Resource):
    """What an organisation has, in real money."""

    currency: Currency = "USD"
    posted: str = Field(description="What was paid in and not yet spent.")
    held: str = Field(
        description="Set aside for requests: for those that run, and for two minutes ahead where there is plenty."
    )
    available: str = Field(description="What new requests can spend: posted without held.")
    receivable: str = Field(description="What the organisation owes. What is paid in next pays this first.")


class Transaction(Resource):
    """One change of what an organisation has or owes."""

    id: int
    kind: TransactionKind
    currency: Currency = "USD"
    amount: str = Field(description="What it added to the balance; below zero, what it took.")
    receivable: str = Field(
        description="What it added to what the organisation owes; below zero, what it paid of that."
    )
    reason: str | None
    reference: str | None = Field(description="What it follows from: a request, a payment, a dispute, a voucher.")
    actor_kind: str | None
    actor_id: str | None
    created_at: datetime


class LowBalanceNotice(Resource):
    """That a balance has run low, as webhooks are told."""

    currency: Currency = "USD"
    available: str
    low_balance: str = Field(description="Below which the organisation wanted to be told.")


class Dispute(Resource):
    """A payment that a bank has taken back, and how that ended, as webhooks are told."""

    id: str = Field(description="At Stripe; the reference of its transactions.")
    topup_id: str
    amount: str
    currency: Currency = "USD"
    status: DisputeStatus


class Credit(Body):
    """What an operator gives, or takes back."""

    amount: SignedAmount = Field(description="Below zero, it takes back: never more than is available.")
    currency: Currency
    reason: Name = Field(description="For people to read, in the history of the organisation.")

    @property
    def nano_usd(self) -> NanoUsd:
        """The amount."""
        return parse_usd(self.amount)


class TopUpState(StrEnum):
    """How far a top-up has got."""

    OPEN = "open"
    PAID = "paid"
    FAILED = "failed"


class NewTopUp(Body):
    """How much to pay."""

    amount: PayableAmount = Field(description="From 0.50 to 999999.99, in whole cents.")
    currency: Currency
    save_payment_method: bool = Field(
        default=False, description="Keep the payment method at Stripe, for top-ups that are made automatically."
    )


class TopUp(Resource):
    """Money that an organisation pays in."""

    id: str
    amount: str
    currency: Currency = "USD"
    state: TopUpState = Field(description="`paid` as soon as Stripe says so; then it is in the balance.")
    automatic: bool = Field(description="Whether it was made because the balance ran low.")
    failure: str | None = Field(description="Why an automatic one has failed, in Stripe's words.")
    created_at: datetime
    paid_at: datetime | None


class TopUpWithCheckout(TopUp):
    """A new top-up, and where it is paid."""

    checkout_url: str | None = Field(
        description="Open it in a browser to pay, within a day. Null in a rehearsal.", json_schema_extra=SHOWN_ONCE
    )


class AutomaticTopUp(Body):
    """When and how much to pay without being asked."""

    below: PositiveAmount = Field(description="Pay when less than this is available.")
    amount: PayableAmount
    month_max: PayableAmount = Field(description="The most that is paid so in a calendar month (UTC).")

    @field_validator("month_max")
    @classmethod
    def _check_month(cls, text: str, info: ValidationInfo) -> str:
        if "amount" in info.data and to_cents(text) < to_cents(info.data["amount"]):
            raise ValueError("must be at least one amount")
        return text


class PaymentSettingsSpec(Body):
    """What to do when the balance runs low."""

    currency: Currency
    low_balance: PositiveAmount | None = Field(
        default=None, description="Tell owners and billing members by mail when less than this is available."
    )
    automatic_topup: AutomaticTopUp | None = None


class PaymentSettings(Revised):
    """What is done when the balance runs low."""

    currency: Currency = "USD"
    low_balance: str | None
    automatic_topup: AutomaticTopUp | None
    has_payment_method: bool = Field(description="Whether one was saved with a top-up; without one nothing is paid.")
    paused_until: datetime | None = Field(
        description="Nothing is paid automatically before, because the last time failed."
    )


class NewVoucher(Body):
    """A code that gives credit."""

    amount: PositiveAmount
    currency: Currency
    uses: int = Field(default=1, ge=1, le=1_000_000, description="How many organisations can redeem it, once each.")
    expires_at: Moment | None = None
    reason: Name = Field(description="For people to read, in the history of who redeems it.")


class Voucher(Resource):
    """A code that gives credit; the code itself is not kept."""

    id: str
    amount: str
    currency: Currency = "USD"
    uses: int = Field(description="How often it has been redeemed.")
    uses_max: int
    expires_at: datetime | None
    reason: str
    created_at: datetime
    withdrawn_at: datetime | None


class VoucherWithCode(Voucher):
    """A new voucher."""

    code: str = Field(json_schema_extra=SHOWN_ONCE)


class Redemption(Body):
    """A voucher to redeem."""

    code: str = Field(min_length=1, max_length=100, json_schema_extra=SECRET)
