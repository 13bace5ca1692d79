"""JSON has one meaning or none."""

import contextlib
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.api.strict_json import DEPTH_MAX, is_storable, parse_object
from control_plane.errors import InvalidFieldsError, MalformedBodyError, pointer

STORABLE = st.text().filter(is_storable)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | STORABLE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STORABLE, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(STORABLE, VALUES, max_size=5))
def test_what_json_writes_is_read_back(value: dict[str, object]) -> None:
    assert parse_object(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(MalformedBodyError, InvalidFieldsError):
        assert isinstance(parse_object(body), dict)


def test_a_number_with_a_point_or_an_exponent_is_exactly_what_is_written() -> None:
    read = parse_object(b'{"a": 1.5e-07, "b": 0.1000000000000000000000000000000000001, "c": 3}')
    assert read == {"a": Decimal("1.5e-7"), "b": Decimal("0.1000000000000000000000000000000000001"), "c": 3}
    for too_large in (b"1e400", b"1e99999999999999999999", b"-1e400"):
        with pytest.raises(MalformedBodyError, match="too large"):
            parse_object(b'{"a": ' + too_large + b"}")


@pytest.mark.parametrize("depth", [DEPTH_MAX - 1, DEPTH_MAX])
def test_the_deepest_that_is_read(depth: int) -> None:
    assert parse_object(b'{"a":' * depth + b"1" + b"}" * depth)
    with pytest.raises(MalformedBodyError, match="deeper"):
        parse_object(b'{"a":' * (DEPTH_MAX + 1) + b"1" + b"}" * (DEPTH_MAX + 1))


def test_a_key_twice_is_refused_at_any_depth() -> None:
    with pytest.raises(MalformedBodyError, match="twice"):
        parse_object(b'{"a": [{"b": 1, "b": 1}]}')


def test_text_that_cannot_be_stored_is_pointed_at_wherever_it_stands() -> None:
    with pytest.raises(InvalidFieldsError) as caught:
        parse_object(rb'{"a": ["\u0000", {"b/c": "\udc00"}], "d\u0000": 1}')
    assert sorted(field.pointer for field in caught.value.fields) == ["", "/a/0", "/a/1/b~1c"]


def test_a_pointer_escapes_what_has_a_meaning_in_it() -> None:
    assert pointer(("a/b", 0, "~")) == "/a~1b/0/~0"
    assert pointer(()) == ""
