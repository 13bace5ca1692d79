"""Where a stack keeps what it needs, and the lock that gives the directory to one supervisor at a time."""

import contextlib
import errno
import fcntl
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local_stack import launch

_USUAL = 0o777
"""Less the umask: for directories around the stack's own."""
_PRIVATE = 0o700
_PRIVATE_BUT_PASSABLE = 0o711

_UNSPEAKABLE = frozenset({"Cc", "Cs"})
"""Unicode categories: a line break shifts the lines of Postgres's pid file, a byte that is not UTF-8 is not in any JSON."""


class AlreadyRunningError(RuntimeError):
    """Another supervisor holds the directory."""


class UnusableDirectoryError(RuntimeError):
    """No stack can live in the directory; the message says why and what to do."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot use {path} as the data directory: {reason}; choose another with --data-dir")


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """The paths of one stack. `path` is absolute."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> "DataDirectory":
        """The directory a user named, whether it exists or not.

        Raises:
            UnusableDirectoryError: its path leads nowhere, or has characters that programs and their files trip over.
        """
        try:
            resolved = path.expanduser().resolve()
        except RuntimeError as error:  # a circle of links, or the home of somebody unknown
            raise UnusableDirectoryError(path, _sentence(str(error))) from None
        if any(unicodedata.category(character) in _UNSPEAKABLE for character in str(resolved)):
            raise UnusableDirectoryError(Path(ascii(str(resolved))), "its path has control characters or is not UTF-8")
        return cls(resolved)

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

    @property
    def is_known(self) -> bool:
        """Whether a stack has been started here before."""
        try:
            return self._lock.exists()
        except OSError:  # `create` finds out the same, and says it
            return False

    def create(self) -> None:
        """Make what is missing, readable by its owner only. A directory that exists keeps the mode it has.

        Raises:
            UnusableDirectoryError: something cannot be made or written to. Whatever was made before that is gone again.
        """
        made: list[Path] = []
        try:
            for folder, mode in self._folders():
                if not folder.is_dir():
                    folder.mkdir(mode=mode, exist_ok=True)
                    made.append(folder)
            for folder in (self.path, self.logs, self.run, self.secrets, self.spool):
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, "not writable", str(folder))
        except OSError as error:
            with contextlib.suppress(OSError):
                for folder in reversed(made):
                    folder.rmdir()
            raise UnusableDirectoryError(self.path, _reason(error, self.path)) from None

    def _folders(self) -> Iterator[tuple[Path, int]]:
        """Every directory of a stack but the stores', from the outermost to the innermost, with its mode."""
        # Where root can run Postgres only as somebody else, that somebody has to pass through. He cannot look around,
        # and everything inside is private in its own right.
        passable = os.geteuid() == 0 and not launch.user_namespaces_work()
        yield from ((folder, _USUAL) for folder in reversed(self.path.parents))
        yield self.path, _PRIVATE_BUT_PASSABLE if passable else _PRIVATE
        yield from ((folder, _PRIVATE) for folder in (self.logs, self.run, self.secrets, self.spool))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory. The kernel lets go of it when the process ends, however that happens.

        Raises:
            AlreadyRunningError: another process holds it.
            UnusableDirectoryError: it cannot be written to.
        """
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UnusableDirectoryError(self.path, _reason(error, self.path)) from None
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
        """The pid of the supervisor that holds the directory, None when nobody does or it has only just begun to.

        Raises:
            UnusableDirectoryError: it cannot be read.
        """
        try:
            with self._lock.open(encoding="ascii") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read() or 0) or None
                return None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnusableDirectoryError(self.path, _reason(error, self.path)) from None

    @property
    def _lock(self) -> Path:
        return self.path / "lock"


def _reason(error: OSError, path: Path) -> str:
    """What the kernel said, and of which file unless it is `path` itself."""
    if isinstance(error, FileExistsError):
        return f"{'it' if error.filename == str(path) else error.filename} is a file"
    text = _sentence(error.strerror or str(error))
    return text if error.filename in {None, str(path)} else f"{text} ({error.filename})"


def _sentence(text: str) -> str:
    """Without the capital and the full stop, to stand inside another sentence."""
    return (text[:1].lower() + text[1:]).rstrip(".")
