"""Faults of values, as callers read them."""

from typing import Annotated, Literal

import pytest
from pydantic import AwareDatetime, Field, StringConstraints, ValidationError

from control_plane.fault_words import in_our_words
from control_plane.fields import Body, Email


class Part(Body):
    number: Annotated[int, Field(ge=1)] = 1


class Whole(Body):
    groups: Annotated[list[list[Part]], Field(default_factory=list)]
    email: Email = "ada@example.com"
    kind: Literal["a", "b"] = "a"
    name: Annotated[str, StringConstraints(min_length=2)] = "name"
    few: Annotated[list[int], Field(default_factory=list, max_length=1)]
    part: Part | None = None
    yes: bool = True
    at: AwareDatetime | None = None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"email": "nobody"}', "not an e-mail address"),
        ('{"nmae": "x"}', "unknown field"),
        ('{"groups": [{"provider": "openai"}]}', "must be a list"),
        ('{"name": 1}', "must be text"),
        ('{"name": "x"}', "must have at least 2 characters"),
        ('{"few": [1, 2]}', "must have at most 1 item, not 2"),
        ('{"kind": "c"}', "must be 'a' or 'b'"),
        ('{"part": []}', "must be an object"),
        ('{"part": {"number": "1"}}', "must be a whole number"),
        ('{"part": {"number": 0}}', "must be greater than or equal to 1"),
        ('{"yes": "maybe"}', "must be true or false"),
        ('{"at": "tomorrow"}', "must be a time, such as 2027-01-31T18:00:00Z"),
        ('{"at": "2027-01-31T18:00:00"}', "must have a time zone, such as Z"),
    ],
)
def test_a_fault_is_told_in_our_words(body: str, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Whole.model_validate_json(body, strict=True)
    [fault] = refused.value.errors()
    assert in_our_words(fault) == said
