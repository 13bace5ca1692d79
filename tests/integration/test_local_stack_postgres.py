"""Postgres as the stack runs it: the real binaries, as whoever runs the tests and, for root, as nobody."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from local_stack.ports import free_port
from local_stack.postgres import Postgres, running_postgres
from local_stack.process import StartError, kill, running, spawn, until_ready

NOBODY = 65534


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory everybody may enter, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="tollgate-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def about(path: Path) -> os.stat_result:
    return path.stat()


def close_to_others(path: Path) -> None:
    path.chmod(0o700)


async def fetch(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def execute(dsn: str, query: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(query)
    finally:
        await connection.close()


async def test_data_survives_a_stop_and_a_start(tmp_path: Path) -> None:
    async with running_postgres(tmp_path) as dsn:
        await execute(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    async with running_postgres(tmp_path) as dsn:
        assert await fetch(dsn, "SELECT answer FROM kept") == 42


async def test_it_is_version_18_safe_on_disk_and_in_utf8(tmp_path: Path) -> None:
    async with running_postgres(tmp_path) as dsn:
        assert str(await fetch(dsn, "SHOW server_version")).startswith("18.")
        assert await fetch(dsn, "SHOW fsync") == "on"
        assert await fetch(dsn, "SHOW synchronous_commit") == "on"
        assert await fetch(dsn, "SHOW server_encoding") == "UTF8"
        assert await fetch(dsn, "SELECT datcollate FROM pg_database WHERE datname = 'tollgate'") == "C"


async def test_a_wrong_password_is_refused(tmp_path: Path) -> None:
    async with running_postgres(tmp_path) as dsn:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(dsn, password="wrong")


async def test_it_starts_again_at_once_after_a_kill(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", free_port(), "secret")
    service, log = server.service(), tmp_path / "postgres.log"
    async with running(service, log) as process:
        await execute(server.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        process.kill()
        await process.wait()
    async with running(service, log):
        assert await fetch(server.dsn, "SELECT answer FROM kept") == 42


async def test_no_number_of_a_sequence_is_given_twice_after_a_kill(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", free_port(), "secret")
    service, log = server.service(), tmp_path / "postgres.log"
    table = "CREATE TABLE counted (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)"
    insert = "INSERT INTO counted DEFAULT VALUES"
    async with running(service, log) as process:
        # As a migration does: the sequence is made and used in one transaction.
        await execute(server.dsn, f"BEGIN; {table}; {insert}; COMMIT")
        await execute(server.dsn, insert)
        process.kill()
        await process.wait()
    async with running(service, log):
        await execute(server.dsn, insert)
        assert await fetch(server.dsn, "SELECT count(*) FROM counted") == 3


async def test_a_stale_pid_file_that_names_a_living_stranger_does_not_stop_it(tmp_path: Path) -> None:
    async with running_postgres(tmp_path):
        lines = (tmp_path / "postgres" / "data" / "postmaster.pid").read_text().splitlines()
    stale = "\n".join([str(os.getppid()), *lines[1:]]) + "\n"
    (tmp_path / "postgres" / "data" / "postmaster.pid").write_text(stale)
    async with running_postgres(tmp_path) as dsn:
        assert await fetch(dsn, "SELECT 1") == 1


async def test_an_interrupted_first_start_is_made_up_for(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "unfinished").mkdir(parents=True)
    (tmp_path / "postgres" / "unfinished" / "PG_VERSION").touch()
    async with running_postgres(tmp_path) as dsn:
        assert await fetch(dsn, "SELECT 1") == 1


async def test_a_second_server_on_one_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_stack.postgres._PREDECESSOR_GONE_S", 0.2)
    async with running_postgres(tmp_path):
        with pytest.raises(StartError, match="another Postgres runs"):
            async with running_postgres(tmp_path):
                pass


async def test_an_end_instead_of_a_start_is_reported_with_the_log(tmp_path: Path) -> None:
    async with running_postgres(tmp_path):
        pass
    (tmp_path / "postgres" / "data" / "postgresql.conf").write_text("nonsense = on\n")
    with pytest.raises(StartError, match=r"postgres ended with exit code 1(.|\n)*nonsense"):
        async with running_postgres(tmp_path):
            pass


async def test_no_backend_outlives_the_server(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", free_port(), "secret")
    service, log = server.service(), tmp_path / "postgres.log"
    async with running(service, log):
        connection = await asyncpg.connect(server.dsn)
        backend: int = await connection.fetchval("SELECT pg_backend_pid()")
    connection.terminate()
    assert not is_alive(backend)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand a directory to somebody else")
async def test_root_runs_it_as_the_owner_of_its_directory(open_directory: Path) -> None:
    (open_directory / "postgres").mkdir(mode=0o700)
    os.chown(open_directory / "postgres", NOBODY, NOBODY)
    server = Postgres(open_directory / "postgres", free_port(), "secret")
    async with running(server.service(), open_directory / "postgres.log") as process:
        assert await fetch(server.dsn, "SELECT 1") == 1
        assert about(Path(f"/proc/{process.pid}")).st_uid == NOBODY
    assert about(open_directory / "postgres" / "data").st_uid == NOBODY


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand a directory to somebody else")
async def test_an_owner_who_cannot_enter_is_told_so(open_directory: Path) -> None:
    (open_directory / "postgres").mkdir()
    os.chown(open_directory / "postgres", NOBODY, NOBODY)
    close_to_others(open_directory)
    server = Postgres(open_directory / "postgres", free_port(), "secret")
    with pytest.raises(StartError, match=f"cannot enter {open_directory}"):
        async with running(server.service(), open_directory / "postgres.log"):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="other users run it as themselves")
async def test_roots_directory_stays_roots(tmp_path: Path) -> None:
    before = about(tmp_path)
    async with running_postgres(tmp_path):
        assert about(tmp_path / "postgres" / "data").st_uid == 0
    after = about(tmp_path)
    assert (after.st_mode, after.st_gid) == (before.st_mode, before.st_gid)


async def test_it_ends_in_order_when_its_parent_is_gone(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", free_port(), "secret")
    service, log = server.service(), tmp_path / "postgres.log"
    await service.prepare()
    process = await spawn(service.command, log)
    try:
        await until_ready(service.name, process, service.ready, log)
        process.send_signal(service.command.orphan_signal)
        await asyncio.wait_for(process.wait(), 5)
    finally:
        kill(process)
    assert service.command.orphan_signal is signal.SIGINT
    assert process.returncode == 0
