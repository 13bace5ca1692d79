import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.data_directory import AlreadyRunningError, DataDirectory, UnusableDirectoryError

NOBODY = 65534


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory.at(tmp_path / "stack")
    directory.create()
    return directory


def test_the_second_holder_is_refused_and_told_who_the_first_is(directory: DataDirectory) -> None:
    with (
        directory.locked(),
        pytest.raises(AlreadyRunningError, match=rf"already running \(pid {os.getpid()}\)"),
        directory.locked(),
    ):
        pass


def test_a_directory_is_free_again_when_its_holder_is_done(directory: DataDirectory) -> None:
    assert directory.holder() is None
    with directory.locked():
        assert directory.holder() == os.getpid()
    assert directory.holder() is None


def test_nobody_holds_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    assert DataDirectory.at(tmp_path / "nowhere").holder() is None


def test_a_relative_path_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert DataDirectory.at(Path("stack")).path == tmp_path.resolve() / "stack"


def test_a_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    DataDirectory.at(tmp_path / "shared").create()
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o755


@pytest.fixture
def without_privileges() -> Iterator[None]:
    """Root may write everywhere, and is somebody else for the moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


@pytest.mark.parametrize("path", ["file", "file/stack"])
def test_a_file_in_its_place_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnusableDirectoryError) as refused:
        DataDirectory.at(tmp_path / path).create()
    blocking = "it" if path == "file" else tmp_path / "file"
    assert str(refused.value) == (
        f"cannot use {tmp_path / path} as the data directory: {blocking} is a file; choose another with --data-dir"
    )


def test_nothing_holds_a_directory_whose_place_is_taken_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert DataDirectory.at(tmp_path / "file").holder() is None
    assert not DataDirectory.at(tmp_path / "file").is_known


@pytest.mark.usefixtures("without_privileges")
def test_a_directory_that_may_not_be_made_is_refused() -> None:
    with pytest.raises(UnusableDirectoryError, match=r"cannot use /proc/stack as the data directory: "):
        DataDirectory.at(Path("/proc/stack")).create()


def test_a_directory_that_may_not_be_written_to_is_refused_and_left_as_it_was(
    directory: DataDirectory, request: pytest.FixtureRequest
) -> None:
    for path in [*directory.path.iterdir(), directory.path]:
        path.chmod(0o555)
    for path in [directory.path.parent, *directory.path.parent.parents][:3]:
        path.chmod(0o755)
    request.getfixturevalue("without_privileges")
    with pytest.raises(UnusableDirectoryError, match=r"permission denied|not writable"), directory.locked():
        pass
    assert not directory.is_known


def test_what_was_made_before_it_failed_is_gone_again(tmp_path: Path) -> None:
    with pytest.raises(UnusableDirectoryError, match="file name too long"):
        DataDirectory.at(tmp_path / "a" / "b" / ("c" * 300)).create()
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_it_failed_stays(tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack" / "spool").touch()
    with pytest.raises(UnusableDirectoryError, match=r"stack/spool is a file"):
        DataDirectory.at(tmp_path / "stack").create()
    assert [path.name for path in (tmp_path / "stack").iterdir()] == ["spool"]


@pytest.mark.parametrize("name", ["two\nlines", os.fsdecode(b"latin-\xfc")])
def test_a_name_that_breaks_files_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnusableDirectoryError, match="control characters or is not UTF-8") as refused:
        DataDirectory.at(tmp_path / name)
    assert str(refused.value).isprintable()


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(UnusableDirectoryError):
        DataDirectory.at(tmp_path / "circle").create()
