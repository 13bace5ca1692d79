"""Child processes: start them through the launcher, wait until they are ready, stop them. Keeps no state of its own."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import Process
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from local_stack import launch
from local_stack.service import Command, Ready, Service

LOG_BYTES_MAX = 8 * 1024 * 1024
"""A log that has grown past this is put aside at the next start; one old log is kept."""

DEADLINE_S = 60.0
"""For one service to become ready, or one task to finish."""

_POLL_S = 0.02
_TAIL_LINES = 20


class StartError(RuntimeError):
    """Something of the stack did not start; the message says what and why."""


async def spawn(command: Command, log: Path) -> Process:
    """Start a command in a session of its own, so that Ctrl-C in a terminal reaches the supervisor only.

    Its output is appended to `log`. The pid is the command's own: the launcher execs.
    """
    _put_aside(log)
    unprivileged = ("--unprivileged", str(command.unprivileged)) if command.unprivileged else ()
    with command.stdin.open("rb") as source, log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", launch.__file__),
            *("--parent", str(os.getpid()), "--orphan-signal", str(int(command.orphan_signal))),
            *(*unprivileged, "--", *command.argv),
            stdin=source,
            stdout=output,
            stderr=output,
            env=dict(command.environment),
            cwd="/",
            start_new_session=True,
        )


async def run(name: str, command: Command, log: Path, deadline_s: float = DEADLINE_S) -> None:
    """Run a command to its end.

    Raises:
        StartError: it failed, or took too long.
    """
    process = await spawn(command, log)
    try:
        async with asyncio.timeout(deadline_s):
            code = await process.wait()
    except TimeoutError:
        raise _failure(name, f"did not finish within {deadline_s:g} s", log) from None
    finally:
        kill(process)
        # Also when this task was cancelled: nobody else knows the process, and one that is not waited for is not gone yet.
        await process.wait()
    if code != 0:
        raise _failure(name, _ending(code), log)


async def until_ready(name: str, process: Process, ready: Ready, log: Path, deadline_s: float = DEADLINE_S) -> None:
    """Wait until a process that was just started does its work.

    Raises:
        StartError: it ended instead, or the deadline passed.
    """
    missing: str | None = "it did not answer"
    try:
        async with asyncio.timeout(deadline_s):
            while (missing := await ready(process.pid)) is not None:
                if process.returncode is not None:
                    raise _failure(name, _ending(process.returncode), log)
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise _failure(name, f"was not ready within {deadline_s:g} s: {missing}", log) from None


async def stop(process: Process, stop_signal: signal.Signals, grace_s: float) -> None:
    """Ask a process to end; kill it, and whatever it left in its process group, when it does not obey in time."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(stop_signal)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), grace_s)
    kill(process)
    await process.wait()


def kill(process: Process) -> None:
    """End a process and its group at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def running(service: Service, log: Path) -> AsyncIterator[Process]:
    """One service on its own, for tests: prepared, started and ready inside the block, stopped after it."""
    await service.prepare()
    process = await spawn(service.command, log)
    try:
        await until_ready(service.name, process, service.ready, log)
        yield process
    finally:
        await stop(process, service.stop_signal, service.stop_grace_s)


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a log, none when there is no log yet."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=lines)]
    except FileNotFoundError:
        return []


def _failure(name: str, reason: str, log: Path) -> StartError:
    """With the last lines of the log, which usually know better."""
    return StartError("\n".join([f"{name} {reason}", *(f"  | {line}" for line in tail(log, _TAIL_LINES))]))


def _put_aside(log: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_name(f"{log.name}.1"))


def _ending(code: int) -> str:
    if code == launch.EXEC_FAILED:
        return "could not be started"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
