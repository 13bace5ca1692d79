"""What processes have cost so far, and what they keep in memory. Linux only: it reads /proc."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_DATA_PATH: Final = ("envoy", "ext_authz")
_CACHE: Final = ("response_cache", "valkey")
_NOT_COUNTED: Final = ("simulator", "control_plane")


def data_path(pids: Mapping[str, int]) -> tuple[int, ...]:
    """What a request passes before it is answered; Postgres, where holds are placed, is counted in `everything`."""
    return tuple(pids[name] for name in _DATA_PATH)


def data_path_and_cache(pids: Mapping[str, int]) -> tuple[int, ...]:
    """What a request passes that wants a cached answer."""
    return (*data_path(pids), *(pids[name] for name in _CACHE))


def everything(pids: Mapping[str, int]) -> tuple[int, ...]:
    """All processes that work because of a request, but for the provider."""
    return tuple(pid for name, pid in pids.items() if name not in _NOT_COUNTED)


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time of these processes and all that descend from them, in seconds."""
    stats = _stats()
    return sum(int(stats[pid][11]) + int(stats[pid][12]) for pid in _family(pids, stats)) / _TICKS_PER_S


def resident_mib(pids: Iterable[int]) -> float:
    """What these processes and all that descend from them keep in memory; a page that some of them share counts once among them."""
    total_kib = 0
    for pid in _family(pids, _stats()):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total_kib += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kib / 1024


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


def _stats() -> Mapping[int, list[str]]:
    """Of each process the fields of /proc/PID/stat behind its name."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
    return found


def _family(pids: Iterable[int], stats: Mapping[int, list[str]]) -> Iterable[int]:
    family = {pid for pid in pids if pid in stats}
    while more := {pid for pid, fields in stats.items() if int(fields[1]) in family} - family:
        family |= more
    return family
