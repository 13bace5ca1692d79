"""The page about the API: what it shows can be sent, and every shape that it names is on it."""

import inspect
import json
import re

import pytest

from control_plane.api.app import OPERATION_MODULES
from control_plane.api.docs_page import page
from control_plane.api.json_example import example
from control_plane.api.openapi import document
from control_plane.api.operation import OPERATIONS, Operation
from gateway_core import errors

WITH_BODY = [each for each in OPERATIONS if each.body is not None]
DOCUMENT = document(OPERATIONS)
PAGE = page(DOCUMENT)


def body_schema(operation: Operation) -> dict[str, object]:
    found = DOCUMENT["paths"]["/api/v1" + operation.path][operation.method.lower()]  # type: ignore[index] # JSON
    return found["requestBody"]["content"]["application/json"]["schema"]  # type: ignore[no-any-return] # JSON


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda each: str(each.name))
def test_the_body_that_is_shown_is_one_that_is_read(operation: Operation) -> None:
    assert operation.body is not None
    schemas = DOCUMENT["components"]["schemas"]  # type: ignore[index] # JSON
    operation.body.model_validate_json(json.dumps(example(body_schema(operation), schemas)))


def test_every_operation_is_shown_with_a_line_for_a_shell() -> None:
    assert len(OPERATION_MODULES) > 0
    assert PAGE.count("<pre><code>curl ") == len(OPERATIONS) + 1  # and one for the gateway
    assert "-d &#x27;{&quot;name&quot;: " in PAGE


def test_every_query_parameter_that_is_required_is_in_the_line() -> None:
    usage = "?since=2027-01-01T00:00:00Z&amp;until=2027-02-01T00:00:00Z"
    assert f"$TOLLGATE_SERVER/api/v1/orgs/$ORG/usage{usage}" in PAGE
    required = [
        parameter["name"]
        for methods in DOCUMENT["paths"].values()  # type: ignore[attr-defined] # JSON
        for operation in methods.values()
        for parameter in operation["parameters"]
        if parameter["in"] == "query" and parameter["required"]
    ]
    assert required
    for name in required:
        assert re.search(rf"\$TOLLGATE_SERVER[^ ]*[?;]{name}=", PAGE), name


def test_what_an_example_costs_has_a_price_for_every_meter_of_a_chat() -> None:
    [prices] = DOCUMENT["components"]["schemas"]["PriceChange"]["properties"]["prices"]["examples"]  # type: ignore[index] # JSON
    assert [each["meter"] for each in prices] == ["input", "cached_input", "output", "reasoning"]


def test_it_says_what_every_role_may_and_who_may_call_what_needs_none() -> None:
    for row in (
        "<th><th>owner<th>admin<th>developer<th>billing<th>viewer",
        "<code>billing:write</code><td>yes<td><td><td>yes<td>",
        "<code>keys:write</code><td>yes<td>yes<td>yes<td><td>",
    ):
        assert row in PAGE
    assert "<code>platform:read</code><td>" not in PAGE
    assert not re.search(r"Needs: (anyone|known|signed_in)", PAGE)


def test_every_link_leads_to_something_on_it() -> None:
    linked, there = set(re.findall(r"href=#([\w-]+)", PAGE)), set(re.findall(r" id=([\w-]+)", PAGE))
    assert {"tag-keys", "roles", "shapes"} <= linked
    assert linked <= there


def test_what_a_field_is_without_being_named_is_told_where_that_is_so() -> None:
    assert "Default: <code>86400</code>" in PAGE
    change = DOCUMENT["components"]["schemas"]["KeyChange"]  # type: ignore[index] # JSON
    assert not [name for name, field in change["properties"].items() if "default" in field]
    new = DOCUMENT["components"]["schemas"]["NewKey"]  # type: ignore[index] # JSON
    assert new["properties"]["disabled"]["default"] is False


def test_the_refusals_that_it_names_are_the_gateways() -> None:
    text = PAGE[PAGE.index("id=gateway") : PAGE.index("<h2 id=tag-")]
    named = set(re.findall(r"<code>([a-z_]+)</code>", text))
    source = inspect.getsource(errors)
    assert {"budget_exceeded", "model_not_found"} <= named
    assert not [code for code in named if f'"{code}"' not in source]


def test_the_parts_of_a_body_are_told() -> None:
    assert "list of list of <a href=#shape-GroupMember>GroupMember</a>" in PAGE
    assert "whole number, 1 to 1000" in PAGE
