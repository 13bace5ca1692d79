"""Whether the tasks of a start have been done before: migrations and seed, for exactly this code, data and configuration.

They would find nothing to do, but to find that out takes half of a start: three interpreters and their imports. When in
doubt (anything changed, anything missing) they run; running them again is always right.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_stack.data_directory import DataDirectory
from local_stack.secret_files import write_private
from local_stack.service import Task
from local_stack.settings import PROVIDER_KEYS

_CODE = ("billing_sink", "control_plane", "gateway_core")
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Groundwork:
    """The record of one data directory."""

    directory: DataDirectory
    tasks: Sequence[Task]

    def take(self) -> bool:
        """Whether the tasks have succeeded under the circumstances of this moment.

        The record is gone with that: a start that fails because it trusted it is followed by one that does not.
        """
        try:
            recorded = self._record.read_text(encoding="ascii")
        except FileNotFoundError:
            return False
        self._record.unlink()
        return recorded == self._fingerprint()

    def record(self) -> None:
        """Remember that they have."""
        write_private(self._record, self._fingerprint())

    @property
    def _record(self) -> Path:
        return self.directory.run / "groundwork"

    def _fingerprint(self) -> str:
        """A hash of all that the tasks read. Secrets go into it; they cannot be read back from it."""
        digest = hashlib.sha256()
        for part in (*_code(), *_stores(self.directory), *_secrets(self.directory), *_settings(self.tasks)):
            digest.update(part.encode())
            digest.update(b"\0")
        return digest.hexdigest()


def _code() -> Iterator[str]:
    for package in _CODE:
        for path in sorted((_ROOT / package).rglob("*.*")):
            if path.suffix in {".py", ".sql"}:
                stat = path.stat()
                yield f"{path} {stat.st_mtime_ns} {stat.st_size}"


def _stores(directory: DataDirectory) -> Iterator[str]:
    # A cluster that was removed, or put back from a copy, has another number. Of ClickHouse every table is named: it may be
    # emptied at any time to be filled again from the ledger.
    cluster = directory.postgres / "data"
    yield f"{cluster} {cluster.stat().st_ino if cluster.exists() else 'missing'}"
    yield from sorted(str(table) for table in directory.clickhouse.glob("metadata/*/*.sql"))


def _secrets(directory: DataDirectory) -> Iterator[str]:
    for path in sorted(directory.secrets.iterdir()):
        yield f"{path} {path.read_text(encoding='utf-8')}"


def _settings(tasks: Sequence[Task]) -> Iterator[str]:
    for task in tasks:
        yield " ".join(task.command.argv)
        for name, value in sorted(task.command.environment.items()):
            if name.startswith("TOLLGATE_") or name in PROVIDER_KEYS:
                yield f"{name}={value}"
