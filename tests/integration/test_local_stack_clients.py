"""`tollgate psql` and `tollgate clickhouse`, against real servers and a directory that says where they are."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from local_stack.clickhouse import running_clickhouse
from local_stack.data_directory import DataDirectory
from local_stack.endpoints import Endpoints
from local_stack.ports import free_port
from local_stack.postgres import psql, running_postgres

WAIT_S = 20


@dataclass(frozen=True)
class Said:
    """What a command has said, and how it ended."""

    code: int | None
    output: str
    errors: str


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory.at(tmp_path / "a stack")
    directory.create()
    return directory


async def tollgate(*arguments: str, **environment: str) -> Said:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tollgate", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    output, errors = await asyncio.wait_for(process.communicate(), WAIT_S)
    return Said(process.returncode, output.decode(), errors.decode())


@contextlib.contextmanager
def serving(directory: DataDirectory, *, postgres_dsn: str = "", clickhouse_url: str = "") -> Iterator[None]:
    """The directory as it is while a stack with these stores serves."""
    reachable_at = Endpoints("", "", "", "", [], "", postgres_dsn, "", clickhouse_url, "", "", "", "")
    with directory.locked():
        reachable_at.write(directory.endpoints)
        yield


async def test_psql_takes_every_argument_that_is_not_ours(tmp_path: Path, directory: DataDirectory) -> None:
    async with running_postgres(tmp_path / "postgres") as dsn:
        with serving(directory, postgres_dsn=dsn):
            here = ("--data-dir", str(directory.path))
            asked = await tollgate("psql", "-c", "SELECT 1 AS a, current_user", "-At", "--csv", *here)
            assert (asked.code, asked.output) == (0, "1,tollgate\n")
            asked = await tollgate("psql", *here, "--", "--tuples-only", "--no-align", "-c", "SELECT 'a b'")
            assert (asked.code, asked.output) == (0, "a b\n")


async def test_psql_ends_as_psql_does(tmp_path: Path, directory: DataDirectory) -> None:
    async with running_postgres(tmp_path / "postgres") as dsn:
        with serving(directory, postgres_dsn=dsn):
            refused = await tollgate("psql", "--data-dir", str(directory.path), "-c", "SELECT * FROM missing")
    assert refused.code == 1
    assert 'relation "missing" does not exist' in refused.errors


async def test_psql_is_not_sent_elsewhere_by_variables_of_another_server(
    tmp_path: Path, directory: DataDirectory
) -> None:
    elsewhere = {"PGHOSTADDR": "192.0.2.1", "PGSERVICE": "other", "PGSSLMODE": "require", "PGDATABASE": "other"}
    async with running_postgres(tmp_path / "postgres") as dsn:
        with serving(directory, postgres_dsn=dsn):
            asked = await tollgate("psql", "-Atc", "SELECT 1", "--data-dir", str(directory.path), **elsewhere)
    assert (asked.code, asked.output) == (0, "1\n")


def test_the_password_is_in_the_environment_and_in_no_argument() -> None:
    command = psql("postgresql://user:hidden@127.0.0.1:5432/name", ["-l"], {"PATH": "/bin", "PGPASSFILE": "/other"})
    assert command.argv[1:] == ("-l",)
    assert command.environment == {
        "PATH": "/bin",
        "PGHOST": "127.0.0.1",
        "PGPORT": "5432",
        "PGUSER": "user",
        "PGPASSWORD": "hidden",
        "PGDATABASE": "name",
    }


async def test_clickhouse_answers_as_a_table_or_as_asked(tmp_path: Path, directory: DataDirectory) -> None:
    async with running_clickhouse(tmp_path / "clickhouse") as url:
        with serving(directory, clickhouse_url=url):
            here = ("--data-dir", str(directory.path))
            table = await tollgate("clickhouse", "SELECT 'ü' AS a, currentDatabase() AS b", *here)
            assert (table.code, table.errors) == (0, "")
            assert "─a─" in table.output
            assert "│ ü │ tollgate │" in table.output
            assert (await tollgate("clickhouse", "SELECT 1, 'x'", "--format", "CSV", *here)).output == '1,"x"\n'
            assert (await tollgate("clickhouse", "SELECT 1 FORMAT TSV", *here)).output == "1\n"
            assert await tollgate("clickhouse", "CREATE TABLE t (a Int8) ENGINE = Memory", *here) == Said(0, "", "")


async def test_a_query_that_clickhouse_refuses_is_an_error_in_its_words(
    tmp_path: Path, directory: DataDirectory
) -> None:
    async with running_clickhouse(tmp_path / "clickhouse") as url:
        with serving(directory, clickhouse_url=url):
            refused = await tollgate("clickhouse", "SELECT * FROM missing", "--data-dir", str(directory.path))
    assert (refused.code, refused.output) == (1, "")
    assert refused.errors.startswith("Error: Code: 60. DB::Exception: ")


async def test_a_clickhouse_that_is_gone_is_an_error(directory: DataDirectory) -> None:
    port = free_port()
    with serving(directory, clickhouse_url=f"http://tollgate:x@127.0.0.1:{port}/tollgate"):
        refused = await tollgate("clickhouse", "SELECT 1", "--data-dir", str(directory.path))
    assert refused.code == 1
    assert refused.errors.startswith(f"Error: ClickHouse at port {port} does not answer (")
    assert "Traceback" not in refused.errors


@pytest.mark.parametrize("command", ["psql", "clickhouse"])
async def test_without_a_stack_the_exit_code_is_that_of_status(directory: DataDirectory, command: str) -> None:
    here = ("--data-dir", str(directory.path))
    stopped = await tollgate(command, "SELECT 1", *here)
    assert (stopped.code, stopped.output) == (3, "")
    assert (
        stopped.errors
        == f"Error: no stack is running in {directory.path}; start one with `tollgate up`, or say with --data-dir where it is\n"
    )
    with directory.locked():
        starting = await tollgate(command, "SELECT 1", *here)
    assert starting.code == 3
    assert "is starting or stopping" in starting.errors
