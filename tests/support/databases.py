"""Databases for tests: a server for the run, and a fresh database with all migrations for each test that wants one."""

import hashlib
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

RIGHTS_ON_DATABASE = (
    "REVOKE ALL ON DATABASE {} FROM tollgate_control_plane, tollgate_ext_authz, tollgate_billing_sink",
    "REVOKE CREATE, TEMPORARY ON DATABASE {} FROM PUBLIC",
)
"""As `rights.sql` of billing_sink has them."""


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
            await _hurry(dsn)
            yield dsn


async def _hurry(server_dsn: str) -> None:
    """Let a server that goes with the run not wait for the disk. What a crash leaves is asked of stacks of their own."""
    admin = await asyncpg.connect(server_dsn)
    try:
        await admin.execute("ALTER SYSTEM SET fsync = off")
        await admin.execute("ALTER SYSTEM SET full_page_writes = off")
        await admin.execute("SELECT pg_reload_conf()")
    finally:
        await admin.close()


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
        if up_to is None:
            await admin.execute(f"CREATE DATABASE {name} TEMPLATE {await _template(admin, server_dsn)}")
            # Rights on the database itself, which are none of what is in it, are not copied.
            for change in RIGHTS_ON_DATABASE:
                await admin.execute(change.format(name))
        else:
            await admin.execute(f"CREATE DATABASE {name}")
            await _migrate(_dsn_of(server_dsn, name), up_to)
        yield _dsn_of(server_dsn, name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


async def _template(admin: asyncpg.Connection, server_dsn: str) -> str:
    """The name of the database that others are copied from: a third of the time of migrating each."""
    files = sorted(path for folder in MIGRATIONS.values() for path in folder.rglob("*.sql"))
    content = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    name = f"migrated_{content[:16]}"
    # Runs that share a server make it once.
    await admin.execute("SELECT pg_advisory_lock(hashtext($1))", name)
    try:
        if await admin.fetchval("SELECT datistemplate FROM pg_database WHERE datname = $1", name):
            return name
        await admin.execute(f"DROP DATABASE IF EXISTS {name}")
        await admin.execute(f"CREATE DATABASE {name}")
        await _migrate(_dsn_of(server_dsn, name))
        await admin.execute(f"ALTER DATABASE {name} IS_TEMPLATE true")
    finally:
        await admin.execute("SELECT pg_advisory_unlock(hashtext($1))", name)
    return name


async def _migrate(dsn: str, up_to: Mapping[str, int] | None = None) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for service, folder in MIGRATIONS.items():
            last = sys.maxsize if up_to is None else up_to.get(service, 0)
            migrations = [each for each in read_migrations(folder) if each.number <= last]
            # Functions are for the newest tables.
            await migrate(connection, service, migrations, read_functions(folder) if up_to is None else "")
    finally:
        await connection.close()


def _dsn_of(server_dsn: str, database: str) -> str:
    return urlsplit(server_dsn)._replace(path=f"/{database}").geturl()
