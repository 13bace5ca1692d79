"""What each service is doing, as a file beside the data: the supervisor writes it, `tollgate status` reads it."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from local_stack.secret_files import write_private


class State(StrEnum):
    """The life of a service."""

    WAITING = "waiting"
    """For what it needs."""
    STARTING = "starting"
    UP = "up"
    UNREADY = "unready"
    """Its process runs but does not do its work. Only an observer says so."""
    RESTARTING = "restarting"
    """It ended by itself and is about to be started again."""
    FAILED = "failed"
    """It did not start in the first place, and with that the stack does not."""
    DOWN = "down"


class TaskState(StrEnum):
    """The life of a task; one that was done in an earlier start has none."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service at one moment."""

    name: str
    state: State = State.WAITING
    pid: int | None = None
    born: int | None = None
    """When the process started, in the kernel's ticks: pid and this together are never given to another process."""
    restarts: int = 0
    ports: Mapping[str, int] = field(default_factory=dict)


def write_state(path: Path, statuses: Iterable[ServiceStatus]) -> None:
    """Replace the file in one step."""
    write_private(path, json.dumps([dataclasses.asdict(status) for status in statuses], indent=2))


def read_state(path: Path) -> list[ServiceStatus]:
    """The services in the order of their start; none before the first start."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [ServiceStatus(**{**entry, "state": State(entry["state"])}) for entry in entries]


def born(pid: int) -> int | None:
    """The moment a process started, None when there is none of that pid, or no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    # The name stands in parentheses and may hold anything; fields count from behind it, the start time is number 22.
    return int(stat.rpartition(")")[2].split()[19])
