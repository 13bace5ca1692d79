"""The ClickHouse bridge, asked by the client library the services use."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from local_stack.clickhouse import ClickHouse, running_clickhouse
from local_stack.clickhouse_bridge import BODY_BYTES_MAX
from local_stack.ports import free_port
from local_stack.process import running
from local_stack.secret_files import write_private

ROWS = [
    [1, "it's a \\ and a \ttab", datetime(2025, 1, 15, 12, tzinfo=UTC), "gpt", None, ["a", "b'c"]],
    [2, "é", datetime(2025, 1, 15, 13, tzinfo=UTC), "claude", -7, []],
]
COLUMNS = ["id", "text", "at", "model", "delta", "tags"]


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    async with running_clickhouse(tmp_path) as url:
        yield url


async def ask(url: str, question: Callable[[Client], Any], **options: Any) -> Any:
    """The client is a blocking one: it works in a thread of its own."""

    def work() -> Any:
        client = clickhouse_connect.get_client(dsn=url, **options)
        try:
            return question(client)
        finally:
            client.close()

    return await asyncio.to_thread(work)


def server_in(directory: Path) -> ClickHouse:
    write_private(directory / "password", "secret")
    return ClickHouse(directory / "clickhouse", free_port(), directory / "password", "secret", environment={})


def create(client: Client) -> None:
    client.command("""
        CREATE TABLE events (id UInt64, text String, at DateTime('UTC'), model LowCardinality(String),
                             delta Nullable(Int64), tags Array(String))
        ENGINE = ReplacingMergeTree ORDER BY id""")


def fill(client: Client) -> None:
    create(client)
    client.insert("events", ROWS, column_names=COLUMNS)


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip", False])
async def test_rows_come_back_as_they_were_inserted(url: str, compression: str | bool) -> None:
    def insert_and_read(client: Client) -> list[list[Any]]:
        create(client)
        assert client.insert("events", ROWS, column_names=COLUMNS).written_rows == len(ROWS)
        return [list(row) for row in client.query("SELECT * FROM events ORDER BY id", tz_mode="aware").result_rows]

    assert await ask(url, insert_and_read, compress=compression) == ROWS


async def test_parameters_keep_every_character(url: str) -> None:
    def find(client: Client) -> list[Any]:
        fill(client)
        found = client.query(
            "SELECT id FROM events WHERE text = {text:String} AND tags = {tags:Array(String)}",
            parameters={"text": ROWS[0][1], "tags": ROWS[0][5]},
        )
        return list(found.result_rows)

    assert await ask(url, find) == [(1,)]


async def test_settings_hold_for_one_statement_only(url: str) -> None:
    def threads(client: Client) -> list[Any]:
        query = "SELECT getSetting('max_threads')"
        return [client.query(query, settings={"max_threads": 3}).first_item, client.query(query).first_item]

    with_setting, without = await ask(url, threads)
    assert list(with_setting.values()) == [3]
    assert list(without.values()) != [3]


async def test_the_database_of_the_url_exists(url: str) -> None:
    assert await ask(url, lambda client: client.command("SELECT currentDatabase()")) == "tollgate"


async def test_large_inserts_pass(url: str) -> None:
    def insert(client: Client) -> Any:
        client.command("CREATE TABLE numbers (n UInt64) ENGINE = MergeTree ORDER BY n")
        client.insert("numbers", [[n] for n in range(100_000)], column_names=["n"])
        return client.command("SELECT sum(n) FROM numbers")

    assert await ask(url, insert) == sum(range(100_000))


async def test_errors_carry_clickhouses_own_number(url: str) -> None:
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE") as refused:
        await ask(url, lambda client: client.query("SELECT * FROM missing"))
    assert refused.value.code == 60


async def test_an_insert_that_does_not_fit_is_refused_and_leaves_nothing(url: str) -> None:
    def insert(client: Client) -> Any:
        create(client)
        with pytest.raises(DatabaseError, match="CANNOT_PARSE"):
            client.raw_insert("events", column_names=["id"], insert_block="not a number\n", fmt="TSV")
        return client.command("SELECT count() FROM events")

    assert await ask(url, insert) == 0


async def test_a_wrong_password_is_refused(url: str) -> None:
    with pytest.raises(DatabaseError, match="AUTHENTICATION_FAILED"):
        await ask(url, lambda client: client.ping(), password="wrong")


async def test_ping_needs_no_password_and_get_changes_nothing(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url.rpartition('/')[0]}/ping") as answer:
            assert await answer.text() == "Ok.\n"
        async with session.get(
            url.rpartition("/")[0], params={"query": "CREATE TABLE t (a Int8) ENGINE = Memory"}
        ) as answer:
            assert answer.headers["X-ClickHouse-Exception-Code"] == "164"


@pytest.mark.parametrize("path", ["/", "/tollgate", "/tollgate/"])
async def test_a_body_is_sql_whatever_curl_says_it_is(url: str, path: str) -> None:
    await ask(url, fill)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(
            url.removesuffix("/tollgate") + path,
            params={"database": "tollgate"},
            data=b"SELECT count() FROM events WHERE model = 'gpt' AND id+0=1",
        ) as answer,
    ):
        assert await answer.text() == "1\n"


async def test_the_url_answers_a_query_that_is_appended_to_it(url: str) -> None:
    await ask(url, fill)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}?query=SELECT+currentDatabase(),count()+FROM+events") as answer,
    ):
        assert await answer.text() == "tollgate\t2\n"


async def test_a_multipart_form_carries_parameters(url: str) -> None:
    form = aiohttp.FormData({"query": "SELECT {n:UInt8} + 1", "param_n": "41"}, default_to_multipart=True)
    async with aiohttp.ClientSession() as session, session.post(url, data=form) as answer:
        assert await answer.text() == "42\n"


async def test_another_database_as_a_path_is_not_found(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{url}2", params={"query": "SELECT 1"}) as answer:
        assert answer.status == 404


async def test_a_body_past_the_limit_is_refused(url: str) -> None:
    body = io.BytesIO(b" " * (BODY_BYTES_MAX + 1))
    async with aiohttp.ClientSession() as session, session.post(url.rpartition("/")[0], data=body) as answer:
        assert answer.status == 413


async def test_statements_run_side_by_side(url: str) -> None:
    async with asyncio.timeout(10):
        await asyncio.gather(*(ask(url, lambda client: client.command("SELECT sleep(0.5)")) for _ in range(4)))


async def test_data_survives_a_kill(tmp_path: Path) -> None:
    server = server_in(tmp_path)
    service, log = server.service(), tmp_path / "clickhouse.log"
    async with running(service, log) as process:
        await ask(server.url, fill)
        process.kill()
        await process.wait()
    async with running(service, log):
        assert await ask(server.url, lambda client: client.command("SELECT count() FROM events")) == len(ROWS)


async def test_it_stops_when_asked_to(tmp_path: Path) -> None:
    server = server_in(tmp_path)
    async with running(server.service(), tmp_path / "clickhouse.log") as process:
        await ask(server.url, fill)
    assert process.returncode == 0
