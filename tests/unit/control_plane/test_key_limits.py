"""Limits that can be set and are not enforced: whoever decides by them is told."""

import pytest
from pydantic import BaseModel

from control_plane.accounts.model import NOT_ENFORCED, Key
from control_plane.api.docs_page import page
from control_plane.api.keys import KeyChange, KeyWithSecret, NewKey
from control_plane.api.openapi import document
from control_plane.api.operation import OPERATIONS

LIMITS = {
    "requests_per_minute_max",
    "tokens_per_minute_max",
    "concurrency_max",
}


@pytest.mark.parametrize("model", [NewKey, KeyChange, Key, KeyWithSecret])
def test_every_limit_of_a_key_says_that_it_is_not_enforced(model: type[BaseModel]) -> None:
    says_so = {name for name, field in model.model_fields.items() if NOT_ENFORCED in (field.description or "")}
    assert says_so == LIMITS
    assert {name for name in model.model_fields if name.endswith("_max")} == LIMITS


def test_the_page_for_people_says_it_too() -> None:
    [create] = [each for each in OPERATIONS if each.name == "create_key"]
    shown = page(document([create]))
    where = ("the body", "its shape", "the shape of the answer")
    assert shown.count(NOT_ENFORCED) == len(where) * len(LIMITS)
