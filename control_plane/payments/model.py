"""Balances and their history, as the API shows them, and amounts as it reads them. Pure."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from control_plane.accounts.model import Resource
from control_plane.fields import Body, Name
from gateway_core.money import InvalidAmountError, NanoUsd, parse_usd

Currency = Literal["USD"]

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


SignedAmount = Annotated[str, StringConstraints(max_length=24), AfterValidator(_amount)]


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
    held: str = Field(description="The part of it that running requests hold.")
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


class Credit(Body):
    """What an operator gives, or takes back."""

    amount: SignedAmount = Field(description="Below zero, it takes back: never more than is available.")
    currency: Currency
    reason: Name = Field(description="For people to read, in the history of the organisation.")

    @property
    def nano_usd(self) -> NanoUsd:
        """The amount."""
        return parse_usd(self.amount)
