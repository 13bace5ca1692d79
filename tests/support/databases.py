"""Databases for tests: a server for the run, and a fresh database with all migrations for each test that wants one."""

import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from gateway_core.migrate import migrate, read_functions, read_migrations
from local_stack.postgres import running_postgres

ROOT = Path(__file__).parents[2]

MIGRATIONS = {
    "billing_sink": ROOT / "billing_sink" / "migrations" / "postgres",
    "control_plane": ROOT / "control_plane" / "migrations",
}


def docker_answers() -> bool:
    """Whether a Docker engine can be used here."""
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=10, check=False).returncode == 0  # noqa: S607
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


@asynccontextmanager
async def postgres_server(directory: Path) -> AsyncIterator[str]:
    """The DSN of a server where databases can be made.

    The one TOLLGATE_TEST_POSTGRES_DSN names, else a container if Docker answers, else the embedded binaries.
    """
    if given := os.environ.get("TOLLGATE_TEST_POSTGRES_DSN"):
        yield given
    elif docker_answers():
        from testcontainers.postgres import PostgresContainer  # noqa: PLC0415 - slow to import, rarely wanted

        with PostgresContainer("postgres:18", driver=None) as container:
            yield container.get_connection_url()
    else:
        async with running_postgres(directory) as dsn:
            yield dsn


@asynccontextmanager
async def fresh_database(server_dsn: str, up_to: Mapping[str, int] | None = None) -> AsyncIterator[str]:
    """The DSN of a new database on the server, migrated; dropped at the end.

    Args:
        server_dsn: where databases can be made.
        up_to: for each service, the last migration that is applied; only these services'. Without it, everything.
    """
    name = f"test_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(server_dsn)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        dsn = urlsplit(server_dsn)._replace(path=f"/{name}").geturl()
        connection = await asyncpg.connect(dsn)
        try:
            for service, folder in MIGRATIONS.items():
                last = sys.maxsize if up_to is None else up_to.get(service, 0)
                migrations = [each for each in read_migrations(folder) if each.number <= last]
                # Functions are for the newest tables.
                await migrate(connection, service, migrations, read_functions(folder) if up_to is None else "")
        finally:
            await connection.close()
        yield dsn
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()
