"""Every server in a directory whose name a careless program would misread. The whole stack: tests/e2e/test_tollgate_up.py."""

import asyncio
from pathlib import Path

import aiohttp
import asyncpg
import pytest
import redis.asyncio

from local_stack import clickhouse_client
from local_stack.clickhouse import running_clickhouse
from local_stack.envoy import running_envoy
from local_stack.postgres import running_postgres
from local_stack.valkey import running_valkey

NAME = r"""with space, ü 日本, 'x' "q" #h ?a=b&c [*] \b $v %d {e}"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / NAME


async def ask(url: str, sql: str) -> bytes:
    """The client is a blocking one: it works in a thread of its own."""
    return await asyncio.to_thread(clickhouse_client.ask, url, sql, "TSV")


async def test_postgres(directory: Path) -> None:
    for _ in range(2):
        async with running_postgres(directory) as dsn:
            connection = await asyncpg.connect(dsn)
            assert await connection.fetchval("SHOW data_directory") == str(directory / "postgres" / "data")
            await connection.close()


async def test_valkey(directory: Path) -> None:
    async with running_valkey(directory) as url:
        client = redis.asyncio.Redis.from_url(url)
        assert (await client.config_get("dir"))["dir"] == str(directory)
        await client.aclose()


async def test_clickhouse(directory: Path) -> None:
    for count in range(2):
        async with running_clickhouse(directory) as url:
            await ask(url, "CREATE TABLE IF NOT EXISTS kept (n UInt8) ENGINE = MergeTree ORDER BY n")
            assert await ask(url, "SELECT count() FROM kept") == f"{count}\n".encode()
            await ask(url, "INSERT INTO kept VALUES (1)")
    assert (directory / "clickhouse" / "metadata").is_dir()
    assert [path.name for path in directory.parent.iterdir()] == [NAME]


async def test_envoy(directory: Path) -> None:
    async with (
        running_envoy(directory, {}) as admin_url,
        aiohttp.ClientSession() as session,
        session.get(f"{admin_url}/server_info") as answer,
    ):
        assert (await answer.json())["command_line_options"]["config_path"] == str(directory / "envoy.json")
