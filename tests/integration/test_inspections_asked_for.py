"""Inspections of the books that somebody asks for, from the command line to a real ClickHouse."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from clickhouse_connect.driver.client import Client as ClickHouse
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from billing_sink import clickhouse
from billing_sink.exporter import REQUESTS, Exporter
from billing_sink.inspection import SAME, Inspection
from billing_sink.postgres_books import PostgresBooks
from billing_sink.postgres_exports import PostgresExports
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postings import SpoolBatch
from billing_sink.spool import SpoolId
from gateway_core.clock import utc_now
from local_stack.clickhouse import running_clickhouse
from tests.support.api import Api
from tests.support.command_line import CommandLine
from tests.support.ledger import open_org, posting
from tests.support.logs import QUIET
from tollgate import books_verification
from tollgate.client import Client, FixedToken
from tollgate.errors import NotComparedError, UnreachableError
from tollgate.sessions import Sessions

NOWHERE = SecretStr("http://127.0.0.1:9/default")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecretStr]:
    async with running_clickhouse(tmp_path_factory.mktemp("clickhouse")) as url:
        yield SecretStr(url)


@pytest.fixture
def copy(clickhouse_url: SecretStr) -> Iterator[ClickHouse]:
    with clickhouse.connect(clickhouse_url) as client:
        clickhouse.migrate(client)
        client.command("TRUNCATE TABLE requests")
        yield client


@dataclass(frozen=True)
class Desk:
    """An operator with a command line, books with a few requests, and who copies and inspects them."""

    operator: Api
    pool: asyncpg.Pool
    cli: CommandLine
    url: SecretStr
    exporter: Exporter

    async def post(self, spool: str, *request_ids: str) -> None:
        lines = tuple(posting(request_id, price=1) for request_id in request_ids)
        await PostgresLedger(self.pool).post(SpoolBatch(SpoolId(spool), 0, 100, lines, ()))

    def inspection(self, url: SecretStr | None = None) -> Inspection:
        """As one more sink has it."""
        return Inspection(
            PostgresBooks(self.pool),
            PostgresExports(self.pool),
            url or self.url,
            days=None,
            at_hour=3,
            now=utc_now,
            registry=CollectorRegistry(),
            log=QUIET,
        )

    @asynccontextmanager
    async def sink(self, url: SecretStr | None = None) -> AsyncIterator[None]:
        inspection = self.inspection(url)

        async def answer() -> None:
            while True:
                await inspection.answer()
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(answer())
            yield
            task.cancel()

    async def ask(self) -> int:
        asked = await self.operator.post("/billing/books/inspections")
        assert (asked.status, asked["state"]) == (202, "asked")
        return int(asked["id"])


@pytest.fixture
async def desk(api: Api, pool: asyncpg.Pool, copy: ClickHouse, clickhouse_url: SecretStr, tmp_path: Path) -> Desk:
    token = await api.operator_token()
    desk = Desk(
        api.as_(token),
        pool,
        CommandLine(tmp_path, {"TOLLGATE_SERVER": api.url, "TOLLGATE_TOKEN": token}),
        clickhouse_url,
        Exporter(PostgresExports(pool), copy, REQUESTS, batch_rows=100),
    )
    await open_org(pool, balance=1000)
    await desk.post("spool", "r1", "r2", "r3")
    return desk


async def test_who_verifies_gets_an_inspection_of_now_and_a_row_that_clickhouse_lost_is_found(
    desk: Desk, copy: ClickHouse
) -> None:
    await desk.exporter.export_batch()
    async with desk.sink():
        right = await desk.cli.run("books", "verify")
        assert (right.code, right.err) == (0, "")
        assert "right, and ClickHouse has the same" in right.out
        copy.command("ALTER TABLE requests DELETE WHERE request_id = 'r2'", settings={"mutations_sync": 1})
        wrong = await desk.cli.run("books", "verify")
    assert wrong.code == 1
    assert f"WRONG: {SAME} (1, one is 2026-01-01T00:00Z)" in wrong.out
    last = await desk.cli.run("books", "verify", "--last", "--json")
    assert (last.code, last.json["ok"]) == (1, False)


async def test_what_is_not_copied_yet_is_not_missing_but_what_is_copied_counts_at_once(
    desk: Desk, copy: ClickHouse
) -> None:
    await desk.exporter.export_batch()
    await desk.post("another", "r4")
    order = await desk.ask()
    assert await desk.inspection().answer()
    found = await desk.operator.get(f"/billing/books/inspections/{order}")
    assert (found["state"], found["failure"], found["inspection"]["ok"]) == ("done", None, True)
    await desk.exporter.export_batch()
    copy.command("ALTER TABLE requests DELETE WHERE request_id = 'r4'", settings={"mutations_sync": 1})
    order = await desk.ask()
    assert await desk.inspection().answer()
    found = await desk.operator.get(f"/billing/books/inspections/{order}")
    assert [check["name"] for check in found["inspection"]["checks"] if check["wrong"]] == [SAME]


async def test_one_sink_answers_each_order_and_several_orders_at_once(desk: Desk) -> None:
    orders = [await desk.ask() for _ in range(3)]
    answered = await asyncio.gather(*(desk.inspection().answer() for _ in range(3)))
    assert sorted(answered) == [False, False, True]
    found = [await desk.operator.get(f"/billing/books/inspections/{order}") for order in orders]
    assert {each["state"] for each in found} == {"done"}
    assert len({each["inspection"]["inspected_at"] for each in found}) == 1
    assert await desk.pool.fetchval("SELECT count(DISTINCT inspected_at) FROM billing.inspections") == 1


async def test_an_order_whose_sink_never_came_back_is_taken_on_again(desk: Desk) -> None:
    order = await desk.ask()
    books = PostgresBooks(desk.pool)
    assert await books.begin_asked() == [order]
    assert await books.begin_asked() == ()
    assert (await desk.operator.get(f"/billing/books/inspections/{order}"))["state"] == "begun"
    await desk.pool.execute("UPDATE billing.inspection_orders SET begun_at = now() - interval '31 minutes'")
    assert await books.begin_asked() == [order]


async def test_rows_are_copied_while_somebody_compares_without_anything_seeming_lost(desk: Desk) -> None:
    copying = True

    async def copy_all() -> None:
        for number in itertools.count():
            if not copying:
                return
            await desk.post(f"more {number}", *(f"m{number}-{each}" for each in range(5)))
            await desk.exporter.export_batch()

    task = asyncio.create_task(copy_all())
    for _ in range(10):
        await desk.ask()
        assert await desk.inspection().answer()
    copying = False
    await task
    assert await desk.pool.fetch("SELECT * FROM billing.inspections WHERE wrong > 0") == []


async def test_a_clickhouse_that_is_away_is_never_taken_for_right(desk: Desk) -> None:
    async with desk.sink(NOWHERE):
        outcome = await desk.cli.run("books", "verify")
    assert outcome.code == 2
    assert "cannot reach ClickHouse" in outcome.err
    assert outcome.out == ""
    assert await PostgresBooks(desk.pool).last_inspection() is None


@pytest.mark.parametrize(
    ("is_begun", "error", "message"),
    [
        (False, UnreachableError, "no billing sink has answered within 120 s"),
        (True, NotComparedError, "has begun to look, and is not done after 120 s"),
    ],
)
async def test_who_waits_for_an_answer_that_does_not_come_is_told_so(
    desk: Desk, tmp_path: Path, is_begun: bool, error: type[Exception], message: str
) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def begin() -> None:
        if is_begun and not begun.is_set():
            await PostgresBooks(desk.pool).begin_asked()
            begun.set()

    token = FixedToken(desk.operator.token or "", "the test's")
    client = Client(
        desk.operator.url,
        token,
        Sessions(tmp_path, utc_now),
        sleep=lambda _s: asyncio.run_coroutine_threadsafe(begin(), loop).result(),
    )
    seconds = itertools.count(0.0, 30.0)
    with pytest.raises(error, match=message):
        await asyncio.to_thread(
            books_verification.verify, client, last=False, as_json=False, monotonic=lambda: next(seconds)
        )


async def test_who_asked_is_in_the_audit_log_and_an_unknown_order_is_404(desk: Desk) -> None:
    order = await desk.ask()
    [entry] = (await desk.operator.get("/audit?limit=1"))["data"]
    assert (entry["action"], entry["target_id"]) == ("books.inspect", str(order))
    for name in (str(order + 1), "x"):
        assert (await desk.operator.get(f"/billing/books/inspections/{name}")).status == 404
