from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_sink import spool
from billing_sink.spool import READ_BYTES, RawBatch, RawLine, SpoolTruncatedError, read_lines, spool_id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.jsonl"


def contents(batch: RawBatch) -> list[bytes]:
    return [line.content for line in batch.lines]


def test_only_complete_lines_are_read(path: Path) -> None:
    path.write_bytes(b"one\ntwo\nthr")
    batch = read_lines(path, 0, lines_max=10)
    assert batch == RawBatch(0, 8, [RawLine(0, b"one"), RawLine(4, b"two")])


def test_a_line_is_read_once_its_newline_is_there(path: Path) -> None:
    path.write_bytes(b"one\ntw")
    assert read_lines(path, 4, lines_max=10) == RawBatch(4, 4, [])
    path.write_bytes(b"one\ntwo\n")
    assert read_lines(path, 4, lines_max=10) == RawBatch(4, 8, [RawLine(4, b"two")])


def test_a_batch_ends_after_as_many_lines_as_were_asked_for(path: Path) -> None:
    path.write_bytes(b"one\ntwo\nthree\n")
    batch = read_lines(path, 0, lines_max=2)
    assert (contents(batch), batch.end) == ([b"one", b"two"], 8)


def test_an_empty_line_is_a_line(path: Path) -> None:
    path.write_bytes(b"\n\none\n")
    assert read_lines(path, 0, lines_max=10).lines == [RawLine(0, b""), RawLine(1, b""), RawLine(2, b"one")]


def test_an_empty_spool_has_no_lines(path: Path) -> None:
    path.write_bytes(b"")
    assert read_lines(path, 0, lines_max=10) == RawBatch(0, 0, [])


def test_a_spool_shorter_than_what_was_committed_from_it_is_a_fault(path: Path) -> None:
    path.write_bytes(b"one\n")
    with pytest.raises(SpoolTruncatedError, match="ends at 4, but 5 bytes"):
        read_lines(path, 5, lines_max=10)
    assert read_lines(path, 4, lines_max=10).lines == []


def test_a_line_longer_than_what_is_read_at_once_is_cut_there(path: Path) -> None:
    path.write_bytes(b"x" * (READ_BYTES + 3) + b"\nnext\n")
    first = read_lines(path, 0, lines_max=10)
    assert (first.end, contents(first)) == (READ_BYTES, [b"x" * READ_BYTES])
    assert contents(read_lines(path, first.end, lines_max=10)) == [b"xxx", b"next"]


def test_a_long_line_behind_others_waits_for_its_own_turn(path: Path) -> None:
    path.write_bytes(b"one\n" + b"x" * READ_BYTES + b"\n")
    first = read_lines(path, 0, lines_max=10)
    assert contents(first) == [b"one"]
    assert contents(read_lines(path, first.end, lines_max=10)) == [b"x" * READ_BYTES]


def test_a_line_that_fills_what_is_read_at_once_to_the_last_byte_is_whole(path: Path) -> None:
    path.write_bytes(b"x" * (READ_BYTES - 1) + b"\n")
    batch = read_lines(path, 0, lines_max=10)
    assert (batch.end, len(batch.lines[0].content)) == (READ_BYTES, READ_BYTES - 1)


@given(lines=st.lists(st.binary(max_size=12).map(lambda text: text.replace(b"\n", b"")), max_size=8), data=st.data())
def test_whatever_the_batches_the_lines_are_all_of_them_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("spool") / "access.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines) + b"rest")
    offset, read = 0, []
    while (batch := read_lines(path, offset, lines_max=data.draw(st.integers(1, 3)))).lines:
        assert batch.begin == offset
        for line in batch.lines:
            assert path.read_bytes()[line.byte_offset :].startswith(line.content + b"\n")
        read += contents(batch)
        offset = batch.end
    assert read == lines


@pytest.mark.parametrize("content", [None, b"", b"a first line without its"], ids=["missing", "empty", "incomplete"])
def test_a_spool_has_no_identity_before_its_first_line_is_complete(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    assert spool_id(path) is None


def test_a_spool_keeps_its_identity_while_it_grows_and_when_it_is_copied(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"one\n")
    identity = spool_id(path)
    assert identity is not None
    with path.open("ab") as file:
        file.write(b"two\nthr")
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    assert spool_id(path) == spool_id(copy) == identity


def test_spools_with_different_first_lines_are_different_spools(path: Path) -> None:
    path.write_bytes(b"one\n")
    before = spool_id(path)
    path.write_bytes(b"another\n")
    assert spool_id(path) != before


def test_a_spool_whose_first_line_is_too_long_is_still_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "READ_BYTES", 8)
    path.write_bytes(b"much too long\n")
    assert spool_id(path) is not None
    assert contents(read_lines(path, 0, lines_max=10)) == [b"much too"]
