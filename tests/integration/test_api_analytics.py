"""Analytics over a real ClickHouse: what is told equals the ledger, to everybody what is theirs."""

import csv
import io
import json
import random
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr

from billing_sink import clickhouse
from billing_sink.exporter import REQUESTS, Exporter
from billing_sink.postgres_exports import PostgresExports
from billing_sink.postgres_ledger import _row
from billing_sink.postgres_roll_ups import ROLL_UPS as CURSOR
from billing_sink.postgres_roll_ups import PostgresRollUps
from billing_sink.roll_ups import ROLL_UPS, Adding
from control_plane.api import analytics
from gateway_core.money import parse_usd
from local_stack.clickhouse import running_clickhouse
from local_stack.ports import free_port
from tests.support.api import Account, Api, running_api
from tests.support.ledger import posting

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 45
RANGE = {"since": "2026-03-01T00:00:00Z", "until": "2026-04-15T00:00:00Z"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecretStr]:
    async with running_clickhouse(tmp_path_factory.mktemp("clickhouse")) as url:
        yield SecretStr(url)


@pytest.fixture
async def api(pool: asyncpg.Pool, in_its_role: asyncpg.Pool, clickhouse_url: SecretStr) -> AsyncIterator[Api]:
    with clickhouse.connect(clickhouse_url) as client:
        clickhouse.migrate(client)
        for table in ("requests", *(each.table for each in ROLL_UPS)):
            client.command(f"TRUNCATE TABLE {table}")
    async with running_api(pool, in_its_role=in_its_role, clickhouse_url=clickhouse_url) as api:
        yield api


async def use(pool: asyncpg.Pool, request_id: str, **fields: object) -> None:
    row = {**_row(posting(request_id, price=0)), **fields}
    assert await pool.fetch("SELECT billing.settle($1::jsonb)", json.dumps([row])) == []


async def copy(pool: asyncpg.Pool, url: SecretStr) -> None:
    with clickhouse.connect(url) as client:
        exporter = Exporter(PostgresExports(pool), client, REQUESTS, batch_rows=1000)
        while await exporter.export_batch():
            pass
        adding = Adding(
            PostgresExports(pool), PostgresExports(pool, CURSOR), PostgresRollUps(pool), client, lambda: BEGIN
        )
        while await adding.add_up():
            pass


async def use_many(pool: asyncpg.Pool, *orgs: Account, number: int = 400) -> None:
    """Requests of everything that is told apart, over weeks in which clocks are changed."""
    dice = random.Random(7)
    for account in orgs:
        await pool.execute("SELECT billing.credit($1, 1000000, 'test')", account.org_id)
    rows = []
    for n in range(number):
        status = dice.choice((200, 200, 200, 429, 500, 0))
        rows.append(
            {
                **_row(posting(f"r{n}", price=dice.randrange(10_000))),
                "org_id": dice.choice(orgs).org_id,
                "project_id": dice.choice(("prj_a", "prj_b")),
                "key_id": dice.choice(("key_a", "key_b", "key_c")),
                "model": dice.choice(("gpt", "claude")),
                "provider": dice.choice(("openai", "anthropic")),
                "status": status,
                "error_code": "rate_limit_exceeded" if status == 429 else None,
                "cost_nano_usd": dice.randrange(5000),
                "cached": dice.random() < 0.1,
                "started_at": (BEGIN + timedelta(seconds=dice.randrange(DAYS * 86_400))).isoformat(),
                "duration_ms": dice.randrange(1, 4000),
                "meters": {"input": dice.randrange(100), "output": dice.randrange(100), "request": 1},
                "user_agent": dice.choice(("OpenAI/Python 2.1.0", "curl/8.5.0", None)),
                "tags": {"team": dice.choice(("search", "ads"))} if dice.random() < 0.7 else None,
            }
        )
    assert await pool.fetch("SELECT billing.settle($1::jsonb)", json.dumps(rows)) == []


async def ledger(pool: asyncpg.Pool, group: str, where: str = "true") -> dict[Any, tuple[int, int, int, int]]:
    rows = await pool.fetch(
        f"""
        SELECT {group} AS group, count(*) AS requests, sum(price_nano_usd - absorbed_nano_usd)::bigint AS paid,
            sum((meters ->> 'input')::bigint)::bigint AS input,
            count(*) FILTER (WHERE status >= 400 OR status = 0) AS errors
        FROM billing.requests r WHERE mode = 'live' AND {where} GROUP BY 1
        """
    )
    return {row["group"]: (row["requests"], row["paid"], row["input"], row["errors"]) for row in rows}


def told(row: Mapping[str, Any]) -> tuple[int, int, int, int]:
    return row["requests"], parse_usd(row["amount"]), row["meters"].get("input", 0), row["errors"]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
@pytest.mark.parametrize("step", ["hour", "day", "week", "month"])
async def test_what_steps_come_to_is_what_the_ledger_has(
    api: Api, clickhouse_url: SecretStr, step: str, zone: str
) -> None:
    owner, other = await api.sign_up("o@example.com"), await api.sign_up("p@example.com")
    await use_many(api.pool, owner, other)
    await copy(api.pool, clickhouse_url)
    query = {**RANGE, "step": step, "time_zone": zone}
    shown = await owner.api.get(f"{owner.org}/analytics/timeseries", params=query)
    assert shown.status == 200, shown.text
    found = {datetime.fromisoformat(row["starts_at"]).astimezone(UTC): told(row) for row in shown["data"]}
    since, until = shown["since"], shown["until"]
    expected = await ledger(
        api.pool,
        f"date_trunc('{step}', started_at, '{zone}')",
        f"org_id = '{owner.org_id}' AND started_at >= '{since}' AND started_at < '{until}'",
    )
    assert found == {begins.astimezone(UTC): sums for begins, sums in expected.items()}
    assert datetime.fromisoformat(since) <= BEGIN
    assert datetime.fromisoformat(shown["complete_until"]) >= datetime.fromisoformat(until)


@pytest.mark.parametrize(
    ("by", "group"),
    [
        ("model", "model"),
        ("project", "project_id"),
        ("status", "status::text"),
        ("cached", "cached::text"),
        ("tag:team", "coalesce(tags ->> 'team', '')"),
        (
            "client",
            "CASE WHEN user_agent LIKE 'curl%' THEN 'curl' WHEN user_agent IS NULL THEN '' ELSE 'OpenAI/Python' END",
        ),
    ],
)
async def test_a_breakdown_is_what_the_ledger_has(api: Api, clickhouse_url: SecretStr, by: str, group: str) -> None:
    owner, other = await api.sign_up("o@example.com"), await api.sign_up("p@example.com")
    await use_many(api.pool, owner, other)
    await copy(api.pool, clickhouse_url)
    operator = api.as_(await api.operator_token())
    for caller, path, where in (
        (owner.api, f"{owner.org}/analytics/breakdown", f"org_id = '{owner.org_id}'"),
        (operator, "/analytics/breakdown", "true"),
    ):
        shown = await caller.get(path, params={**RANGE, "by": by})
        assert shown.status == 200, shown.text
        assert {row["group"][by]: told(row) for row in shown["data"]} == await ledger(api.pool, group, where)
        amounts = [Decimal(row["amount"]) for row in shown["data"]]
        assert amounts == sorted(amounts, reverse=True)


async def test_filters_are_met_and_what_a_caller_writes_is_never_a_part_of_the_statement(
    api: Api, clickhouse_url: SecretStr
) -> None:
    owner = await api.sign_up("o@example.com")
    await use_many(api.pool, owner)
    await copy(api.pool, clickhouse_url)

    async def requests(**query: str) -> int:
        shown = await owner.api.get(f"{owner.org}/analytics/breakdown", params={**RANGE, **query})
        assert shown.status == 200, shown.text
        return sum(row["requests"] for row in shown["data"])

    mine = f"org_id = '{owner.org_id}'"
    count = f"SELECT count(*) FROM billing.requests WHERE {mine} AND "
    assert await requests(model="gpt", status="429") == await api.pool.fetchval(
        count + "model = 'gpt' AND status = 429"
    )
    assert await requests(tag="team=ads", cached="false") == await api.pool.fetchval(
        count + "tags ->> 'team' = 'ads' AND NOT cached"
    )
    assert await requests(model="' OR 1=1 --") == 0
    assert await requests(tag="team=' OR '' = '") == 0
    assert await requests(client="\\' OR 1=1 --") == 0
    for query in ({"by": "tag:x']"}, {"by": "price"}, {"by": "model,model"}, {"tag": "a'b=c"}, {"by": "org"}):
        refused = await owner.api.get(f"{owner.org}/analytics/breakdown", params={**RANGE, **query})
        assert (refused.status, refused["code"]) == (422, "invalid_fields"), refused.text


async def test_the_top_of_something_is_ordered_by_what_was_asked_for(api: Api, clickhouse_url: SecretStr) -> None:
    owner = await api.sign_up("o@example.com")
    await use_many(api.pool, owner)
    await copy(api.pool, clickhouse_url)
    everything = await ledger(api.pool, "key_id")
    for place, metric in ((0, "requests"), (1, "amount"), (3, "errors")):
        query = {**RANGE, "of": "key", "metric": metric, "limit": "2"}
        shown = await owner.api.get(f"{owner.org}/analytics/top", params=query)
        assert shown.status == 200, shown.text
        ranked = sorted((sums[place] for sums in everything.values()), reverse=True)
        assert [told(row)[place] for row in shown["data"]] == ranked[:2]
        assert all(told(row) == everything[row["group"]["key"]] for row in shown["data"])
    shown = await owner.api.get(f"{owner.org}/analytics/top", params={**RANGE, "of": "key", "metric": "tokens"})
    tokens = [row["tokens"] for row in shown["data"]]
    assert tokens == sorted(tokens, reverse=True)
    assert tokens == [sum(row["meters"][meter] for meter in ("input", "output")) for row in shown["data"]]


async def test_latency_is_told_within_a_percent_and_errors_by_how_they_ended(
    api: Api, clickhouse_url: SecretStr
) -> None:
    owner = await api.sign_up("o@example.com")
    viewer = await api.join(owner, "v@example.com", "viewer")
    for n, ms in enumerate(range(10, 1010, 10)):
        await use(
            *(api.pool, f"r{n}"),
            org_id=owner.org_id,
            duration_ms=ms,
            first_byte_ms=ms // 2,
            overhead_us=ms * 3,
            stream=True,
            meters={"output": 11},
            status=200 if n % 4 else 500,
            started_at="2026-03-01T10:00:00Z",
        )
    await copy(api.pool, clickhouse_url)
    shown = await viewer.api.get(f"{owner.org}/analytics/latency", params={**RANGE, "step": "day", "by": "model"})
    assert shown.status == 200, shown.text
    [row] = shown["data"]
    assert datetime.fromisoformat(row["starts_at"]) == BEGIN
    assert row["requests"] == 100
    assert row["duration_ms"] == pytest.approx({"p50": 500, "p90": 900, "p95": 950, "p99": 990}, rel=0.011)
    assert row["first_byte_ms"]["p50"] == pytest.approx(250, rel=0.011)
    assert row["overhead_us"]["p50"] == pytest.approx(1500, rel=0.011)
    assert row["output_token_us"]["p50"] == pytest.approx(25_000, rel=0.011)
    failed = await viewer.api.get(f"{owner.org}/analytics/errors", params=RANGE)
    assert (failed["requests"], [(row["status"], row["requests"]) for row in failed["data"]]) == (100, [(500, 25)])
    nothing = await viewer.api.get(f"{owner.org}/analytics/latency", params={**RANGE, "model": "none"})
    assert nothing["data"] == []


async def test_tables_have_the_same_numbers_for_spreadsheets_and_for_programs(
    api: Api, clickhouse_url: SecretStr
) -> None:
    owner = await api.sign_up("o@example.com")
    await use_many(api.pool, owner)
    await copy(api.pool, clickhouse_url)
    query = {**RANGE, "by": "model,tag:team", "step": "month"}
    shown = (await owner.api.get(f"{owner.org}/analytics/timeseries", params=query))["data"]
    table = await owner.api.get(f"{owner.org}/analytics/timeseries/csv", params=query)
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [(row["model"], row["tag:team"], int(row["requests"]), row["amount_usd"]) for row in rows] == [
        (row["group"]["model"], row["group"]["tag:team"], row["requests"], row["amount"]) for row in shown
    ]
    assert "cost_usd" not in rows[0]
    async with api.session.get(
        f"{api.url}/api/v1{owner.org}/analytics/timeseries/parquet",
        params=query,
        headers={"Authorization": f"Bearer {owner.api.token}"},
    ) as answer:
        content = await answer.read()
        assert answer.status == 200, content
        assert answer.content_type == "application/vnd.apache.parquet"
    with clickhouse.connect(clickhouse_url) as client:
        client.command("DROP TABLE IF EXISTS read_back")
        client.command(
            "CREATE TABLE read_back (`model` String, `tag:team` String, request_count UInt64, amount_usd Decimal(38, 9))"
            " ENGINE = Memory"
        )
        client.raw_insert("read_back", insert_block=content, fmt="Parquet")
        read = client.query("SELECT * FROM read_back").result_rows
    assert sorted(map(tuple, read)) == sorted(
        (row["group"]["model"], row["group"]["tag:team"], row["requests"], Decimal(row["amount"])) for row in shown
    )


@pytest.mark.parametrize("file", ["csv", "parquet"])
async def test_a_file_has_all_rows_or_there_is_none(
    api: Api, clickhouse_url: SecretStr, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    owner = await api.sign_up("o@example.com")
    await use_many(api.pool, owner)
    await copy(api.pool, clickhouse_url)
    query = {**RANGE, "by": "model", "step": "day"}
    rows = len((await owner.api.get(f"{owner.org}/analytics/timeseries", params=query))["data"])
    assert rows > 1
    monkeypatch.setattr(analytics, "EXPORTED_ROWS_MAX", rows - 1)
    refused = await owner.api.get(f"{owner.org}/analytics/timeseries/{file}", params=query)
    assert refused.status == 422
    assert f"more than {rows - 1} rows" in refused.text


async def test_members_see_their_own_and_no_cost_of_ours_and_operators_everything(
    api: Api, clickhouse_url: SecretStr
) -> None:
    owner, other = await api.sign_up("o@example.com"), await api.sign_up("p@example.com")
    await use_many(api.pool, owner, other)
    await copy(api.pool, clickhouse_url)
    operator = api.as_(await api.operator_token())
    kinds = {
        "timeseries": {},
        "timeseries/csv": {},
        "timeseries/parquet": {},
        "breakdown": {},
        "breakdown/csv": {},
        "breakdown/parquet": {},
        "top": {"of": "model"},
        "latency": {},
        "errors": {},
    }
    for kind, query in kinds.items():
        refused = await other.api.get(f"{owner.org}/analytics/{kind}", params={**RANGE, **query})
        assert refused.status == 404, kind
        refused = await owner.api.get(f"/analytics/{kind}", params={**RANGE, **query})
        assert refused.status == 403, kind
    mine = (await owner.api.get(f"{owner.org}/analytics/breakdown", params=RANGE))["data"]
    assert [row["cost"] for row in mine] == [None]
    query = {**RANGE, "by": "org"}
    shown = await operator.get("/analytics/breakdown", params=query)
    costs = await api.pool.fetch("SELECT org_id, sum(cost_nano_usd)::bigint AS cost FROM billing.requests GROUP BY 1")
    assert {row["group"]["org"]: parse_usd(row["cost"]) for row in shown["data"]} == {
        row["org_id"]: row["cost"] for row in costs
    }
    one = await operator.get("/analytics/breakdown", params={**query, "org": owner.org_id})
    assert [row["group"]["org"] for row in one["data"]] == [owner.org_id]
    assert "cost_usd" in (await operator.get("/analytics/breakdown/csv", params=RANGE)).text


async def test_what_is_not_counted_yet_is_said(api: Api, clickhouse_url: SecretStr) -> None:
    owner = await api.sign_up("o@example.com")
    await use(api.pool, "r1", org_id=owner.org_id, started_at="2026-03-01T10:00:00Z")
    recorded_at = await api.pool.fetchval("SELECT recorded_at FROM billing.requests")
    shown = await owner.api.get(f"{owner.org}/analytics/timeseries", params=RANGE)
    assert (shown["data"], datetime.fromisoformat(shown["complete_until"])) == ([], recorded_at)
    operator = api.as_(await api.operator_token())
    await copy(api.pool, clickhouse_url)
    assert (await operator.post("/analytics/rebuild")).status == 202
    await copy(api.pool, clickhouse_url)
    shown = await owner.api.get(f"{owner.org}/analytics/timeseries", params=RANGE)
    assert [row["requests"] for row in shown["data"]] == [1]
    assert datetime.fromisoformat(shown["complete_until"]) > recorded_at


async def test_without_clickhouse_everything_else_goes_on(pool: asyncpg.Pool) -> None:
    gone = SecretStr(f"http://nobody:x@127.0.0.1:{free_port()}/none")
    async with running_api(pool, clickhouse_url=gone) as api:
        owner = await api.sign_up("o@example.com")
        refused = await owner.api.get(f"{owner.org}/analytics/timeseries", params=RANGE)
        assert (refused.status, refused["code"]) == (503, "analytics_unavailable")
        assert "x@" not in refused.text
        assert (await owner.api.get(f"{owner.org}/usage", params=RANGE)).status == 200
    async with running_api(pool) as api:
        refused = await api.as_((await api.log_in("o@example.com"))["access_token"]).get(
            f"{owner.org}/analytics/timeseries", params=RANGE
        )
        assert (refused.status, refused["code"]) == (409, "conflict")
