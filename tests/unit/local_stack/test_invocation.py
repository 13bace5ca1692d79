import sys
from pathlib import Path

import pytest

from tollgate.invocation import DEFAULT_DATA_DIR, Invocation


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs of a virtual environment that is not on the PATH; the working directory is beside it."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "tollgate"):
        (programs / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    return programs


def test_programs_below_the_working_directory_are_named_from_there(venv: Path) -> None:
    invocation = Invocation.of_this_process(DEFAULT_DATA_DIR.resolve())
    assert venv.is_dir()
    assert (invocation.tollgate, invocation.python) == ((".venv/bin/tollgate",), ".venv/bin/python")
    assert invocation.line("psql", "-c", "SELECT 1") == ".venv/bin/tollgate psql -c 'SELECT 1'"


def test_programs_elsewhere_are_named_in_full(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (venv.parents[1] / "elsewhere").mkdir()
    monkeypatch.chdir(venv.parents[1] / "elsewhere")
    assert Invocation.of_this_process(Path("/data")).tollgate == (str(venv / "tollgate"),)


def test_a_program_on_the_path_is_named_as_it_is(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(venv))
    assert Invocation.of_this_process(Path("/data")).line("status") == "tollgate status --data-dir /data"


def test_without_the_program_the_module_is_named(venv: Path) -> None:
    (venv / "tollgate").unlink()
    assert Invocation.of_this_process(Path("/data")).tollgate == (".venv/bin/python", "-m", "tollgate")
