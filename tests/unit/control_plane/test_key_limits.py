"""What the limits of a key mean is said wherever they are set or shown."""

import pytest
from pydantic import BaseModel

from control_plane.accounts.model import CONCURRENCY, REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE, Key
from control_plane.api.docs_page import page
from control_plane.api.keys import KeyChange, KeyWithSecret, NewKey
from control_plane.api.openapi import document
from control_plane.api.operation import OPERATIONS

LIMITS = {
    "requests_per_minute_max": REQUESTS_PER_MINUTE,
    "tokens_per_minute_max": TOKENS_PER_MINUTE,
    "concurrency_max": CONCURRENCY,
}


@pytest.mark.parametrize("model", [NewKey, KeyChange, Key, KeyWithSecret])
def test_every_limit_of_a_key_says_what_is_refused(model: type[BaseModel]) -> None:
    assert {name: field.description for name, field in model.model_fields.items() if name.endswith("_max")} == LIMITS


def test_the_page_for_people_says_it_too() -> None:
    [create] = [each for each in OPERATIONS if each.name == "create_key"]
    shown = page(document([create]))
    where = ("the body", "its shape", "the shape of the answer")
    assert all(shown.count(said) == len(where) for said in LIMITS.values())
