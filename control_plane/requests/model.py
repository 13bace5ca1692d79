"""Requests and their attempts, as the API shows them. Pure."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from control_plane.resource import Resource
from gateway_core.mode import Mode
from gateway_core.money import Currency

_OPERATORS = "Shown to operators."


class Outcome(StrEnum):
    """What became of the money for a request; see `outcome` of a receipt."""

    REFUSED = "refused"
    FREE = "free"
    SETTLED = "settled"
    ESTIMATED = "estimated"
    RELEASED = "released"
    QUARANTINED = "quarantined"


class Attempt(Resource):
    """One attempt at a provider."""

    number: int = Field(description="From 1 on.")
    provider: str | None = Field(description="Null where it was none, as for test keys.")
    upstream_model: str | None = Field(description="The provider's own name of the model.")
    host: str | None = Field(description=f"Address and port, where it is known. {_OPERATORS}")
    started_at: datetime = Field(
        description="Of the one that did not fail: when the one before it ended, so that the pause between them is in it."
    )
    duration_ms: int
    status: int | None = Field(description="What the provider answered; null if it had not when the attempt ended.")
    flags: list[str] = Field(description="What Envoy says of how it ended, in words.")
    tried_next_because: str | None = Field(description="Null for the last one.")
    cost: str | None = Field(
        description="What it cost us. Zero where it reached nobody or was answered with an error, which no provider charges for; "
        f"null where nobody knows: it was given up before it was answered, and the provider may charge for it. {_OPERATORS}"
    )


class RequestSummary(Resource):
    """A request that is over."""

    request_id: str
    org_id: str | None = Field(description="Null where nobody found out, and only operators are shown it.")
    project_id: str | None
    key_id: str | None
    mode: Mode
    endpoint: str | None
    asked_model: str | None = Field(description="The name that the client wrote, which may be an alias.")
    model: str | None = Field(description="The model that served it.")
    provider: str | None = Field(description="That answered, or was asked last.")
    own_key: bool = Field(
        description="Whether that was asked with the organisation's own key, and so charges the organisation itself."
    )
    stream: bool
    cached: bool = Field(description="Whether it was answered from the cache: no provider was asked.")
    status: int = Field(description="What the client was answered; 0 for nothing.")
    outcome: Outcome
    error_code: str | None = Field(description="The `code` of the refusal, where we refused it.")
    attempts_made: int
    started_at: datetime
    duration_ms: int
    first_byte_ms: int | None
    meters: Mapping[str, int] = Field(description="Tokens and whatever else was counted.")
    currency: Currency = "USD"
    price: str | None = Field(description="Null while nobody could price it (`quarantined`): that is not zero.")


class Request(RequestSummary):
    """The same with all that was tried."""

    client_request_id: str | None = Field(description="The `x-request-id` that the client sent.")
    choice: str | None = Field(
        description="Why it tried the provider first that it did: weighted, round_robin, lowest_cost, lowest_latency, trial (another one than "
        "the fastest, to see whether it still is) or sticky. Null where it tried none, or was older than this field."
    )
    usage_source: str = Field(description="provider, request, estimated or none: whose figures it was charged by.")
    upstream_model: str | None
    flags: list[str] = Field(description="What Envoy says of how it ended, in words.")
    cost: str | None = Field(description=f"What it cost us. {_OPERATORS}")
    attempts: list[Attempt] = Field(description="In the order in which they were made. Only the last one is charged.")
