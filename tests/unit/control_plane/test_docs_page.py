"""The page about the API: what it shows can be sent, and every shape that it names is on it."""

import json
import re

import pytest

from control_plane.api.app import OPERATION_MODULES
from control_plane.api.docs_page import page
from control_plane.api.json_example import example
from control_plane.api.openapi import document
from control_plane.api.operation import OPERATIONS, Operation

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
    assert PAGE.count("<pre><code>curl ") == len(OPERATIONS)
    assert "-d &#x27;{&quot;name&quot;: " in PAGE


def test_every_link_to_a_shape_leads_to_one() -> None:
    linked, there = set(re.findall(r"href=#(shape-[\w-]+)", PAGE)), set(re.findall(r"id=(shape-[\w-]+)", PAGE))
    assert linked
    assert linked <= there


def test_the_parts_of_a_body_are_told() -> None:
    assert "list of list of <a href=#shape-GroupMember>GroupMember</a>" in PAGE
    assert "whole number, 1 to 1000" in PAGE
