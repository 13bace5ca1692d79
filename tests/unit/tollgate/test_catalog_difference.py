"""Changes of the catalogue as lines."""

import re
from typing import Any

from tollgate.catalog.difference import lines, summary


def change(verb: str, kind: str, key: str, **fields: tuple[Any, Any]) -> dict[str, Any]:
    found = [{"field": name, "before": before, "after": after} for name, (before, after) in fields.items()]
    return {"change": verb, "kind": kind, "key": key, "pointer": "", "fields": found}


def plain(*changes: dict[str, Any]) -> list[str]:
    return [re.sub(r"\x1b\[\d*m", "", line) for line in lines(changes)]


def test_what_comes_changes_and_goes_has_its_sign() -> None:
    found = plain(
        change("create", "model", "x", owned_by=(None, "example"), aliases=(None, ["a", "b"])),
        change("replace", "route", "y", attempts_max=(None, 2), published=(True, False)),
        change("delete", "provider", "old", base_url=("https://x", None)),
    )
    assert found == [
        "+ model x",
        "    owned_by: example",
        '    aliases: ["a", "b"]',
        "~ route y: attempts_max: none -> 2",
        "~ route y: published: true -> false",
        "- provider old",
        "1 to create, 1 to change, 1 to remove.",
    ]


def test_of_what_has_parts_only_those_that_differ_are_shown() -> None:
    prices = [{"meter": "input", "cost": "1.00"}, {"meter": "output", "cost": "2.00"}]
    dearer = [prices[0], {"meter": "output", "cost": "3.00", "price": "4.00"}]
    assert plain(
        change("replace", "price", "m at one", prices=(prices, dearer)),
        change("replace", "route", "m", groups=([[1]], [[1], [2]])),
        change("replace", "provider", "one", credential=("hidden", "hidden")),
    )[:-1] == [
        "~ price m at one: prices[1].cost: 2.00 -> 3.00",
        "~ price m at one: prices[1].price: none -> 4.00",
        "~ route m: groups: [[1]] -> [[1], [2]]",
        "~ provider one: credential: hidden -> hidden",
    ]


def test_a_line_is_one_line_whatever_is_in_it() -> None:
    found = plain(change("replace", "provider", "p\x1b[2J", headers=({"x": "a\nb"}, {"x": ""})))
    assert found[0] == '~ provider "p\\u001b[2J": headers.x: "a\\nb" -> ""'


def test_no_changes_are_said_to_be_none() -> None:
    assert plain() == ["No changes."]
    assert summary([change("delete", "model", "x")] * 2) == "0 to create, 0 to change, 2 to remove."
