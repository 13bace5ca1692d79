"""A document that cannot be applied is refused for all that is wrong with it, where it stands."""

import copy
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from control_plane.catalog.document import CatalogDocument
from control_plane.catalog.document_faults import faults
from control_plane.catalog.price_specs import UNITS_BY_METER
from gateway_core.usage import Meter
from tests.support.catalog_api import MODEL, PROVIDER
from tests.support.catalog_documents import DOCUMENT, INPUT_PRICE


def read(document: dict[str, Any]) -> CatalogDocument:
    return CatalogDocument.model_validate_json(json.dumps(document), strict=True)


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        (
            lambda d: d["models"]["n/1"].update(aliases=["m", "x", "x"]),
            ["/models/m", "/models/n~11/aliases/0", "/models/n~11/aliases/2", "/routes/m/match"],
        ),
        (lambda d: d["models"]["n/1"].update(aliases=["m-alias"]), ["/models/m/aliases/0", "/models/n~11/aliases/0"]),
        (lambda d: d["deployments"]["m"].update(nobody={"upstream_model": "x"}), ["/deployments/m/nobody"]),
        (
            lambda d: d["deployments"].update(nothing={"one": {"upstream_model": "x"}}),
            ["/deployments/nothing/one"],
        ),
        (lambda d: d["prices"].update({"n/1": {"two": {"free": True}}}), ["/prices/n~11/two"]),
        (
            lambda d: d["prices"]["m"].update(
                one={"prices": [INPUT_PRICE, INPUT_PRICE]}, two={"free": True, "prices": [INPUT_PRICE]}
            ),
            ["/prices/m/one/prices/1", "/prices/m/two/prices"],
        ),
        (lambda d: d["routes"]["rest"].update(published=True), ["/routes/rest/groups/0/0/provider"]),
        (lambda d: d["routes"]["rest"].update(match="m"), ["/routes/m/match", "/routes/rest/match"]),
        (lambda d: d["routes"]["rest"].update(match="m-alias"), ["/models/m/aliases/0", "/routes/rest/match"]),
        (lambda d: d["routes"]["m"].update(orgs_allowed=["org_nobody"]), ["/routes/m/orgs_allowed/0"]),
        (
            lambda d: d["routes"]["m"]["groups"].append([{"provider": "one"}, {"provider": "nobody"}]),
            ["/routes/m/groups/1/0/provider", "/routes/m/groups/1/1/provider"],
        ),
        (
            lambda d: d["providers"].pop("two") and d["deployments"]["m"].pop("one"),
            [
                "/deployments/m/two",
                "/prices/m/one",
                "/routes/m/groups/0/0/provider",
                "/routes/m/groups/0/1/provider",
            ],
        ),
    ],
)
def test_every_fault_is_pointed_at(change: Callable[[dict[str, Any]], object], pointers: list[str]) -> None:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    found = faults(CatalogDocument(), read(document), priced={}, orgs=set(), with_credential=(), prune=False)
    assert sorted(fault.pointer for fault in found) == pointers


@pytest.mark.parametrize(
    ("pattern", "served"),
    [
        ("*", "abc"),
        ("a*c", "abc"),
        ("a*c", "ac"),
        ("*b*", "abc"),
        ("a*b*c", "a-b-b-c"),
        ("a.c*", "a.c"),
        ("*bc", "abc"),
    ],
)
def test_a_published_pattern_needs_a_price_for_all_it_matches(pattern: str, served: str) -> None:
    document: dict[str, Any] = copy.deepcopy(DOCUMENT)
    document["models"] = {served: DOCUMENT["models"]["n/1"], "zz": DOCUMENT["models"]["n/1"]}
    document["deployments"] = {name: {"one": {"upstream_model": "x"}} for name in (served, "zz")}
    document["prices"] = {"zz": {"one": {"free": True}}}
    document["routes"] = {"r": {"match": pattern, "groups": [[{"provider": "one"}]]}}
    wanted = read(document)
    [fault] = faults(CatalogDocument(), wanted, priced={}, orgs=set(), with_credential=(), prune=False)
    assert (fault.pointer, fault.detail) == ("/routes/r/groups/0/0/provider", f"{served} has no price there")
    assert (
        faults(
            CatalogDocument(), wanted, priced={(served, "one"): {"free"}}, orgs=set(), with_credential=(), prune=False
        )
        == []
    )


@pytest.mark.parametrize(
    ("pattern", "name"), [("a*a", "a"), ("ab*bc", "abc"), ("a*b*c", "acb"), ("b*", "abc"), ("a.c*", "abc")]
)
def test_a_pattern_matches_no_more_than_it_says(pattern: str, name: str) -> None:
    document: dict[str, Any] = copy.deepcopy(DOCUMENT)
    document["models"] = {name: DOCUMENT["models"]["n/1"]}
    document["deployments"] = {name: {"one": {"upstream_model": "x"}}}
    document["prices"] = {}
    document["routes"] = {"r": {"match": pattern, "groups": [[{"provider": "one"}]]}}
    assert faults(CatalogDocument(), read(document), priced={}, orgs=set(), with_credential=(), prune=False) == []


@pytest.mark.parametrize(
    ("endpoints", "meters", "pointers"),
    [
        (["embeddings"], ["input"], []),
        (
            ["embeddings"],
            ["output"],
            ["/models/m/endpoints/0", "/prices/m/one/prices", "/routes/m/groups/0/0/provider"],
        ),
        (["rerank"], ["search_unit"], []),
        (["images"], ["input", "image_output"], []),
        (["images"], ["image"], []),
        (["speech"], ["input"], ["/models/m/endpoints/0", "/prices/m/one/prices", "/routes/m/groups/0/0/provider"]),
        (["moderations"], ["request"], []),
        (
            ["chat", "speech"],
            ["character"],
            ["/models/m/endpoints/0", "/prices/m/one/prices", "/routes/m/groups/0/0/provider"],
        ),
        # No provider here has it, so nobody needs its price.
        (["count_tokens"], ["request"], []),
        # Nor this one; but what it has can be translated into it, and out of it.
        (
            ["messages"],
            ["request"],
            ["/models/m/endpoints/0", "/prices/m/one/prices", "/routes/m/groups/0/0/provider"],
        ),
        (["chat", "messages", "count_tokens"], ["input"], []),
    ],
)
def test_every_endpoint_that_a_model_is_sold_on_needs_its_price(
    endpoints: list[str], meters: list[str], pointers: list[str]
) -> None:
    document: dict[str, Any] = {
        "providers": {"one": PROVIDER},
        "models": {"m": MODEL | {"endpoints": endpoints}},
        "deployments": {"m": {"one": {"upstream_model": "x"}}},
        "prices": {
            "m": {
                "one": {
                    "prices": [
                        {"meter": meter, "unit": next(iter(UNITS_BY_METER[Meter(meter)])), "cost": "1"}
                        for meter in meters
                    ]
                }
            }
        },
        "routes": {"m": {"match": "m", "groups": [[{"provider": "one"}]]}},
    }
    found = faults(CatalogDocument(), read(document), priced={}, orgs=set(), with_credential=(), prune=False)
    assert sorted(fault.pointer for fault in found) == pointers
    document["prices"]["m"]["one"] = {"free": True}
    assert faults(CatalogDocument(), read(document), priced={}, orgs=set(), with_credential=(), prune=False) == []


def test_a_credential_does_not_follow_its_provider_to_another_address() -> None:
    current = read({"providers": dict.fromkeys(("one", "bare"), PROVIDER)})
    moved = {
        "providers": {name: PROVIDER | {"base_url": "https://elsewhere.example.com/v1"} for name in ("one", "bare")}
    }
    again = {"providers": {"one": moved["providers"]["one"] | {"credential": "sk-again"}}}
    removed = {"providers": {"one": moved["providers"]["one"] | {"credential": None}}}
    path = {"providers": {"one": PROVIDER | {"base_url": "https://api.example.com/v2"}}}

    def pointers(document: dict[str, Any]) -> list[str]:
        wanted = read(document)
        return [
            fault.pointer
            for fault in faults(current, wanted, priced={}, orgs=set(), with_credential={"one"}, prune=False)
        ]

    assert pointers(moved) == ["/providers/one/credential"]
    assert pointers(again) == pointers(removed) == pointers(path) == []


def test_thousands_of_things_are_judged_in_a_moment() -> None:
    models = [f"m{number}" for number in range(10_000)]
    large = {
        "providers": {"p": PROVIDER},
        "models": dict.fromkeys(models, MODEL),
        "deployments": {name: {"p": {"upstream_model": "x"}} for name in models},
    }
    patterns = {f"r{n}": {"match": f"*z{n}*", "groups": [[{"provider": "p"}]]} for n in range(1000)}
    same = {f"r{n}": {"match": "m1", "groups": [[{"provider": "p"}]]} for n in range(10_000)}
    for routes, number in ((patterns, 0), (same, 20_000)):
        document = read(large | {"routes": routes})
        priced = {(name, "p"): {"input", "output"} for name in models if name != "m1"}
        began = time.process_time()
        found = faults(CatalogDocument(), document, priced=priced, orgs=set(), with_credential=(), prune=False)
        # Two seconds on a busy machine; each with each other would be minutes.
        assert time.process_time() - began < 10
        assert len(found) == number


@pytest.mark.parametrize(
    ("section", "pointer"),
    [
        ({"models": {f"m{n}": MODEL for n in range(10_001)}}, ("models",)),
        ({"routes": {f"r{n}": {"match": f"a{n}*", "groups": [[{"provider": "p"}]]} for n in range(1001)}}, ("routes",)),
        (
            {"deployments": {f"m{n}": {f"p{k}": {"upstream_model": "x"} for k in range(21)} for n in range(1000)}},
            ("deployments",),
        ),
    ],
)
def test_a_document_is_bounded_by_what_judging_it_takes(section: dict[str, Any], pointer: tuple[str]) -> None:
    with pytest.raises(ValidationError) as refused:
        read(section)
    assert [fault["loc"] for fault in refused.value.errors()] == [pointer]
