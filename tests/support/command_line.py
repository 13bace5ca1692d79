"""The real `tollgate`, as a process of its own, with a home that is the test's."""

import asyncio
import json
import os
import pty
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

WAIT_S = 30


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which is JSON."""
        return json.loads(self.out)


@dataclass(frozen=True)
class CommandLine:
    """Runs commands in a directory of the test's, with no environment but this."""

    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def with_(self, **variables: str) -> "CommandLine":
        """The same with more variables."""
        return replace(self, environment={**self.environment, **variables})

    @property
    def state_file(self) -> Path:
        """Where sessions are kept."""
        return self.directory / "state" / "tollgate" / "sessions.json"

    async def run(self, *arguments: str, stdin: str = "", stdout: int = asyncio.subprocess.PIPE) -> Outcome:
        """One command, with its standard input; standard output is empty here if it goes elsewhere."""
        started = await self._started(arguments, asyncio.subprocess.PIPE, stdout)
        return await _ended(started, stdin.encode())

    async def done(self, *arguments: str, stdin: str = "") -> Outcome:
        """One command that must succeed."""
        outcome = await self.run(*arguments, stdin=stdin)
        assert outcome.code == 0, f"{arguments}: {outcome}"
        return outcome

    async def asked(self, *arguments: str, question: str, meanwhile: Callable[[], Awaitable[object]]) -> Outcome:
        """One command at a terminal that asks something, and is answered with yes after something else was done."""
        controller, terminal = pty.openpty()
        try:
            process = await self._started(arguments, terminal)
            assert process.stderr is not None
            before = await asyncio.wait_for(process.stderr.readuntil(question.encode()), WAIT_S)
            await meanwhile()
            os.write(controller, b"y\n")
            outcome = await _ended(process, None)
        finally:
            os.close(controller)
            os.close(terminal)
        return replace(outcome, err=before.decode() + outcome.err)

    async def _started(
        self, arguments: Sequence[str], stdin: int, stdout: int = asyncio.subprocess.PIPE
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("tollgate"),
            *arguments,
            stdin=stdin,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.directory,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.directory),
                "XDG_STATE_HOME": str(self.directory / "state"),
                **self.environment,
            },
        )


async def _ended(process: asyncio.subprocess.Process, stdin: bytes | None) -> Outcome:
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin), WAIT_S)
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode is not None
    assert "Traceback" not in err.decode(), err.decode()
    return Outcome(process.returncode, (out or b"").decode(), err.decode())
