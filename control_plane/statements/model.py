"""Usage, budgets, receipts and invoices, as the API shows them. Pure."""

from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from control_plane.fields import Moment
from control_plane.payments.model import TransactionKind
from control_plane.resource import Resource
from gateway_core.mode import Mode
from gateway_core.money import Currency

USAGE_DAYS_MAX: Final = 366
USAGE_ROWS_MAX: Final = 10_000


class InvoiceState(StrEnum):
    """Whether it can still change."""

    DRAFT = "draft"
    CLOSED = "closed"


class InvoiceLine(Resource):
    """One kind of what moved money; usage has a line for each project and model."""

    kind: TransactionKind
    project_id: str | None = Field(description="Of usage.")
    model: str | None = Field(description="Of usage.")
    count: int = Field(description="How many requests, payments, credits, ...")
    meters: Mapping[str, int] | None = Field(description="Of usage: what was counted, by meter.")
    amount: str = Field(description="What it added; below zero, what it took.")


class InvoiceSummary(Resource):
    """An invoice without its lines."""

    id: str
    number: int | None = Field(description="Counts the organisation's invoices without gaps; null of a draft.")
    state: InvoiceState
    month: date = Field(description="Its first day.")
    time_zone: str = Field(description="By whose clock the month begins and ends.")
    ends_at: datetime
    currency: Currency = "USD"
    opening_balance: str = Field(description="What the organisation had before, less what it owed.")
    closing_balance: str = Field(description="The same at the end: the opening balance and all lines.")
    closed_at: datetime | None


class Invoice(InvoiceSummary):
    """What moved an organisation's money in a month. What is posted after a month is closed is on the next one."""

    lines: list[InvoiceLine]


class Grouping(StrEnum):
    """What has rows of its own in usage."""

    DAY = "day"
    MODEL = "model"
    PROJECT = "project"
    KEY = "key"


class UsageQuery(BaseModel):
    """Which usage."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    since: Moment = Field(description="Requests that began then or later.", examples=["2027-01-01T00:00:00Z"])
    until: Moment = Field(
        description="And before this; at most a year and a day later.", examples=["2027-02-01T00:00:00Z"]
    )
    by: str = Field(
        default="day",
        pattern=r"^(day|model|project|key)(,(day|model|project|key)){0,3}$",
        description="What has rows of its own: day, model, project, key, or several with commas between. Days are the organisation's.",
    )
    mode: Mode = Mode.LIVE

    @property
    def groupings(self) -> frozenset[Grouping]:
        """As they were named."""
        return frozenset(Grouping(name) for name in self.by.split(","))

    @model_validator(mode="after")
    def _is_not_too_long(self) -> "UsageQuery":
        if not 0 < (self.until - self.since).total_seconds() <= USAGE_DAYS_MAX * 86_400:
            raise ValueError("until must be later than since, by a year and a day at most")
        return self


class UsageRow(Resource):
    """What was used, of one of each thing that was asked for; null is what was not."""

    day: date | None
    model: str | None
    project_id: str | None
    key_id: str | None
    requests: int
    meters: Mapping[str, int]
    amount: str = Field(description="What it cost the organisation.")


class Usage(Resource):
    """What an organisation used."""

    currency: Currency = "USD"
    time_zone: str
    data: list[UsageRow]


class BudgetOwner(StrEnum):
    """Whose budget it is."""

    PROJECT = "project"
    KEY = "key"


class BudgetPeriod(StrEnum):
    """For how long it is, by the clock of the organisation's time zone."""

    DAY = "day"
    MONTH = "month"


class BudgetState(Resource):
    """One budget and what is left of it. A project's is for real money, and once more for play money."""

    kind: BudgetOwner
    id: str = Field(description="Of the project or the key.")
    name: str
    period: BudgetPeriod
    currency: Currency = "USD"
    limit: str
    spent: str = Field(description="What its requests were charged in the period under way.")
    held: str = Field(description="What is held now for those that are running.")
    left: str = Field(
        description="What its next requests can hold; zero when more is spent than the limit, which can be lowered."
    )
    renews_at: datetime = Field(description="When the next period begins, and `spent` with it.")


class Receipt(Resource):
    """One request that is over, and what it cost."""

    request_id: str
    org_id: str
    project_id: str | None
    key_id: str | None
    mode: Mode
    endpoint: str | None
    model: str | None
    provider: str | None
    status: int = Field(description="0 where nobody could read it.")
    outcome: str = Field(
        description="settled, estimated, released, free or refused: the last three cost nothing. Or quarantined: it is not "
        "priced yet, because nobody could. What is held for it is kept for seven days at most, and nothing is charged unless an operator decides so."
    )
    cached: bool = Field(description="Whether it was answered from the cache, and so is free.")
    late: bool = Field(description="Whether it was posted after its hold had expired.")
    service_tier: str | None
    meters: Mapping[str, int] = Field(
        description="What was counted; nothing where nobody could, or nothing was delivered."
    )
    by_decision: bool = Field(
        description="Whether an operator decided what it costs, because nobody could price it: then no meters say it."
    )
    catalog_revision: int | None = Field(description="The revision of the catalogue that it was admitted by.")
    price_version: int | None = Field(
        description="The version of the deployment's price that was in force at that revision, as `prices` lists it."
    )
    currency: Currency = "USD"
    price: str | None = Field(description="Null while nobody could price it (`quarantined`): that is not zero.")
    absorbed: str | None = Field(
        description="The part of the price that the organisation did not pay, because nothing was left; null where the price is."
    )
    transaction_id: int | None
    started_at: datetime
    recorded_at: datetime
