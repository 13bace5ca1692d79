"""Requests that nobody could price, as the API shows them, and what a person decides about one. Pure."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from control_plane.fields import Body, Name
from control_plane.payments.model import PositiveAmount
from control_plane.resource import Resource
from gateway_core.mode import Mode
from gateway_core.money import Currency


class Verdict(StrEnum):
    """What becomes of what is held."""

    CHARGE = "charge"
    RELEASE = "release"


class NewDecision(Body):
    """What to do about a quarantined line."""

    decision: Verdict
    amount: PositiveAmount | None = Field(
        default=None,
        description="What to charge, in US dollars; without it, what was held. Never more than is still held and free.",
    )
    reason: Name = Field(description="For people to read, beside the line.")

    @field_validator("amount")
    @classmethod
    def _release_has_none(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is not None and info.data.get("decision") is Verdict.RELEASE:
            raise ValueError("a release charges nothing, so it has no amount")
        return text


class Decision(Resource):
    """What was decided, and what that did."""

    decision: Verdict
    currency: Currency = "USD"
    amount: str | None = Field(description="What was to be charged; null for what was held.")
    charged: str = Field(description="What was charged.")
    held: str = Field(description="What was still held for it, and came free.")
    reason: str
    actor_kind: str
    actor_id: str
    decided_at: datetime


class QuarantinedLine(Resource):
    """A line that did not become a finished request by itself."""

    id: int
    quarantined_at: datetime
    reason: str = Field(description="Why: a kind, a colon, and more about it.")
    request_id: str | None
    org_id: str | None = Field(description="Whose money is held for it, or whose request it says it is.")
    mode: Mode | None
    model: str | None
    provider: str | None
    currency: Currency = "USD"
    held: str = Field(description="What is held for it now. It goes back after seven days, also without a decision.")
    decision: Decision | None


class QuarantinedLineWhole(QuarantinedLine):
    """The same, with everything there is to decide by."""

    usage: list[JsonValue] | None = Field(description="The provider's own words about what was used.")
    line: str = Field(description="The line as Envoy wrote it.")

    def without_evidence(self) -> QuarantinedLine:
        """What anybody may read who may know of a decision."""
        return QuarantinedLine.model_validate(self.model_dump(exclude={"usage", "line"}))
