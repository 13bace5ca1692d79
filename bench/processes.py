"""The stack under test, and what its processes have cost so far. Linux only: it reads /proc."""

import json
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from local_stack.running import running_stack

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_DATA_PATH = ("envoy", "ext_authz")
_CACHE = ("response_cache", "valkey")
_NOT_COUNTED = ("simulator", "control_plane")


@dataclass(frozen=True)
class RunningStack:
    """A stack that `tollgate up` has started."""

    api_key: str
    operator_token: str
    control_plane_url: str
    postgres_dsn: str
    gateway_port: int
    simulator_port: int
    pids: Mapping[str, int]

    @property
    def data_path(self) -> tuple[int, ...]:
        """What a request passes before it is answered; Postgres, where holds are placed, is counted in `everything`."""
        return tuple(self.pids[name] for name in _DATA_PATH)

    @property
    def data_path_and_cache(self) -> tuple[int, ...]:
        """What a request passes that wants an answer that was kept."""
        return (*self.data_path, *(self.pids[name] for name in _CACHE))

    @property
    def everything(self) -> tuple[int, ...]:
        """All processes that work because of a request, but for the provider."""
        return tuple(pid for name, pid in self.pids.items() if name not in _NOT_COUNTED)


@asynccontextmanager
async def tollgate_up(directory: Path) -> AsyncIterator[RunningStack]:
    """A stack of its own, until the block ends."""
    async with running_stack(directory) as started:
        endpoints = json.loads(started.endpoints.read_text())
        ports = json.loads(started.ports.read_text())
        yield RunningStack(
            api_key=endpoints["api_key"],
            operator_token=endpoints["operator_token"],
            control_plane_url=endpoints["control_plane_url"],
            postgres_dsn=endpoints["postgres_dsn"],
            gateway_port=ports["gateway"],
            simulator_port=ports["simulator"],
            pids=endpoints["pids"],
        )


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time of these processes and their children, in seconds."""
    wanted = set(pids)
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(path.parent.name) in wanted or int(fields[1]) in wanted:
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_S


def find_pid(command: str, argument: str) -> int:
    """The pid of the process that runs a command with this argument.

    Raises:
        LookupError: there is none.
    """
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(command.encode()) and argument.encode() in words:
            return int(path.parent.name)
    raise LookupError(f"no {command} with {argument}")
