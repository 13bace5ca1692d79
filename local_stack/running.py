"""A whole stack as a child process, for tests and the benchmark: `tollgate up`, until the block ends."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from local_stack.data_directory import DataDirectory
from local_stack.process import StartError, tail

START_DEADLINE_S = 90.0
STOP_DEADLINE_S = 15.0
"""A stack stops within 5 s; a machine with more to do than that is still no reason to kill one that writes money."""

_POLL_S = 0.05
_TAIL_LINES = 40


@contextlib.asynccontextmanager
async def running_stack(
    data_dir: Path,
    *,
    replicas: int = 1,
    environment: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> AsyncIterator[DataDirectory]:
    """Start a stack and yield its directory once `endpoints.json` is there; stop it at the end of the block.

    Args:
        data_dir: where it lives; made if it is not there. The same directory finds its data again.
        replicas: how many of each service of ours.
        environment: all variables of the process; None hands on those of this one.
        output: where what it prints is written; None drops it, but shows errors.

    Raises:
        AlreadyRunningError: the directory has a supervisor.
        StartError: it did not start; with the end of its output.
    """
    directory = DataDirectory.at(data_dir)
    directory.create()
    # A supervisor that was killed has left its file behind, and the next one needs a moment to remove it.
    with directory.locked():
        directory.endpoints.unlink(missing_ok=True)
    process = await _spawn(directory, replicas, environment, output)
    try:
        await _until_ready(process, directory, output)
        yield directory
    finally:
        await _stop(process)


async def _spawn(
    directory: DataDirectory, replicas: int, environment: Mapping[str, str] | None, output: Path | None
) -> Process:
    options = ("--data-dir", str(directory.path), "--replicas", str(replicas))
    command = (sys.executable, "-m", "tollgate", "up", *options)
    if output is None:
        return await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, env=environment)
    with output.open("wb") as file:
        return await asyncio.create_subprocess_exec(*command, stdout=file, stderr=file, env=environment)


async def _until_ready(process: Process, directory: DataDirectory, output: Path | None) -> None:
    try:
        async with asyncio.timeout(START_DEADLINE_S):
            while not directory.endpoints.exists():
                if process.returncode is not None:
                    raise _failure(f"ended with exit code {process.returncode}", output)
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise _failure(f"was not ready within {START_DEADLINE_S:g} s", output) from None


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_DEADLINE_S)
    except TimeoutError:
        # Its children end with it: the kernel sees to that.
        process.kill()
        await process.wait()
        raise


def _failure(reason: str, output: Path | None) -> StartError:
    said = tail(output, _TAIL_LINES) if output is not None else []
    return StartError("\n".join([f"tollgate up {reason}", *(f"  | {line}" for line in said)]))
