"""Settings: the base every service's settings class builds on.

Values come from the environment (`TOLLGATE_` + the field's name) or from files of that name in the directory that
TOLLGATE_SECRETS_DIR names, which is how secrets are handed over. Read once, at start, in `__main__`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple, Self

from pydantic import BeforeValidator, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class HostPort(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


def parse_host_ports(text: str) -> tuple[HostPort, ...]:
    """Read `host:port,host:port`; an IPv6 address stands in brackets.

    Raises:
        ValueError: an entry without a port from 1 to 65535, or no entry at all.
    """
    endpoints = []
    for entry in text.split(","):
        bracketed, _, port = entry.strip().rpartition(":")
        host = bracketed.strip("[]")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:  # noqa: PLR2004 - the range of a port
            raise ValueError(f"not host:port: {entry!r}")
        endpoints.append(HostPort(host, int(port)))
    return tuple(endpoints)


def _from_text(value: object) -> object:
    return parse_host_ports(value) if isinstance(value, str) else value


HostPorts = Annotated[tuple[HostPort, ...], NoDecode, BeforeValidator(_from_text)]
"""A setting written as `host:port,host:port`."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where a server's own certificate, its key and the authority's certificate are."""

    certificate: Path
    key: Path
    ca: Path


class ProcessSettings(BaseSettings):
    """What every process of ours needs to know."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="TOLLGATE_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    log_level: str = "INFO"

    @classmethod
    def load(cls) -> Self:
        """Read the environment and, if TOLLGATE_SECRETS_DIR is set, the files in it. The environment wins."""
        directory = os.environ.get("TOLLGATE_SECRETS_DIR")  # noqa: TID251 - this is where settings are read
        return cls(_secrets_dir=directory)


class ServiceSettings(ProcessSettings):
    """The same of those that work with Postgres."""

    postgres_dsn: SecretStr
