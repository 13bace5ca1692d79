import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_core.ids import new_id


def test_an_id_is_its_prefix_and_sixteen_characters_that_cannot_be_misread() -> None:
    assert re.fullmatch(r"org_[0-9a-hjkmnp-tv-z]{16}", new_id("org", lambda count: bytes(range(1, count + 1))))


@pytest.mark.parametrize(
    ("random", "expected"),
    [
        (bytes(10), "key_0000000000000000"),
        (b"\xff" * 10, "key_zzzzzzzzzzzzzzzz"),
        (bytes(9) + b"\x01", "key_0000000000000001"),
    ],
)
def test_an_id_writes_its_random_bits_from_the_first_to_the_last(random: bytes, expected: str) -> None:
    assert new_id("key", lambda _: random) == expected


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_different_random_bits_give_different_ids_in_the_same_order(one: bytes, other: bytes) -> None:
    first, second = new_id("x", lambda _: one), new_id("x", lambda _: other)
    assert (first < second, first == second) == (one < other, one == other)


def test_an_id_draws_exactly_as_many_random_bytes_as_it_can_hold() -> None:
    drawn: list[int] = []

    def random_bytes(count: int) -> bytes:
        drawn.append(count)
        return bytes(count)

    new_id("x", random_bytes)
    assert drawn == [10]
