"""YAML as strictly as JSON."""

import hypothesis
import pytest

from tests.support.catalog_documents import documents
from tollgate import yaml_text
from tollgate.catalog.document_file import as_yaml
from tollgate.yaml_text import YamlTextError, parse


def test_every_value_has_a_line_and_that_of_a_key_is_the_keys() -> None:
    parsed = parse("a:\n  b:\n  - 1\n  - c: null\n")
    assert parsed.value == {"a": {"b": [1, {"c": None}]}}
    assert parsed.lines == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "b", "0"): 3,
        ("a", "b", "1"): 4,
        ("a", "b", "1", "c"): 4,
    }


def test_keys_and_dates_are_the_text_that_they_are() -> None:
    text = "on: true\n1.5: 2\n2030-01-01: 2030-01-02T00:00:00Z\nnull: '3'\n"
    assert parse(text).value == {"on": True, "1.5": 2, "2030-01-01": "2030-01-02T00:00:00Z", "null": "3"}


def test_json_is_yaml() -> None:
    assert parse('{"a": [1, 2.5, "x\\n", true, null], "b/c": {}}').value == {
        "a": [1, 2.5, "x\n", True, None],
        "b/c": {},
    }


def test_nothing_is_none() -> None:
    assert parse("# only a comment\n").value is None


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "the key 'a' a second time"),
        ("a: &x 1\nb: *x\n", 2, "alias"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "merge key"),
        ("a: !!python/object/apply:os.system [x]\n", 1, "tag"),
        ("a: !!binary aGk=\n", 1, "JSON does not have"),
        ("a: 1\nb: .inf\n", 2, "JSON does not have"),
        ("a: " + "9" * 5000, 1, "JSON does not have"),
        ("? [a]\n: 1\n", 1, "a key that is not text"),
        ("a: 1\n---\na: 2\n", 2, "a second document"),
        ("a: 1\nb: [1,\n", 3, "did not find|expected"),
        ("[" * 100_000, 1, "deeper than 32"),
        ("a: \x00", None, "a character"),
    ],
)
def test_what_could_mean_two_things_or_grow_is_refused_with_its_line(text: str, line: int | None, problem: str) -> None:
    with pytest.raises(YamlTextError, match=problem) as caught:
        parse(text)
    assert caught.value.line == line


def test_a_small_text_that_grows_a_billionfold_is_not_read() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]\n" for number in range(1, 10)
    )
    with pytest.raises(YamlTextError, match="line 2: an alias"):
        parse(bomb)


@hypothesis.given(documents())
@hypothesis.settings(max_examples=50)
def test_any_document_is_read_as_it_was_written(document: object) -> None:
    exported = document.model_dump(mode="json", exclude_defaults=True)  # type: ignore[attr-defined] # drawn
    text = as_yaml(exported)
    assert yaml_text.parse(text).value == exported
    assert as_yaml(yaml_text.parse(text).value) == text
