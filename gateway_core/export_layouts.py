"""The columns of the files in which providers say what was used. Pure.

The layouts are those of the consoles of OpenAI, Anthropic and OpenRouter in 2025 and 2026, as public files and readers of them have it.
Google's billing export names no models. Whoever has another file writes `PLAIN`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from typing import Final

from gateway_core.money import NANO_PER_USD
from gateway_core.usage import INPUT_METERS, OUTPUT_METERS, Meter

REQUESTS: Final = "requests"
COST: Final = "cost_usd"
"""Amounts of it are in nano-USD here, in US dollars in files."""
COST_ROUNDING: Final = "cost_rounding_usd"
"""By how much a cost may be off because it was rounded before it was told; the same units."""
INPUT_TOKENS: Final = "input_tokens"
OUTPUT_TOKENS: Final = "output_tokens"

METERS_OF: Final[Mapping[str, tuple[Meter, ...]]] = {
    **{meter.value: (meter,) for meter in Meter},
    INPUT_TOKENS: INPUT_METERS,
    OUTPUT_TOKENS: OUTPUT_METERS,
}
"""Measures that are counted, and the meters each stands for: one, or all of a side where a provider does not tell them apart."""

_COUNT: Final = re.compile(r"([0-9]{1,18})(\.0*)?")
_AMOUNT: Final = re.compile(r"-?[0-9]{1,10}(\.[0-9]{1,40})?([eE]-[0-9]{1,2})?")
_HALF_A_CENT: Final = NANO_PER_USD // 200


class UnreadableExportError(ValueError):
    """A file that is none of those that are known, or not as it should be. The message quotes names of columns and no values."""


class ExportFormat(StrEnum):
    """Whose file it is."""

    OPENAI_USAGE = "openai-usage"
    OPENAI_COSTS = "openai-costs"
    ANTHROPIC_USAGE = "anthropic-usage"
    ANTHROPIC_COST = "anthropic-cost"
    OPENROUTER_ACTIVITY = "openrouter-activity"
    PLAIN = "plain"
    """Ours: `day` or `hour`, `model`, and any measures."""


DAY: Final = "day"
HOUR: Final = "hour"
MODEL: Final = "model"

Cells = Mapping[str, str]
Time = tuple[datetime, bool]
"""The beginning of the hour, and whether the row is about that hour and not a day."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a format.

    Attributes:
        needed: without these it is not of the format.
        counts: columns that count, and the measure of each.
        cost: the column with the money.
        passed_over: what else is known to be there.
        needs_one_of: and without exactly one of these.
        row_is_request: whether each row is a request.
        cost_rounding_nano_usd: by how much each cost may be off.
    """

    needed: frozenset[str]
    time: Callable[[Cells], Time]
    model: Callable[[Cells], str]
    counts: Mapping[str, str] = field(default_factory=dict)
    cost: str | None = None
    passed_over: frozenset[str] = frozenset()
    needs_one_of: frozenset[str] = frozenset()
    row_is_request: bool = False
    cost_rounding_nano_usd: int = 0

    @property
    def known(self) -> frozenset[str]:
        """Every column there may be."""
        cost = {self.cost} if self.cost else set()
        return self.needed | self.needs_one_of | self.counts.keys() | self.passed_over | cost

    def fits(self, columns: AbstractSet[str]) -> bool:
        """Whether a file with these columns is of the format, known columns or not."""
        return self.needed <= columns and (not self.needs_one_of or bool(self.needs_one_of & columns))

    def measures(self, columns: Sequence[str]) -> frozenset[str]:
        """What a file with these columns tells."""
        found = {self.counts[column] for column in columns if column in self.counts}
        if self.row_is_request:
            found.add(REQUESTS)
        if self.cost is not None and self.cost in columns:
            found.add(COST)
            if self.cost_rounding_nano_usd:
                found.add(COST_ROUNDING)
        return frozenset(found)

    def amounts(self, cells: Cells) -> Iterator[tuple[str, Fraction | int]]:
        """What a row tells; nothing for a row about a time in which there was nothing."""
        is_empty = True
        for column, measure in self.counts.items():
            if text := cells.get(column):
                is_empty = False
                yield measure, _amount(column, text) if measure == COST_ROUNDING else _count(column, text)
        if self.cost and (text := cells.get(self.cost)):
            is_empty = False
            yield COST, _amount(self.cost, text)
            if self.cost_rounding_nano_usd:
                yield COST_ROUNDING, self.cost_rounding_nano_usd
        if self.row_is_request and not is_empty:
            yield REQUESTS, 1


def _bucket(cells: Cells) -> Time:
    """OpenAI's: seconds since 1970, from and to."""
    start, end = _count("start_time", cells["start_time"]), _count("end_time", cells["end_time"])
    try:
        at = datetime.fromtimestamp(start, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UnreadableExportError("start_time is no moment") from error
    return _hour(at), timedelta(seconds=end - start) <= timedelta(hours=1)


def _moment(column: str) -> Callable[[Cells], Time]:
    """A date, or a date and a time, which is in UTC where it does not say otherwise."""

    def read(cells: Cells) -> Time:
        text = cells[column].strip()
        try:
            at = datetime.fromisoformat(text)
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise UnreadableExportError(f"{column} is no date and no moment") from error
        return _hour(at), len(text) > len("2026-01-01")

    return read


def _plain_time(cells: Cells) -> Time:
    return _moment(HOUR if HOUR in cells else DAY)(cells)


def _named(column: str) -> Callable[[Cells], str]:
    return lambda cells: cells[column]


def _line_item(cells: Cells) -> str:
    """The model of `gpt-4o-2024-08-06, cached input` or `priority | gpt-audio-mini audio, output`; else the item, such as a search."""
    item = cells["line_item"].rpartition(" | ")[2]
    model, comma, _ = item.partition(", ")
    return model.partition(" ")[0] if comma else item


def _priced_model(cells: Cells) -> str:
    """Anthropic's name of a model for people; what costs and is no model has none."""
    return cells["model"] or cells.get("cost_type", "")


def _permaslug(cells: Cells) -> str:
    variant = cells.get("variant", "")
    return f"{cells['model_permaslug']}:{variant}" if variant not in {"", "standard"} else cells["model_permaslug"]


LAYOUTS: Final[Mapping[ExportFormat, Layout]] = {
    ExportFormat.OPENAI_USAGE: Layout(
        needed=frozenset({"start_time", "end_time", "model", "num_model_requests", "input_tokens", "output_tokens"}),
        time=_bucket,
        model=_named("model"),
        counts={
            "num_model_requests": REQUESTS,
            "input_tokens": INPUT_TOKENS,
            "input_cached_tokens": Meter.CACHED_INPUT.value,
            "output_tokens": OUTPUT_TOKENS,
        },
        # All of these are parts of the totals.
        passed_over=frozenset(
            (
                "start_time_iso",
                "end_time_iso",
                "project_id",
                "user_id",
                "api_key_id",
                "batch",
                "service_tier",
                "input_uncached_tokens",
                "input_cache_write_tokens",
                "input_text_tokens",
                "output_text_tokens",
                "input_cached_text_tokens",
                "input_audio_tokens",
                "input_cached_audio_tokens",
                "output_audio_tokens",
                "input_image_tokens",
                "input_cached_image_tokens",
                "output_image_tokens",
                "project_name",
                "user_email",
                "api_key_name",
                "organization_id",
                "organization_name",
            )
        ),
    ),
    ExportFormat.OPENAI_COSTS: Layout(
        needed=frozenset({"start_time", "end_time", "amount_value", "amount_currency", "line_item"}),
        time=_bucket,
        model=_line_item,
        cost="amount_value",
        passed_over=frozenset(
            (
                "start_time_iso",
                "end_time_iso",
                "quantity",
                "quantity_unit",
                "project_id",
                "user_id",
                "api_key_id",
                "organization_id",
                "project_name",
                "user_email",
                "organization_name",
                "api_source",
            )
        ),
    ),
    ExportFormat.ANTHROPIC_USAGE: Layout(
        needed=frozenset({"usage_date_utc", "model_version", "usage_input_tokens_no_cache", "usage_output_tokens"}),
        time=_moment("usage_date_utc"),
        model=_named("model_version"),
        counts={
            "usage_input_tokens_no_cache": Meter.INPUT.value,
            "usage_input_tokens_cache_write_5m": Meter.CACHE_WRITE_5M.value,
            "usage_input_tokens_cache_write_1h": Meter.CACHE_WRITE_1H.value,
            "usage_input_tokens_cache_read": Meter.CACHED_INPUT.value,
            "usage_output_tokens": OUTPUT_TOKENS,
            "web_search_count": Meter.WEB_SEARCH.value,
        },
        passed_over=frozenset(
            (
                "api_key",
                "api_key_id",
                "api_key_status",
                "workspace",
                "usage_type",
                "context_window",
                "inference_geo",
                "speed",
            )
        ),
    ),
    ExportFormat.ANTHROPIC_COST: Layout(
        needed=frozenset({"usage_date_utc", "model", "token_type", "cost_usd"}),
        time=_moment("usage_date_utc"),
        model=_priced_model,
        cost="cost_usd",
        passed_over=frozenset(
            (
                "workspace",
                "api_key",
                "api_key_id",
                "api_key_status",
                "usage_type",
                "context_window",
                "list_price_usd",
                "cost_type",
                "inference_geo",
                "speed",
            )
        ),
        cost_rounding_nano_usd=_HALF_A_CENT,
    ),
    ExportFormat.OPENROUTER_ACTIVITY: Layout(
        needed=frozenset({"generation_id", "created_at", "model_permaslug", "cost_total", "tokens_prompt"}),
        time=_moment("created_at"),
        model=_permaslug,
        counts={
            "tokens_prompt": INPUT_TOKENS,
            "tokens_cached": Meter.CACHED_INPUT.value,
            "tokens_completion": OUTPUT_TOKENS,
            "tokens_reasoning": Meter.REASONING.value,
        },
        cost="cost_total",
        passed_over=frozenset(
            (
                "cost_web_search",
                "cost_cache",
                "cost_file_processing",
                "byok_usage_inference",
                "provider_name",
                "variant",
                "cancelled",
                "streamed",
                "user",
                "finish_reason_raw",
                "finish_reason_normalized",
                "generation_time_ms",
                "time_to_first_token_ms",
                "api_key_disabled",
                "api_key_name",
                "app_name",
                "num_search_results",
            )
        ),
        row_is_request=True,
    ),
    ExportFormat.PLAIN: Layout(
        needed=frozenset({MODEL}),
        needs_one_of=frozenset({DAY, HOUR}),
        time=_plain_time,
        model=_named(MODEL),
        counts={REQUESTS: REQUESTS, COST_ROUNDING: COST_ROUNDING, **{measure: measure for measure in METERS_OF}},
        cost=COST,
    ),
}


def format_of(columns: Sequence[str], expected: ExportFormat | None) -> ExportFormat:
    """The format of a file with these columns.

    Raises:
        UnreadableExportError: it is not what is expected, or none that is known; or there are columns that nobody knows.
    """
    given = set(columns)
    if len(given) != len(columns):
        raise UnreadableExportError("two columns have one name")
    found = expected or next((each for each, layout in LAYOUTS.items() if layout.fits(given)), None)
    if found is None:
        known = "; ".join(f"{each}: {', '.join(sorted(layout.needed))}, ..." for each, layout in LAYOUTS.items())
        raise UnreadableExportError(f"its columns are those of no format that is known ({known})")
    layout = LAYOUTS[found]
    if missing := layout.needed - given:
        raise UnreadableExportError(f"{found} needs the columns {', '.join(sorted(missing))}")
    if unknown := given - layout.known:
        raise UnreadableExportError(
            f"{found} has no columns {', '.join(sorted(map(_quotable, unknown)))}; known are {', '.join(sorted(layout.known))}"
        )
    if layout.needs_one_of and len(given & layout.needs_one_of) != 1:
        raise UnreadableExportError(f"{found} needs one of the columns {', '.join(sorted(layout.needs_one_of))}")
    if not layout.measures(columns):
        raise UnreadableExportError("it has no column that counts anything")
    return found


def _quotable(name: str) -> str:
    return "".join(character for character in name[:60] if character.isprintable()) or "(no name)"


def _count(column: str, text: str) -> int:
    match = _COUNT.fullmatch(text.strip())
    if match is None:
        raise UnreadableExportError(f"{column} is no whole number")
    return int(match[1])


def _amount(column: str, text: str) -> Fraction:
    """In nano-USD, exactly."""
    if not _AMOUNT.fullmatch(text.strip()):
        raise UnreadableExportError(f"{column} is no amount")
    return Fraction(text.strip()) * NANO_PER_USD


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)
