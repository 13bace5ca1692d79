"""Where a stack keeps what it needs, and the lock that gives the directory to one supervisor at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local_stack import launch

_PRIVATE = 0o700
_PRIVATE_BUT_PASSABLE = 0o711


class AlreadyRunningError(RuntimeError):
    """Another supervisor holds the directory."""


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """The paths of one stack. `path` is absolute."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> "DataDirectory":
        """The directory a user named, whether it exists or not."""
        return cls(path.expanduser().resolve())

    @property
    def logs(self) -> Path:
        """One file per service."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """Rendered configuration, written anew at each start."""
        return self.path / "run"

    @property
    def secrets(self) -> Path:
        """One file per secret."""
        return self.path / "secrets"

    @property
    def spool(self) -> Path:
        """Envoy's access log, until billing_sink has taken it."""
        return self.path / "spool"

    @property
    def postgres(self) -> Path:
        """The Postgres cluster."""
        return self.path / "postgres"

    @property
    def clickhouse(self) -> Path:
        """The ClickHouse data."""
        return self.path / "clickhouse"

    @property
    def endpoints(self) -> Path:
        """How to reach the stack; there while it serves."""
        return self.path / "endpoints.json"

    @property
    def ports(self) -> Path:
        """The ports chosen last."""
        return self.path / "ports.json"

    @property
    def state(self) -> Path:
        """What each service is doing."""
        return self.run / "state.json"

    def log(self, name: str) -> Path:
        """The log of one service or task."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Make what is missing, readable by its owner only. A directory that exists keeps the mode it has."""
        # Where root can run Postgres only as somebody else, that somebody has to pass through. He cannot look around,
        # and everything inside is private in its own right.
        passable = os.geteuid() == 0 and not launch.user_namespaces_work()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(mode=_PRIVATE_BUT_PASSABLE if passable else _PRIVATE, exist_ok=True)
        for folder in (self.logs, self.run, self.secrets, self.spool):
            folder.mkdir(mode=_PRIVATE, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory. The kernel lets go of it when the process ends, however that happens.

        Raises:
            AlreadyRunningError: another process holds it.
        """
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise AlreadyRunningError(
                f"a stack with the data directory {self.path} is already running (pid {self.holder()}); "
                "stop it with `tollgate down`, or choose another --data-dir"
            ) from None
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            yield
        finally:
            os.close(descriptor)

    def holder(self) -> int | None:
        """The pid of the supervisor that holds the directory, None when nobody does or it has only just begun to."""
        try:
            with self._lock.open(encoding="ascii") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read() or 0) or None
                return None
        except FileNotFoundError:
            return None

    @property
    def _lock(self) -> Path:
        return self.path / "lock"
