"""Comparing a provider's account with ours: what is within, what only one side has, and what explains the rest."""

import io
from datetime import UTC, datetime

import pytest

from control_plane.reconciliation.comparison import Compared, OurSum, compare
from control_plane.reconciliation.model import MeasureLine, Period, Unaccounted, Verdict, percent_of, ppm_of
from gateway_core.usage_exports import read_export

NOTHING = Unaccounted(failed_attempts_elsewhere=0, expired_holds=0, unknown_slices_usd="0.00")
AT = datetime(2026, 1, 1, 5, tzinfo=UTC)


def our(measure: str, amount: int, *, model: str = "gpt-4o", outcome: str = "settled", at: datetime = AT) -> OurSum:
    return OurSum(at, model, outcome, measure, amount)


def compared(text: str, *ours: OurSum, by: Period = Period.DAY, names: dict[str, str] | None = None) -> Compared:
    export = read_export(io.StringIO(text))
    theirs = export.by_day() if by is Period.DAY else export
    return compare(theirs, ours, NOTHING, by=by, threshold_ppm=ppm_of("0.5"), model_names=names or {})


def lines(found: Compared) -> list[tuple[str, str, MeasureLine]]:
    return [(each.model, line.measure, line) for each in found.report.comparisons for line in each.lines]


def test_snapshots_are_compared_with_the_name_that_was_asked_for_and_both_are_shown() -> None:
    found = compared(
        "day,model,requests,cost_usd\n2026-01-01,gpt-4o-2024-08-06,3,0.5\n",
        *(our("requests", 2), our("requests", 1, model="gpt-4o-2024-08-06"), our("cost_nano_usd", 500_000_000)),
    )
    [comparison] = found.report.comparisons
    assert (comparison.model, comparison.their_names) == ("gpt-4o", ["gpt-4o-2024-08-06"])
    assert comparison.our_names == ["gpt-4o", "gpt-4o-2024-08-06"]
    assert {line.verdict for line in comparison.lines} == {Verdict.WITHIN}
    assert (found.drift_ppm, found.beyond) == (0, 0)


@pytest.mark.parametrize(
    ("ours", "verdict", "difference", "percent"),
    [
        (1000, Verdict.WITHIN, "0", "0"),
        (1005, Verdict.WITHIN, "5", "0.5"),
        (995, Verdict.WITHIN, "-5", "-0.5"),
        (1006, Verdict.BEYOND, "6", "0.6"),
        (994, Verdict.BEYOND, "-6", "-0.6"),
        (0, Verdict.ONLY_THEIRS, "-1000", "-100"),
    ],
)
def test_the_threshold_belongs_to_what_is_within(ours: int, verdict: Verdict, difference: str, percent: str) -> None:
    found = compared("day,model,input\n2026-01-01,gpt-4o,1000\n", our("input", ours))
    [(_, _, line)] = lines(found)
    assert (line.verdict, line.difference, line.percent) == (verdict, difference, percent)


def test_what_only_we_have_is_told_also_of_a_model_that_the_file_does_not_name() -> None:
    found = compared("day,model,input\n2026-01-01,gpt-4o,10\n", our("input", 10), our("input", 7, model="o3"))
    [first, (model, _, line)] = lines(found)
    assert first[2].verdict is Verdict.WITHIN
    assert (model, line.verdict, line.percent) == ("o3", Verdict.ONLY_OURS, None)
    assert (found.beyond, found.drift_ppm) == (1, 700_000)


def test_measures_that_the_file_does_not_have_are_not_compared() -> None:
    found = compared(
        "day,model,input\n2026-01-01,gpt-4o,10\n", our("input", 10), our("cost_nano_usd", 5), our("output", 3)
    )
    assert [measure for _, measure, _ in lines(found)] == ["input"]


def test_a_measure_of_a_whole_side_holds_all_of_its_meters() -> None:
    found = compared(
        "day,model,input_tokens,output_tokens\n2026-01-01,gpt-4o,100,30\n",
        *(our("input", 60), our("cached_input", 40), our("output", 10), our("reasoning", 20)),
    )
    assert {measure: line.ours for _, measure, line in lines(found)} == {"input_tokens": "100", "output_tokens": "30"}


def test_a_cost_that_was_rounded_may_be_off_by_as_much() -> None:
    text = "day,model,cost_usd,cost_rounding_usd\n2026-01-01,gpt-4o,0.01,0.005\n"
    [(_, _, within)] = lines(compared(text, our("cost_nano_usd", 14_999_999)))
    [(_, _, beyond)] = lines(compared(text, our("cost_nano_usd", 15_000_001)))
    assert (within.verdict, beyond.verdict) == (Verdict.WITHIN, Verdict.BEYOND)
    assert (within.ours, within.theirs) == ("0.014999999", "0.01")


def test_what_explains_a_drift_stands_beside_it() -> None:
    found = compared(
        "day,model,requests,input\n2026-01-01,gpt-4o,9,100\n",
        our("requests", 5),
        our("input", 70),
        our("requests", 1, outcome="estimated"),
        our("input", 20, outcome="estimated"),
        our("requests", 2, outcome="released"),
        our("failed_attempts", 2, outcome="released"),
        our("failed_attempts", 1),
        our("requests", 1, outcome="quarantined"),
    )
    [comparison] = found.report.comparisons
    assert [(line.measure, line.ours) for line in comparison.lines] == [("requests", "6"), ("input", "90")]
    why = comparison.explanation
    assert (why.estimated, why.released, why.failed_attempts, why.quarantined) == (1, 2, 3, 1)


def test_hours_are_compared_where_that_is_asked_for_and_days_where_not() -> None:
    text = "hour,model,requests\n2026-01-01T05:00Z,gpt-4o,1\n2026-01-01T06:00Z,gpt-4o,1\n"
    ours = our("requests", 2)
    assert [line.verdict for _, _, line in lines(compared(text, ours))] == [Verdict.WITHIN]
    by_hour = compared(text, ours, by=Period.HOUR)
    assert [line.verdict for _, _, line in lines(by_hour)] == [Verdict.BEYOND, Verdict.ONLY_THEIRS]
    assert [line.verdict for line in by_hour.report.totals] == [Verdict.WITHIN]


def test_a_name_that_no_rule_finds_is_told() -> None:
    text = "day,model,requests\n2026-01-01,acme/4.8-big-20260528,1\n"
    found = compared(text, our("requests", 1, model="acme/big-4.8"), names={"acme/4.8-big-20260528": "acme/big-4.8"})
    [(model, _, line)] = lines(found)
    assert (model, line.verdict) == ("acme/big-4.8", Verdict.WITHIN)


@pytest.mark.parametrize(
    ("text", "ppm"), [("0.5", 5000), ("0", 0), ("100", 1_000_000), ("0.0001", 1), ("12.34", 123_400)]
)
def test_percentages_are_exact_both_ways(text: str, ppm: int) -> None:
    assert (ppm_of(text), percent_of(ppm)) == (ppm, text)
