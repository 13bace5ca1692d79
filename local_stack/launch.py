"""The step between the supervisor's fork and a child's exec: give up root if asked to, tie the child to its parent, exec.

Runs as a script under `python -I -S`, so it imports the standard library only. Whatever goes wrong is one line on standard
error and exit code 127; the child's log shows it and nothing waits for a process that never began.
"""

import argparse
import ctypes
import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EXEC_FAILED = 127
"""The shell's code for a command that could not be started."""

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_ROOT = 0
_NAMESPACE_ID = 1000
_NOBODY = 65534
_OPEN_FILES = 65536


@dataclass(frozen=True, slots=True)
class Launch:
    """One launcher command line, parsed."""

    parent_pid: int
    orphan_signal: int
    unprivileged: Path | None
    argv: tuple[str, ...]


class LaunchError(Exception):
    """The child cannot start; the message is for the person reading its log."""


def parse(arguments: Sequence[str]) -> Launch:
    """Read `--parent PID --orphan-signal N [--unprivileged DIR] -- COMMAND...`."""
    parser = argparse.ArgumentParser(prog="launch", allow_abbrev=False)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--orphan-signal", type=int, required=True)
    parser.add_argument("--unprivileged", type=Path)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    return Launch(options.parent, options.orphan_signal, options.unprivileged, tuple(options.command))


def main(arguments: Sequence[str]) -> int:
    """Become the command. Returns only when that fails."""
    launch = parse(arguments)
    try:
        if launch.unprivileged is not None and os.geteuid() == _ROOT:
            _leave_root(launch.unprivileged)
        # After the change of user, because the kernel forgets the setting there.
        _die_with_parent(launch.parent_pid, launch.orphan_signal)
        _allow_many_files()
        os.execv(launch.argv[0], launch.argv)  # noqa: S606 - no shell is the point
    except (LaunchError, OSError) as error:
        print(f"launch: {launch.argv[0]}: {error}", file=sys.stderr)  # noqa: T201 - the child's log
    return EXEC_FAILED


def user_namespaces_work() -> bool:
    """Whether this process may make a user namespace; asked of a fork, because there is no way back out of one."""
    child = os.fork()
    if child == 0:
        try:
            _enter_user_namespace()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _leave_root(directory: Path) -> None:
    """Become a user who is not root (Postgres insists) and who owns `directory`.

    Root's own directory stays root's: inside a user namespace root merely has another number. Where namespaces are
    refused, and for a directory that was handed over before, the process becomes the directory's owner.
    """
    if directory.stat().st_uid == _ROOT:
        if user_namespaces_work():
            _enter_user_namespace()
            return
        _give_away(directory)
    owner = directory.stat()
    os.setgroups([])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)
    for step in (*reversed(directory.parents), directory):
        if not os.access(step, os.X_OK):
            raise LaunchError(
                f"root may not run this, and user {owner.st_uid}, who may, cannot enter {step}. "
                "Choose a --data-dir below a directory that everybody may enter, or start as an ordinary user."
            )


def _enter_user_namespace() -> None:
    group = os.getegid()  # before, because inside nobody has a number until the maps are written
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "user namespaces are refused here")
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{_NAMESPACE_ID} {_ROOT} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{_NAMESPACE_ID} {group} 1", encoding="ascii")


def _give_away(directory: Path) -> None:
    """Make `directory` and what is in it nobody's. What lies around it stays as it is: that is not ours to open."""
    for folder, _, names in os.walk(directory):
        for path in (folder, *(os.path.join(folder, name) for name in names)):  # noqa: PTH118 - os.walk gives strings
            os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)


def _die_with_parent(parent_pid: int, signal_number: int) -> None:
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_PDEATHSIG was refused")
    if os.getppid() != parent_pid:
        raise LaunchError("the supervisor is already gone")


def _allow_many_files() -> None:
    """A proxy has a file open per connection; the usual soft limit of 1024 is for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
