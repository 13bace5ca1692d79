"""The command `tollgate` around stacks that do not run, run already, or are told to stop while they start."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from local_stack.data_directory import DataDirectory

WAIT_S = 20


def tollgate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tollgate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """The command in the background, and its output."""
    command = [sys.executable, "-m", "tollgate", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


def processes_of(directory: Path) -> list[str]:
    """Command lines of living processes that name the directory, or work in it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            place = str((entry / "cwd").readlink())
        except OSError:
            continue
        if str(directory) in command or place.startswith(str(directory)):
            found.append(command)
    return found


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory.at(tmp_path / "stack")
    directory.create()
    return directory


def test_status_of_nothing_has_its_own_exit_code(tmp_path: Path) -> None:
    status = tollgate("status", "--data-dir", str(tmp_path), "--json")
    assert status.returncode == 3
    assert json.loads(status.stdout) == {"running": False, "pid": None, "data_dir": str(tmp_path), "services": []}


def test_down_says_so_when_nothing_runs(tmp_path: Path) -> None:
    down = tollgate("down", "--data-dir", str(tmp_path))
    assert (down.returncode, down.stdout) == (0, f"No stack is running in {tmp_path}.\n")


def test_a_second_stack_on_a_directory_is_refused(directory: DataDirectory) -> None:
    with directory.locked():
        up = tollgate("up", "--data-dir", str(directory.path))
    assert up.returncode == 1
    assert f"already running (pid {os.getpid()})" in up.stderr


def test_a_port_asked_for_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        up = tollgate("up", "--data-dir", str(tmp_path / "stack"), "--port", str(port))
    assert up.returncode == 1
    assert f"port {port} is not free" in up.stderr


def test_logs_of_an_unknown_service_names_the_known_ones(directory: DataDirectory) -> None:
    directory.log("envoy").touch()
    directory.log("postgres").touch()
    logs = tollgate("logs", "nginx", "--data-dir", str(directory.path))
    assert logs.returncode == 1
    assert "there are envoy, postgres" in logs.stderr


def test_logs_prints_the_last_lines(directory: DataDirectory) -> None:
    directory.log("envoy").write_text("one\ntwo\nthree\n")
    assert tollgate("logs", "envoy", "-n", "2", "--data-dir", str(directory.path)).stdout == "two\nthree\n"


def test_logs_follows_into_a_new_file(directory: DataDirectory) -> None:
    log = directory.log("envoy")
    log.write_text("old\n")
    with started("logs", "envoy", "--follow", "--data-dir", str(directory.path)) as (following, output):
        assert output.readline() == "old\n"
        log.replace(log.with_name("envoy.log.1"))
        log.write_text("new\n")
        assert output.readline() == "new\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(WAIT_S) == 0


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_start_stops_in_order_and_leaves_nothing(tmp_path: Path, stop: signal.Signals) -> None:
    with started("up", "--data-dir", str(tmp_path / "stack")) as (starting, output):
        assert " up " in output.readline()
        began_s = time.monotonic()
        starting.send_signal(stop)
        rest = output.read()
        assert starting.wait(WAIT_S) == 0
    assert time.monotonic() - began_s < 5
    assert "Stopping" in rest
    assert processes_of(tmp_path) == []
    assert not (tmp_path / "stack" / "endpoints.json").exists()


def test_a_closed_terminal_does_not_keep_a_stack_from_stopping(tmp_path: Path) -> None:
    with started("up", "--data-dir", str(tmp_path / "stack")) as (starting, output):
        output.readline()
        output.close()
        starting.send_signal(signal.SIGHUP)
        starting.wait(WAIT_S)
    assert processes_of(tmp_path) == []


def test_the_command_is_installed() -> None:
    command = shutil.which("tollgate", path=str(Path(sys.executable).parent))
    assert command is not None
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, timeout=WAIT_S)
    assert version.stdout.startswith("tollgate ")
