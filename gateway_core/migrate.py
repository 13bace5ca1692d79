"""Numbered SQL migrations, one folder and one schema per service, and the functions that stand on them.

Migrations go forward only. A file already applied may not change: its checksum is kept. Functions are not history: each stands once,
as it is now, in a file below `functions/`, and all of them are applied again after the migrations whenever one has changed or a migration was missing. Whoever
changes a function's parameters or result drops the old one in a migration. So is `rights.sql`, last of all: it says what the roles
of the services may do. Concurrent starts wait on an advisory lock.
"""

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from gateway_core.contract import Service, database_role

_RIGHTS = "rights.sql"
_NAME = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of a migrations folder."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


class MigrationError(RuntimeError):
    """The folder and the database do not fit together; the message says how."""


def read_migrations(folder: Path) -> list[Migration]:
    """The migrations of a folder in order.

    Raises:
        MigrationError: a file with another name than `0001_what_it_does.sql`, or two with one number. A gap is none of our
            business: a number is taken when work on it begins, and the work is done when it is done.
    """
    migrations = []
    for path in sorted(set(folder.glob("*.sql")) - {folder / _RIGHTS}):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path.name}: a migration is named like 0001_what_it_does.sql")
        migrations.append(Migration(int(match[1]), path.name, path.read_text(encoding="utf-8")))
    if len({migration.number for migration in migrations}) != len(migrations):
        raise MigrationError(f"{folder.name}: two migrations have the same number")
    return migrations


def read_functions(folder: Path) -> str:
    """The functions of a migrations folder and then the rights, as one text; empty if it has none."""
    files = [*sorted(folder.glob("functions/*.sql")), *folder.glob(_RIGHTS)]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


async def migrate(
    connection: asyncpg.Connection, service: str, migrations: Sequence[Migration], functions: str
) -> list[str]:
    """Apply what is missing, all or nothing, and return the names applied; `functions` is as `read_functions` returns it.

    Raises:
        MigrationError: an applied file has changed since, or the database is newer than this code.
    """
    async with connection.transaction():
        # The lock keeps two starts from creating the table, and then from running one file twice.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('tollgate.migrate'))")
        await connection.execute("""
            CREATE TABLE IF NOT EXISTS public.tollgate_migrations (
                service    text NOT NULL,
                number     integer NOT NULL,
                name       text NOT NULL,
                checksum   text NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT now(),
                PRIMARY KEY (service, number)
            )""")
        rows = await connection.fetch(
            "SELECT number, checksum FROM public.tollgate_migrations WHERE service = $1", service
        )
        missing = missing_migrations({row["number"]: row["checksum"] for row in rows}, migrations)
        for migration in missing:
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO public.tollgate_migrations (service, number, name, checksum) VALUES ($1, $2, $3, $4)",
                service,
                migration.number,
                migration.name,
                migration.checksum,
            )
        are_new = bool(functions) and await _apply_functions(connection, service, functions, anew=bool(missing))
    return [*(migration.name for migration in missing), *(["functions"] if are_new else [])]


async def _apply_functions(connection: asyncpg.Connection, service: str, functions: str, *, anew: bool) -> bool:
    await connection.execute("""
        CREATE TABLE IF NOT EXISTS public.tollgate_functions (
            service    text PRIMARY KEY,
            checksum   text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now()
        )""")
    checksum = hashlib.sha256(functions.encode()).hexdigest()
    applied = await connection.fetchval("SELECT checksum FROM public.tollgate_functions WHERE service = $1", service)
    # A migration may have brought what nobody has a right to yet.
    if checksum == applied and not anew:
        return False
    await _make_roles(connection)
    # They may call each other, whatever the order of the files.
    await connection.execute("SET LOCAL check_function_bodies = off")
    await connection.execute(functions)
    await connection.execute(
        """INSERT INTO public.tollgate_functions (service, checksum) VALUES ($1, $2)
           ON CONFLICT (service) DO UPDATE SET checksum = excluded.checksum, applied_at = now()""",
        service,
        checksum,
    )
    return True


async def _make_roles(connection: asyncpg.Connection) -> None:
    """The roles of the services, which are the whole cluster's: another database of it may have made them, or be about to."""
    for role in map(database_role, Service):
        if await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
            continue
        with contextlib.suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute(f"CREATE ROLE {role} NOLOGIN")


def missing_migrations(applied: Mapping[int, str], migrations: Sequence[Migration]) -> list[Migration]:
    """Which migrations are not yet among the applied ones (number to checksum).

    Raises:
        MigrationError: an applied file has changed since, or is not known to this version.
    """
    known = {migration.number: migration for migration in migrations}
    for number, checksum in applied.items():
        migration = known.get(number)
        if migration is None:
            raise MigrationError(f"migration {number} was applied to this database, but this version does not know it")
        if migration.checksum != checksum:
            raise MigrationError(f"{migration.name} has changed since it was applied; add a new migration instead")
    return [migration for migration in migrations if migration.number not in applied]
