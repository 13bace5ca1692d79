"""What can be asked of analytics, and what is answered. Pure."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from control_plane.analytics.steps import Step
from control_plane.fields import Moment
from control_plane.resource import Resource
from control_plane.statements.calendar import TimeZone
from gateway_core.mode import Mode
from gateway_core.money import Currency

DAYS_MAX: Final = 1900
"""Five years, and a little."""
STEPS_MAX: Final = 3000
ROWS_MAX: Final = 10_000
EXPORTED_ROWS_MAX: Final = 100_000
BY_MAX: Final = 3

TAG: Final = "tag:"
_TAG: Final = re.compile(r"tag:[A-Za-z0-9_.-]{1,64}")
_OPERATORS: Final = "Shown to operators."


class Dimension(StrEnum):
    """What has rows of its own, besides tags. An empty text stands for nothing, or for what nobody knows."""

    ORG = "org"
    PROJECT = "project"
    KEY = "key"
    MODEL = "model"
    ASKED_MODEL = "asked_model"
    PROVIDER = "provider"
    ENDPOINT = "endpoint"
    STATUS = "status"
    ERROR_CODE = "error_code"
    OUTCOME = "outcome"
    STREAM = "stream"
    CACHED = "cached"
    OWN_KEY = "own_key"
    CLIENT = "client"


class Metric(StrEnum):
    """What the most of is looked for."""

    REQUESTS = "requests"
    ERRORS = "errors"
    TOKENS = "tokens"
    AMOUNT = "amount"


_BY: Final = Field(
    default="",
    max_length=400,
    description=f"What has rows of its own: {', '.join(Dimension)}, or tag: and the name of a cost tag; up to {BY_MAX}, with commas between. "
    "`org` is for operators.",
    examples=["model,tag:team"],
)


class AnalyticsQuery(BaseModel):
    """Which requests. Begin and end are moved outwards to those of whole steps; the answer tells to where."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    since: Moment = Field(description="Requests that began then or later.", examples=["2027-01-01T00:00:00Z"])
    until: Moment = Field(description="And before this; at most five years later.", examples=["2027-02-01T00:00:00Z"])
    time_zone: TimeZone | None = Field(
        default=None, description="By whose clock days begin; the organisation's if it is left out, else UTC."
    )
    mode: Mode = Mode.LIVE
    project: str | None = Field(default=None, max_length=200)
    key: str | None = Field(default=None, max_length=200)
    model: str | None = Field(default=None, max_length=200, description="Its own name.")
    asked_model: str | None = Field(default=None, max_length=200, description="The name that the client wrote.")
    provider: str | None = Field(default=None, max_length=200)
    endpoint: str | None = Field(default=None, max_length=200)
    status: int | None = Field(default=None, ge=0, le=999)
    error_code: str | None = Field(default=None, max_length=200)
    outcome: str | None = Field(default=None, max_length=40)
    stream: bool | None = None
    cached: bool | None = None
    own_key: bool | None = None
    client: str | None = Field(default=None, max_length=200, description="The program, without its version.")
    tag: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.-]{1,64}=.{1,512}$",
        description="A cost tag and its value.",
        examples=["team=search"],
    )

    @model_validator(mode="after")
    def _is_not_too_long(self) -> "AnalyticsQuery":
        if not 0 < (self.until - self.since).total_seconds() <= DAYS_MAX * 86_400:
            raise ValueError("until must be later than since, by five years at most")
        return self

    @property
    def filters(self) -> Mapping[str, str | int | bool]:
        """What requests have to be, by dimension."""
        named = ((each, getattr(self, each, None)) for each in Dimension)
        found = {str(name): value for name, value in named if value is not None}
        if self.tag is not None:
            name, _, value = self.tag.partition("=")
            found[TAG + name] = value
        return found

    @property
    def groups(self) -> Sequence[str]:
        """What has rows of its own, in the order in which it was named."""
        return ()

    @property
    def interval(self) -> Step | None:
        """How long each row is about; None where rows are about all of the time."""
        return None


class GroupedQuery(AnalyticsQuery):
    """The same, with rows."""

    by: str = _BY

    @field_validator("by")
    @classmethod
    def _is_known(cls, by: str) -> str:
        named = [each for each in by.split(",") if each]
        if len(named) > BY_MAX or len(set(named)) < len(named):
            raise ValueError(f"at most {BY_MAX}, each once")
        if not all(each in set(Dimension) or _TAG.fullmatch(each) for each in named):
            raise ValueError("not one of what is described")
        return by

    @property
    def groups(self) -> Sequence[str]:
        """As they were named."""
        return tuple(each for each in self.by.split(",") if each)


class TimeseriesQuery(GroupedQuery):
    """What each step of the time came to."""

    step: Step = Field(default=Step.DAY, description="How long each row is about. Weeks begin on Monday.")

    @property
    def interval(self) -> Step | None:
        """The step."""
        return self.step

    @model_validator(mode="after")
    def _has_not_too_many(self) -> "TimeseriesQuery":
        if (self.until - self.since).total_seconds() > STEPS_MAX * self.step.least_s:
            raise ValueError(f"more than {STEPS_MAX} steps; ask for longer ones")
        return self


class LatencyQuery(GroupedQuery):
    """How long requests took, all of the time together or each step of it."""

    step: Step | None = Field(
        default=None, description="How long each row is about; all of the time if it is left out."
    )

    @property
    def interval(self) -> Step | None:
        """The step, if there is one."""
        return self.step

    @model_validator(mode="after")
    def _has_not_too_many(self) -> "LatencyQuery":
        if self.step is not None and (self.until - self.since).total_seconds() > STEPS_MAX * self.step.least_s:
            raise ValueError(f"more than {STEPS_MAX} steps; ask for longer ones")
        return self


class TopQuery(AnalyticsQuery):
    """Of what there was the most."""

    of: str = Field(
        max_length=80,
        pattern=rf"^({'|'.join(Dimension)}|tag:[A-Za-z0-9_.-]{{1,64}})$",
        description=f"One of {', '.join(Dimension)}, or tag: and the name of a cost tag. `org` is for operators.",
        examples=["key"],
    )
    metric: Metric = Metric.AMOUNT
    limit: int = Field(default=10, ge=1, le=200, description="How many at most.")

    @property
    def groups(self) -> Sequence[str]:
        """The one thing."""
        return (self.of,)


class OfAnyOrg(BaseModel):
    """For operators: of one organisation, or of all."""

    org: str | None = Field(default=None, max_length=200)


class PlatformTimeseriesQuery(TimeseriesQuery, OfAnyOrg):
    """The same of any organisation."""


class PlatformBreakdownQuery(GroupedQuery, OfAnyOrg):
    """The same of any organisation."""


class PlatformTopQuery(TopQuery, OfAnyOrg):
    """The same of any organisation."""


class PlatformLatencyQuery(LatencyQuery, OfAnyOrg):
    """The same of any organisation."""


class Row(Resource):
    """What some requests came to."""

    group: Mapping[str, str] = Field(description="Which they are, by what was asked for.")
    requests: int = Field(description="Of every outcome, refused ones too.")
    errors: int = Field(description="Those answered with 400 or above, or not at all.")
    cached: int = Field(description="Those answered from the cache.")
    tokens: int = Field(description="Of all kinds.")
    meters: Mapping[str, int] = Field(description="Tokens and whatever else was counted.")
    amount: str = Field(description="What they cost the organisation.")
    absorbed: str = Field(description="What nobody paid, because nothing was left.")
    cost: str | None = Field(description=f"What they cost us. {_OPERATORS}")


class TimedRow(Row):
    """The same of one step of the time."""

    starts_at: datetime


class Percentiles(Resource):
    """How long that share of the requests took at the most, within 1 %."""

    p50: float
    p90: float
    p95: float
    p99: float


class LatencyRow(Resource):
    """How long some requests took. Null is what nobody has measured of any of them."""

    starts_at: datetime | None
    group: Mapping[str, str] = Field(description="Which they are, by what was asked for.")
    requests: int
    duration_ms: Percentiles | None = Field(description="Until the answer was over.")
    first_byte_ms: Percentiles | None = Field(description="Until the provider's first byte.")
    output_token_us: Percentiles | None = Field(
        description="Of streams: what a token of output took behind the first one, in microseconds."
    )
    overhead_us: Percentiles | None = Field(
        description="What the gateway itself took, admission included, in microseconds; of requests with one attempt."
    )


class ErrorRow(Resource):
    """How many requests ended in one way that is an error."""

    status: int = Field(description="What the client was answered; 0 for nothing.")
    error_code: str = Field(description="The `code` of the refusal, where we refused it; else empty.")
    group: Mapping[str, str] = Field(description="Which they are, by what was asked for.")
    requests: int


class Analysis(Resource):
    """For which time the rows are, and how far they are known."""

    since: datetime
    until: datetime
    time_zone: str
    complete_until: datetime = Field(
        description="Requests that were recorded before are counted; those of the last seconds may not be yet."
    )
    currency: Currency = "USD"


class Timeseries(Analysis):
    """Steps without requests have no row."""

    data: list[TimedRow]


class Breakdown(Analysis):
    """The dearest first."""

    data: list[Row]


class Latencies(Analysis):
    """By time, where there are steps, else by how many requests there were."""

    data: list[LatencyRow]


class Errors(Analysis):
    """The most frequent first."""

    requests: int = Field(description="Of every outcome, those without an error too.")
    data: list[ErrorRow]
