"""Reconciliations, as the API shows them and as they are asked for. Pure."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

from control_plane.catalog.specs import ProviderNameText
from control_plane.fields import Body
from control_plane.resource import Resource
from gateway_core.export_layouts import ExportFormat
from gateway_core.usage_exports import MODEL_LENGTH_MAX

PPM_PER_PERCENT: Final = 10_000


class Verdict(StrEnum):
    """How two accounts of one thing stand to each other."""

    WITHIN = "within"
    BEYOND = "beyond"
    ONLY_THEIRS = "only_theirs"
    ONLY_OURS = "only_ours"


class Period(StrEnum):
    """What is compared as one."""

    DAY = "day"
    HOUR = "hour"


def _percent(text: str) -> str:
    if ppm_of(text) > 100 * PPM_PER_PERCENT:
        raise ValueError("more than 100 percent")
    return text


def ppm_of(percent: str) -> int:
    """Millionths, of a percentage with four decimals at most."""
    whole, _, decimals = percent.partition(".")
    return int(whole) * PPM_PER_PERCENT + int(decimals.ljust(4, "0"))


def percent_of(ppm: int) -> str:
    """The percentage as text."""
    whole, rest = divmod(abs(ppm), PPM_PER_PERCENT)
    decimals = f"{rest:04d}".rstrip("0")
    return f"{'-' if ppm < 0 else ''}{whole}{'.' if decimals else ''}{decimals}"


Percent = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,3}(\.[0-9]{1,4})?$"),
    AfterValidator(_percent),
    Field(examples=["0.5"]),
]
UpstreamModel = Annotated[str, StringConstraints(min_length=1, max_length=MODEL_LENGTH_MAX)]


class ExportedFile(Body):
    """A file that somebody has added up before it was sent."""

    format: ExportFormat
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class NewReconciliation(Body):
    """What a provider says was used."""

    provider: ProviderNameText
    content: str = Field(description="The CSV file.", min_length=1)
    format: ExportFormat | None = Field(default=None, description="Whose it is; without it, known by its columns.")
    file: ExportedFile | None = Field(
        default=None,
        description="The provider's own file, where the content was added up from it; else that is the content itself.",
    )
    by: Period = Field(default=Period.DAY, description="What is compared as one. Days and hours are those of UTC.")
    threshold_percent: Percent = Field(default="0.5", description="Up to which difference it is `within`.")
    model_names: dict[UpstreamModel, UpstreamModel] = Field(
        default={},
        max_length=1000,
        description="The provider's name of a model in the file, and the name under which it is asked for here, where no rule "
        "finds that out.",
    )


class MeasureLine(Resource):
    """One thing that was counted, by both. Whole numbers, or US dollars where the measure is `cost_usd`."""

    measure: str
    theirs: str
    ours: str
    difference: str = Field(description="Ours less theirs.")
    percent: str | None = Field(description="Of theirs; null where they have none.")
    verdict: Verdict


class Explanation(Resource):
    """What is known here that the provider may count in another way; numbers of requests."""

    estimated: int = Field(description="Delivered without the provider's figures: ours are a guess, and among ours.")
    released: int = Field(description="Nothing was delivered, so nothing is counted here.")
    failed_attempts: int = Field(description="Attempts before the one that this provider answered; some were its own.")
    quarantined: int = Field(description="Nobody could price them: what they used is not among ours.")


class Comparison(Resource):
    """One model in one day or hour."""

    since: datetime
    model: str = Field(description="What its names have in common: without the date of a snapshot.")
    their_names: list[str]
    our_names: list[str] = Field(description="What the provider was asked for.")
    lines: list[MeasureLine]
    explanation: Explanation


class Unaccounted(Resource):
    """What may have reached the provider in these days and is on no line."""

    failed_attempts_elsewhere: int = Field(description="Of requests that another provider answered at last.")
    expired_holds: int = Field(description="Requests never heard of again, at whatever provider.")
    unknown_slices_usd: str = Field(description="What was set aside for requests and nobody accounted for.")


class ReconciliationSummary(Resource):
    """A reconciliation without its lines."""

    id: int
    provider: str
    made_at: datetime
    actor_kind: str
    actor_id: str
    format: str
    file_sha256: str
    first_day: date
    last_day: date
    threshold_percent: str
    drift_percent: str = Field(description="The largest difference between the totals of a measure.")
    beyond: int = Field(description="How many lines are not `within`.")


class Report(Resource):
    """What a comparison has found."""

    by: Period
    totals: list[MeasureLine]
    unaccounted: Unaccounted
    comparisons: list[Comparison]


class Reconciliation(ReconciliationSummary):
    """A provider's account of what was used, against ours."""

    report: Report
