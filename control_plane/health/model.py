"""What the API shows of the health of providers. Pure."""

from datetime import datetime

from pydantic import Field

from control_plane.catalog.provider_state import Condition
from control_plane.resource import Resource


class State(Resource):
    """What a provider is, or one of its models at it."""

    state: Condition
    since: datetime | None = Field(description="Null: for as long as is remembered.")
    until: datetime | None = Field(description="When it ends by itself; null: it does not.")
    why: str | None


class StateOfProvider(State):
    """What a provider is, and whose doing it is."""

    provider: str
    by: str | None = Field(description="Kind and id of who paused it or took it back; null: nobody.")


class StateChange(State):
    """What it became at some moment."""

    upstream_model: str | None = Field(description="Of which model alone, by the provider's name for it; null: of all.")
    by: str | None


class ModelState(State):
    """One of its models, which is out while the provider is not."""

    upstream_model: str


class Percentiles(Resource):
    """Of answers of the last minutes, in milliseconds."""

    p50: int
    p99: int


class LastProbe(Resource):
    """The latest time it was asked for its models."""

    at: datetime
    answered: bool = Field(description="With anything below 500.")
    status: int | None
    why: str
    failures: int = Field(description="In a row.")


class Limits(Resource):
    """The latest that it has said of its limits for a model; it says so with a refusal, or with an answer that is the last for now."""

    upstream_model: str
    told_at: datetime
    status: int
    retry_at: datetime | None
    requests_remaining: int | None
    requests_reset_at: datetime | None
    tokens_remaining: int | None
    tokens_reset_at: datetime | None


class Health(StateOfProvider):
    """How a provider is."""

    minutes: int = Field(description="How many are looked back for the figures below.")
    answered: int = Field(description="Requests that it has answered well.")
    failed: int = Field(description="Attempts that show that something is wrong with it.")
    limited: int = Field(description="Attempts that it refused for being too many.")
    success_percent: float | None = Field(description="Of all these attempts; null: there were none.")
    first_byte_ms: Percentiles | None
    duration_ms: Percentiles | None
    probe: LastProbe | None
    models: list[ModelState]
    limits: list[Limits]
    history: list[StateChange] = Field(description="The latest first.")


class Hour(Resource):
    """An hour of the last day."""

    began_at: datetime
    available_percent: float = Field(description="For how much of it, or of what has passed of it, it got requests.")


class AvailabilityAtProvider(State):
    """A model at a provider: the model's own state, or if the provider is out that one's."""

    provider: str
    upstream_model: str
    hours: list[Hour] = Field(description="The latest last.")


class Availability(Resource):
    """Where a model is to be had, now and in the last day."""

    model: str
    providers: list[AvailabilityAtProvider]
