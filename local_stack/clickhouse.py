"""The ClickHouse stand-in as a child process: `clickhouse_bridge`, the real engine behind its HTTP interface."""

import contextlib
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from local_stack import probes, process
from local_stack.ports import free_port
from local_stack.secret_files import write_private
from local_stack.service import Command, Service
from local_stack.settings import Environment

USER = "tollgate"
DATABASE = "tollgate"


@dataclass(frozen=True, slots=True)
class ClickHouse:
    """One server with its data in `directory`; the password reaches it in a file."""

    directory: Path
    port: int
    password_file: Path
    password: str
    environment: Mapping[str, str]
    """Of this process: the server is a Python like it, and finds its packages the same way."""

    @property
    def url(self) -> str:
        """How to connect, password included."""
        return f"http://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    def service(self) -> Service:
        """The server."""
        arguments = {
            "--data-dir": str(self.directory),
            "--port": str(self.port),
            "--user": USER,
            "--password-file": str(self.password_file),
            "--database": DATABASE,
        }
        module = (sys.executable, "-P", "-m", "local_stack.clickhouse_bridge")
        return Service(
            "clickhouse",
            Command(
                (*module, *(word for pair in arguments.items() for word in pair)),
                environment={**self.environment, "TZ": "UTC"},
            ),
            ready=self._missing,
            prepare=self._prepare,
            ports={"clickhouse": self.port},
            stop_stage=3,
        )

    async def _prepare(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def _missing(self, _pid: int) -> str | None:
        return await probes.http_get(self.port, "/ping")


@contextlib.asynccontextmanager
async def running_clickhouse(data_dir: Path, *, port: int | None = None) -> AsyncIterator[str]:
    """A ClickHouse of its own below `data_dir`, for tests: yields the URL. The same directory finds its data again."""
    server = _alone(data_dir, port or free_port())
    async with process.running(server.service(), data_dir / "clickhouse.log"):
        yield server.url


def _alone(data_dir: Path, port: int) -> ClickHouse:
    data_dir.mkdir(parents=True, exist_ok=True)
    data_dir = data_dir.resolve()
    password, password_file = secrets.token_hex(), data_dir / "clickhouse-password"
    write_private(password_file, password)
    environment = Environment.load(secret_names=()).general
    return ClickHouse(data_dir / "clickhouse", port, password_file, password, environment)
