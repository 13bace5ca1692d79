"""The comparison itself: what a provider says was used, and what was recorded here, slot by slot. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Final, TypeVar

from control_plane.reconciliation.model import (
    Comparison,
    Explanation,
    MeasureLine,
    Period,
    Report,
    Unaccounted,
    Verdict,
    percent_of,
)
from gateway_core.export_layouts import COST, COST_ROUNDING, METERS_OF, REQUESTS
from gateway_core.money import MAX_NANO_USD, NanoUsd, format_usd
from gateway_core.usage_exports import Slot, UsageExport, model_key

KeyT = TypeVar("KeyT")

PPM: Final = 1_000_000
_DELIVERED: Final = frozenset({"settled", "estimated"})
_OUR_REQUESTS: Final = "requests"
_OUR_FAILED_ATTEMPTS: Final = "failed_attempts"
_OURS: Final = {REQUESTS: ("requests",), COST: ("cost_nano_usd",)}
"""The ledger's words for measures that are no meters."""


@dataclass(frozen=True, slots=True)
class OurSum:
    """What requests of an hour, a model by the provider's name and an outcome come to, in one measure of the ledger."""

    hour: datetime
    upstream_model: str
    outcome: str
    measure: str
    amount: int


@dataclass(frozen=True, slots=True)
class Compared:
    """What was found.

    Attributes:
        drift_ppm: of the totals, the largest.
        beyond: how many lines are not within.
    """

    report: Report
    drift_ppm: int
    beyond: int


@dataclass(slots=True)
class _Slot:
    their_names: set[str] = field(default_factory=set)
    our_names: set[str] = field(default_factory=set)
    theirs: dict[str, int] = field(default_factory=dict)
    ours: dict[tuple[str, str], int] = field(default_factory=dict)
    """By outcome and measure."""

    def delivered(self, measure: str) -> int:
        return sum(amount for (outcome, each), amount in self.ours.items() if outcome in _DELIVERED and each == measure)

    def our(self, measure: str) -> int:
        return sum(self.delivered(each) for each in _OURS.get(measure) or METERS_OF[measure])

    def explanation(self) -> Explanation:
        failed = sum(amount for (_, measure), amount in self.ours.items() if measure == _OUR_FAILED_ATTEMPTS)
        counts = {
            outcome: self.ours.get((outcome, _OUR_REQUESTS), 0) for outcome in ("estimated", "released", "quarantined")
        }
        return Explanation(**counts, failed_attempts=failed)


def compare(
    theirs: UsageExport,
    ours: Iterable[OurSum],
    unaccounted: Unaccounted,
    *,
    by: Period,
    threshold_ppm: int,
    model_names: Mapping[str, str],
) -> Compared:
    """Every model in every day or hour that either side has, in each measure that the file tells.

    Args:
        theirs: the file; by the hour, if that is compared.
        ours: of the days that the file is about.
        unaccounted: what is shown beside.
        by: what is compared as one.
        threshold_ppm: up to which difference it is within, in millionths of theirs.
        model_names: our names for some of theirs.
    """
    slots: dict[Slot, _Slot] = {}
    for (at, name), amounts in theirs.amounts.items():
        slot = slots.setdefault((at, model_key(model_names.get(name, name))), _Slot())
        slot.their_names.add(name)
        _add(slot.theirs, amounts)
    for each in ours:
        at = each.hour if by is Period.HOUR else each.hour.replace(hour=0)
        slot = slots.setdefault((at, model_key(each.upstream_model)), _Slot())
        slot.our_names.add(each.upstream_model)
        _add(slot.ours, {(each.outcome, each.measure): each.amount})
    measures = [each for each in (REQUESTS, *METERS_OF, COST) if each in theirs.measures]
    comparisons = [
        Comparison(
            since=at,
            model=model,
            their_names=sorted(slot.their_names),
            our_names=sorted(slot.our_names),
            lines=_lines(slot, measures, threshold_ppm),
            explanation=slot.explanation(),
        )
        for (at, model), slot in sorted(slots.items())
    ]
    whole = _Slot()
    for slot in slots.values():
        _add(whole.theirs, slot.theirs)
        _add(whole.ours, slot.ours)
    report = Report(
        by=by,
        totals=_lines(whole, measures, threshold_ppm),
        unaccounted=unaccounted,
        comparisons=[each for each in comparisons if each.lines or each.explanation.quarantined],
    )
    return Compared(
        report,
        drift_ppm=max((_drift_ppm(whole.theirs.get(each, 0), whole.our(each)) for each in measures), default=0),
        beyond=sum(line.verdict is not Verdict.WITHIN for each in comparisons for line in each.lines),
    )


def _lines(slot: _Slot, measures: Sequence[str], threshold_ppm: int) -> list[MeasureLine]:
    rounding = slot.theirs.get(COST_ROUNDING, 0)
    lines = []
    for measure in measures:
        theirs, ours = slot.theirs.get(measure, 0), slot.our(measure)
        if theirs == ours == 0:
            continue
        difference = ours - theirs
        lines.append(
            MeasureLine(
                measure=measure,
                theirs=_told(measure, theirs),
                ours=_told(measure, ours),
                difference=_told(measure, difference),
                percent=percent_of(round(Fraction(difference * PPM, abs(theirs)))) if theirs else None,
                verdict=_verdict(theirs, ours, threshold_ppm, rounding if measure == COST else 0),
            )
        )
    return lines


def _verdict(theirs: int, ours: int, threshold_ppm: int, rounding: int) -> Verdict:
    if abs(ours - theirs) <= rounding:
        return Verdict.WITHIN
    if theirs == 0:
        return Verdict.ONLY_OURS
    if ours == 0:
        return Verdict.ONLY_THEIRS
    return Verdict.WITHIN if abs(ours - theirs) * PPM <= threshold_ppm * abs(theirs) else Verdict.BEYOND


def _drift_ppm(theirs: int, ours: int) -> int:
    """All of it where they have none."""
    if theirs == ours:
        return 0
    return min(round(Fraction(abs(ours - theirs) * PPM, abs(theirs))), MAX_NANO_USD) if theirs else PPM


def _told(measure: str, amount: int) -> str:
    return format_usd(NanoUsd(amount)) if measure == COST else str(amount)


def _add(sums: dict[KeyT, int], amounts: Mapping[KeyT, int]) -> None:
    for key, amount in amounts.items():
        sums[key] = sums.get(key, 0) + amount
