"""The real `tollgate`, as a process of its own, with a home that is the test's."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
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

    async def run(self, *arguments: str, stdin: str = "") -> Outcome:
        """One command, with its standard input."""
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("tollgate"),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.directory,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.directory),
                "XDG_STATE_HOME": str(self.directory / "state"),
                **self.environment,
            },
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin.encode()), WAIT_S)
        except TimeoutError:
            process.kill()
            raise
        assert process.returncode is not None
        assert "Traceback" not in err.decode(), err.decode()
        return Outcome(process.returncode, out.decode(), err.decode())

    async def done(self, *arguments: str, stdin: str = "") -> Outcome:
        """One command that must succeed."""
        outcome = await self.run(*arguments, stdin=stdin)
        assert outcome.code == 0, f"{arguments}: {outcome}"
        return outcome
