import json

import pytest

from billing_sink.tags import TAGS_MAX, VALUE_CHARACTERS_MAX, tags_of


@pytest.mark.parametrize(
    ("tags", "user", "found"),
    [
        (None, None, {}),
        ("team=search, stage = test", None, {"team": "search", "stage": "test"}),
        ("team=a=b,,x,=y,z=", None, {"team": "a=b"}),
        ('{"team": "search", "n": 1, "deep": {"a": "b"}, "none": null}', None, {"team": "search"}),
        ('{"team": "search"}', '"ada"', {"team": "search", "user": "ada"}),
        ('{"user": "mine"}', '"ada"', {"user": "mine"}),
        ('{"b\\u00fcro": "x", "team": "b\\u00fcro"}', None, {"team": "büro"}),
        ('{"team": "a\\u0000b", "half": "\\ud800"}', None, {"team": "ab", "half": "?"}),
        ('{"team": ', "7", {}),
        ("[1]", '"', {}),
    ],
)
def test_what_is_a_tag_is_found_and_nothing_else(tags: str | None, user: str | None, found: dict[str, str]) -> None:
    assert tags_of(tags, user) == found


def test_there_are_so_many_at_most_and_so_long() -> None:
    found = tags_of(json.dumps({f"t{n}": "x" * 1000 for n in range(30)}), None)
    assert len(found) == TAGS_MAX
    assert {len(value) for value in found.values()} == {VALUE_CHARACTERS_MAX}
