"""`tollgate books verify` on the whole stack: before the first request, after it, and when ClickHouse has lost it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import clickhouse_connect
import pytest
import pytest_asyncio

from tests.support.command_line import CommandLine
from tests.support.stack import Stack, running_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANSWERED_S = 10
"""A sink notices within 2 s."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fresh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack of its own, because what it keeps is spoilt."""
    async with running_stack(tmp_path_factory.mktemp("books") / "data") as running:
        yield running


async def verify(stack: Stack, directory: Path) -> tuple[int, str]:
    cli = CommandLine(directory, {"TOLLGATE_DATA_DIR": str(stack.data_dir)})
    async with asyncio.timeout(ANSWERED_S):
        outcome = await cli.run("books", "verify")
    assert outcome.err == ""
    return outcome.code, outcome.out


async def test_books_are_right_with_and_without_requests_and_a_row_that_clickhouse_lost_is_found(
    fresh: Stack, tmp_path: Path
) -> None:
    code, said = await verify(fresh, tmp_path)
    assert code == 0
    assert "right, and ClickHouse has the same" in said

    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{fresh.url}/v1/chat/completions", json=body, headers=fresh.headers) as answer,
    ):
        assert answer.status == 200
        request_id = answer.headers["x-request-id"]
    await fresh.clickhouse_row(request_id)
    code, said = await verify(fresh, tmp_path)
    assert code == 0
    assert "right, and ClickHouse has the same" in said

    def lose() -> None:
        with clickhouse_connect.get_client(dsn=fresh.endpoints["clickhouse_url"]) as client:
            client.command(
                "ALTER TABLE requests DELETE WHERE request_id = {id:String}",
                parameters={"id": request_id},
                settings={"mutations_sync": 1},
            )

    await asyncio.to_thread(lose)
    code, said = await verify(fresh, tmp_path)
    assert code == 1
    assert "WRONG: clickhouse_equals_postgres (1, one is " in said
