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
from local_stack.tollgate_services import SERVICES, TASKS

WAIT_S = 20
ELSEWHERE = "--data-dir or TOLLGATE_DATA_DIR says where a stack is"


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


def test_traffic_to_nothing_ends_with_the_same_one(tmp_path: Path) -> None:
    sent = tollgate("demo", "traffic", "--data-dir", str(tmp_path))
    assert (sent.returncode, sent.stdout) == (3, "")
    assert sent.stderr.startswith(f"Error: no stack is running in {tmp_path};")


def test_down_says_so_when_nothing_runs(tmp_path: Path) -> None:
    down = tollgate("down", "--data-dir", str(tmp_path))
    assert (down.returncode, down.stdout) == (0, f"No stack is running in {tmp_path}; {ELSEWHERE}.\n")


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
    assert list(tmp_path.iterdir()) == []


def test_a_data_directory_that_is_a_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    up = tollgate("up", "--data-dir", str(tmp_path / "file"))
    assert (up.returncode, up.stdout) == (1, "")
    assert up.stderr == (
        f"Error: cannot use {tmp_path / 'file'} as the data directory: it is a file; choose another with --data-dir\n"
    )
    assert tollgate("status", "--data-dir", str(tmp_path / "file")).returncode == 3


def test_a_start_that_fails_shows_what_failed_and_no_end_of_what_never_was(directory: DataDirectory) -> None:
    directory.postgres.touch()
    up = tollgate("up", "--data-dir", str(directory.path))
    assert up.returncode == 1
    assert [line.split()[2:] for line in up.stdout.splitlines() if " s  " in line] == [["postgres", "failed"]]
    assert "postgres could not be started" in up.stderr
    assert processes_of(directory.path) == []


def test_logs_of_an_unknown_service_names_the_known_ones(directory: DataDirectory) -> None:
    logs = tollgate("logs", "nginx", "--data-dir", str(directory.path))
    assert logs.returncode == 1
    shown = " ".join(tollgate("logs", "--help").stdout.replace("│", " ").split())
    for name in (*SERVICES, *TASKS):
        assert name in logs.stderr
        assert name in shown


def test_logs_of_what_has_not_run_says_so(directory: DataDirectory) -> None:
    logs = tollgate("logs", "seed_demo", "--data-dir", str(directory.path))
    assert (logs.returncode, logs.stderr) == (1, f"Error: seed_demo has not run in {directory.path}; {ELSEWHERE}\n")


def test_logs_knows_further_instances_and_no_more_than_there_can_be(directory: DataDirectory) -> None:
    (directory.logs / "ext_authz-2.log").write_text("decided\n")
    assert tollgate("logs", "ext_authz-2", "--data-dir", str(directory.path)).stdout == "decided\n"
    for unknown in ("ext_authz-5", "ext_authz-1", "envoy-2"):
        assert "no service is named" in tollgate("logs", unknown, "--data-dir", str(directory.path)).stderr


def test_more_replicas_than_make_sense_are_refused(tmp_path: Path) -> None:
    for replicas in ("0", "5"):
        up = tollgate("up", "--replicas", replicas, "--data-dir", str(tmp_path / "stack"))
        assert (up.returncode, (tmp_path / "stack").exists()) == (2, False)


def test_an_empty_log_is_not_met_with_silence(directory: DataDirectory) -> None:
    for name in ("envoy", "valkey"):
        directory.log(name).touch()
    envoy, valkey = (tollgate("logs", name, "--data-dir", str(directory.path)) for name in ("envoy", "valkey"))
    spool = directory.spool / "access.jsonl"
    assert (envoy.returncode, envoy.stdout) == (valkey.returncode, valkey.stdout) == (0, "")
    assert envoy.stderr == f"the log of envoy is empty; requests are in {spool}\n"
    assert valkey.stderr == "the log of valkey is empty\n"


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
        # In front of that it may say which usual ports are taken.
        assert any(" up " in line for line in output)
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
