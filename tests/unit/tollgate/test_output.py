"""How values are shown to people."""

import re
import time
from collections.abc import Iterator

import pytest

from tollgate.output import columns, print_list, print_one, print_table, readable


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("price_nano_usd", 1_250_000_000, "$1.25"),
        ("price_nano_usd", 150, "$0.00000015"),
        ("budget_per_day_usd", "2.50", "$2.50"),
        ("disabled", False, "no"),
        ("disabled", True, "yes"),
        ("expires_at", None, "-"),
        ("models_allowed", [], "-"),
        ("models_allowed", ["gpt-*", "o3"], "gpt-*, o3"),
        ("types", {"a": [1], "b": None}, "a 1"),
        (
            "checks",
            [{"name": "sums", "wrong": 0}, {"name": "holds", "wrong": 1}],
            "name sums, wrong 0; name holds, wrong 1",
        ),
        ("groups", [[{"provider": "one"}]], '[[{"provider": "one"}]]'),
        ("decision", {"decision": "charge", "amount": "0.10"}, "charge"),
        ("decision", None, "-"),
        (
            "prices",
            [
                {"meter": "input", "unit": "1M tokens", "condition": {}, "cost": "0.15", "price": "0.18"},
                {
                    "meter": "input",
                    "unit": "1M tokens",
                    "condition": {"service_tier": "flex"},
                    "cost": "0.07",
                    "price": None,
                },
            ],
            "input $0.18 per 1M tokens, input $0.07 per 1M tokens (service_tier flex)",
        ),
        ("name", "a\x1b[31mb\r", "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}"),
        ("seen_at", "not a time", "not a time"),
    ],
)
def test_values_are_readable(name: str, value: object, shown: str) -> None:
    assert readable(name, value, short=True) == shown


def test_a_list_of_keys_tells_test_keys_from_live_ones(capsys: pytest.CaptureFixture[str]) -> None:
    keys = [{"id": f"key_{mode}", "name": "k", "mode": mode} for mode in ("live", "test")]
    print_list("Key", keys)
    head, *rows = capsys.readouterr().out.splitlines()
    at = head.split().index("mode")
    assert [row.split()[at] for row in rows] == ["live", "test"]


def test_a_column_that_none_of_them_has_anything_in_is_left_out_whoever_chose_the_columns() -> None:
    used: list[dict[str, object]] = [
        {"day": "2026-05-01", "model": None, "requests": 1},
        {"day": None, "model": None, "requests": 2},
    ]
    assert list(columns("UsageRow", used)) == ["day", "requests"]
    keys = [{"id": "key_1", "name": "k", "disabled": False, "last_used_at": None, "expires_at": "2027-01-01T00:00:00Z"}]
    assert list(columns("Key", keys)) == ["id", "name", "disabled", "expires_at"]
    assert list(columns("Unknown", [{"a": None}])) == ["a"]


def test_a_list_of_reconciliations_shows_whose_when_and_how_far_apart() -> None:
    names = ("id", "provider", "made_at", "actor_kind", "actor_id", "format", "file_sha256", "first_day", "last_day")
    made = dict.fromkeys((*names, "threshold_percent", "drift_percent", "beyond"), "x")
    assert list(columns("ReconciliationSummary", [made])) == [
        *("id", "provider", "first_day", "last_day", "drift_percent", "threshold_percent", "beyond", "made_at"),
    ]


def test_many_parts_of_one_thing_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    print_one({"ok": True, "checks": [{"name": "sums", "wrong": 0, "example": None}, {"name": "holds", "wrong": 0}]})
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["ok", "yes"],
        ["checks", "name", "sums,", "wrong", "0"],
        ["name", "holds,", "wrong", "0"],
    ]


@pytest.mark.usefixtures("in_berlin")
def test_times_are_those_of_the_place() -> None:
    assert readable("created_at", "2026-07-03T10:05:33.123456Z", short=True) == "2026-07-03 12:05"
    assert readable("created_at", "2026-01-03T10:05:33Z", short=False) == "2026-01-03 11:05:33 CET"


def test_things_nobody_chose_columns_for_show_id_and_name_first_and_no_nested_parts() -> None:
    thing = {"revision": 1, "kind": "x", "name": "n", "limits": {"a": 1}, "org_id": "o", "id": "i"}
    assert list(columns("Unknown", [thing])) == ["id", "name", "kind"]


def test_a_pipe_gets_a_line_for_each_thing_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    print_list("Unknown", [{"id": "x" * 300, "name": "y" * 300}])
    assert "x" * 300 + "  " + "y" * 300 in capsys.readouterr().out


def test_no_line_of_a_pipe_ends_with_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    print_list("Unknown", [{"id": "a", "name": "long name"}, {"id": "b", "name": "n"}])
    print_one({"id": "a", "much": ["one", "two"], "description": "x" * 90})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.usefixtures("in_berlin")
def test_the_heading_of_times_says_in_which_zones_they_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    things: list[dict[str, object]] = [{"id": "a", "seen_at": "2026-07-03T10:05:33Z", "ended_at": None}]
    print_table(["id", "seen_at", "ended_at"], things)
    assert re.split(r"  +", capsys.readouterr().out.splitlines()[0]) == ["id", "seen at (CEST)", "ended at"]
    print_table(["at"], [{"at": "2026-07-03T10:05:33Z"}, {"at": "2026-01-03T10:05:33Z"}, {"at": "never"}])
    assert capsys.readouterr().out.splitlines()[0] == "at (CEST/CET)"
