import os
from pathlib import Path

import pytest

from local_stack.data_directory import AlreadyRunningError, DataDirectory


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
