"""What the supervisor needs to know about a process: how it starts, when it is ready, how it stops. Data only."""

import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Command:
    """One command line and its whole environment. Secrets are in neither; they are handed over as files."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: Path = Path(os.devnull)
    unprivileged: Path | None = None
    """Started by root, the process becomes a user who is not root and owns this directory, which the stack made."""
    orphan_signal: signal.Signals = signal.SIGKILL
    """Sent by the kernel when the supervisor dies without stopping the process."""


Ready = Callable[[int], Awaitable[str | None]]
"""Told the pid, says what is still missing; None when the process does its work. Never raises, asked again and again."""


async def _nothing_to_prepare() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Service:
    """A process that runs until the stack stops."""

    name: str
    command: Command
    ready: Ready
    needs: tuple[str, ...] = ()
    """Services that are ready, and tasks that are done, before this one starts."""
    prepare: Callable[[], Awaitable[None]] = _nothing_to_prepare
    """Runs before every start, restarts included."""
    ports: Mapping[str, int] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_stage: int = 0
    """Lower stages stop first; services of one stage stop together."""
    stop_grace_s: float = 0.5
    """After this long a process that was asked to stop is killed."""


@dataclass(frozen=True, slots=True)
class Task:
    """A command that runs once during the start and has to succeed."""

    name: str
    command: Command
    needs: tuple[str, ...] = ()
    is_done: bool = False
    """It has succeeded in an earlier start and need not run again."""
