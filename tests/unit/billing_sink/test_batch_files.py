"""Files of batches come in chunks, wherever those are cut, and are read by the line."""

from collections.abc import AsyncIterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from billing_sink.batches.keepers import split_lines


async def chunks(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def lines(parts: Sequence[bytes], line_bytes_max: int) -> list[bytes]:
    return [line async for line in split_lines(chunks(parts), line_bytes_max)]


@given(st.lists(st.text("ab \n", max_size=8).map(str.encode), max_size=12), st.integers(1, 20))
async def test_lines_are_the_same_however_they_come_and_the_longest_are_cut(parts: list[bytes], most: int) -> None:
    whole = [line[:most] for line in b"".join(parts).split(b"\n")]
    assert await lines(parts, most) == [line for line in whole if line.strip()]


async def test_a_long_line_is_joined_once_and_not_with_each_of_its_chunks() -> None:
    parts = [b"x" * 65_536] * 1_600 + [b"\n"]
    assert [len(line) for line in await lines(parts, 1 << 30)] == [1_600 * 65_536]
