import os
from pathlib import Path

from local_stack.state import ServiceStatus, State, born, read_state, write_state


def test_what_is_written_is_read(tmp_path: Path) -> None:
    statuses = [ServiceStatus("postgres", State.UP, 7, 123, 1, {"postgres": 5432}), ServiceStatus("envoy")]
    write_state(tmp_path / "state.json", statuses)
    assert read_state(tmp_path / "state.json") == statuses


def test_there_is_nothing_before_the_first_start(tmp_path: Path) -> None:
    assert read_state(tmp_path / "state.json") == []


def test_a_process_keeps_its_birth() -> None:
    assert born(os.getpid()) == born(os.getpid()) is not None


def test_a_pid_without_a_process_has_none() -> None:
    assert born(2**22 + 1) is None
