"""Every query of every dashboard on a real ClickHouse with the real tables: it runs, whatever is chosen, and finds what is there."""

import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from clickhouse_connect.driver.client import Client
from pydantic import SecretStr

from billing_sink import clickhouse
from billing_sink.postgres_exports import Position
from billing_sink.postgres_roll_ups import Stretch
from billing_sink.roll_ups import ROLL_UPS, statement
from dashboards.queries import COST_USD, SPEND_USD, number, percentile
from gateway_core.clock import utc_now
from gateway_core.histograms import percentile_sql, percentiles
from local_stack.clickhouse import running_clickhouse
from tests.support.grafana import Shown, boards, expanded, targets

NOW = utc_now().replace(microsecond=0)
BEGIN = NOW - timedelta(hours=5)
"""When requests were that six hours show; others were in the six hours before."""
ORGS = ("org_a", "org_b")
GONE = "org_gone"

_MADE_UP = """
    INSERT INTO requests (request_id, started_at, recorded_at, outcome, usage_source, org_id, project_id, key_id, endpoint, model, provider, stream,
        status, error_code, attempts, duration_ms, first_byte_ms, cost_nano_usd, price_nano_usd, absorbed_nano_usd, mode, meters, cached, client, tags,
        output_token_us, overhead_us)
    WITH multiIf(number % 10 = 9, 'insufficient_quota', number % 10 = 6, 'provider_full', '') AS refusal, number % 2 = 0 AS is_stream,
        multiIf(number % 10 = 9, 402, number % 10 = 6, 503, number % 10 = 8, 500, number % 10 = 7, 0, 200) AS answered
    SELECT concat({prefix:String}, toString(number)), {begin:DateTime64(3, 'UTC')} + number * 60, {begin:DateTime64(3, 'UTC')} + number * 60,
        if(answered = 200, 'settled', 'released'), 'provider', {orgs:Array(String)}[1 + number % length({orgs:Array(String)})], 'prj', concat('key_', toString(number % 3)),
        if(number % 3 = 0, 'messages', 'chat'), concat('model-', toString(number % 2)), if(refusal = '', concat('provider-', toString(number % 3)), ''),
        is_stream, answered, refusal, if(refusal = '', 1 + number % 2, 0), 100 + number, if(answered = 200, 10 + number, NULL), 1000 + number, 2000 + number, number % 4,
        {mode:String}, map('input', 100, 'output', 20 + number), number % 20 = 0, 'curl', map('team', concat('t', toString(number % 2))),
        if(is_stream AND answered = 200, 5000 + number, NULL), 300 + number
    FROM numbers(300)
    """


def _make_up(client: Client, prefix: str, mode: str, begin: datetime, orgs: tuple[str, ...]) -> None:
    parameters = {"prefix": prefix, "mode": mode, "begin": begin, "orgs": list(orgs)}
    client.command(_MADE_UP, parameters=parameters)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with running_clickhouse(tmp_path_factory.mktemp("clickhouse")) as url:
        yield url


@pytest.fixture(scope="module")
def client(clickhouse_url: str) -> Iterator[Client]:
    """With requests of two organisations in both modes, of one that has left, and of one of the two before that, added up as the sink does it, and a row of all else."""
    with clickhouse.connect(SecretStr(clickhouse_url)) as connected:
        clickhouse.migrate(connected)
        before = BEGIN - timedelta(hours=6)
        _make_up(connected, "live-", "live", BEGIN, ORGS)
        _make_up(connected, "test-", "test", BEGIN, ORGS)
        _make_up(connected, "gone-", "live", before, (GONE, ORGS[0]))
        # Once more: it is to count once.
        _make_up(connected, "live-", "live", BEGIN, ORGS)
        connected.command(
            "INSERT INTO attempts (request_id, started_at, recorded_at, provider, upstream_model, status, response_flags, duration_ms, org_id)"
            " SELECT concat('live-', toString(number)), {begin:DateTime64(3, 'UTC')} + number * 60, now(), concat('provider-', toString(number % 2)), 'm',"
            " if(number % 3 = 0, 429, 503), '', 5, 'org_a' FROM numbers(300)",
            parameters={"begin": BEGIN},
        )
        connected.command(
            "INSERT INTO provider_health (seq, since, provider, condition, why, times) VALUES (1, {at:DateTime64(3, 'UTC')}, 'provider-0', 'down', 'no answer', 1)",
            parameters={"at": BEGIN},
        )
        connected.command(
            "INSERT INTO audit (seq, at, org_id, actor_kind, actor_id, action, target_id) VALUES (1, {at:DateTime64(3, 'UTC')}, 'org_a', 'user', 'usr', 'key.create', 'key_1')",
            parameters={"at": BEGIN},
        )
        minutes = {
            row[0].replace(tzinfo=UTC)
            for row in connected.query("SELECT DISTINCT toStartOfMinute(started_at) FROM requests").result_rows
        }
        stretch = Stretch(tuple(sorted(minutes)), (*ORGS, GONE), 1, Position(1, 1))
        for each in ROLL_UPS:
            connected.command(statement(each, stretch), {"orgs": list(stretch.orgs)})
        yield connected


def ask(client: Client, sql: str, shown: Shown) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in client.query(expanded(sql, shown)).result_rows]


SIX_HOURS = Shown(NOW - timedelta(hours=6), NOW)
SHOWN = {
    "three days": Shown(NOW - timedelta(days=3), NOW, 300),
    "a year": Shown(NOW - timedelta(days=365), NOW, 86_400),
    "six hours of long ago": Shown(NOW - timedelta(days=60), NOW - timedelta(days=60) + timedelta(hours=6)),
    "test": Shown(NOW - timedelta(hours=6), NOW, chosen={"mode": ["test"]}),
    "chosen": Shown(
        *(NOW - timedelta(hours=6), NOW),
        chosen={"mode": ["live"], "org": ["org_a", "org_b"], "model": ["model-0", "it's"], "provider": ["provider-0"]},
    ),
}


@pytest.mark.parametrize("board", boards())
@pytest.mark.parametrize("name", SHOWN)
def test_every_query_runs_whatever_is_chosen(client: Client, board: str, name: str) -> None:
    for target in targets(board):
        if target.sql is not None:
            ask(client, target.sql, SHOWN[name])


@pytest.mark.parametrize("board", boards())
def test_every_panel_shows_what_is_there(client: Client, board: str) -> None:
    for target in targets(board):
        if target.sql is None:
            continue
        found = ask(client, target.sql, SIX_HOURS)
        assert found, target
        values = found[0] if target.kind in {"stat", "variable"} else [value for row in found for value in row[1:]]
        assert any(value not in {None, "", 0} for value in values), (target, found[:3])


@pytest.mark.parametrize("name", ["three days", "a year"])
def test_money_is_the_same_by_the_hour_and_by_the_day(client: Client, name: str) -> None:
    [(cost, spend)] = client.query(
        "SELECT sum(cost_nano_usd) / 1e9, sum(price_nano_usd - absorbed_nano_usd) / 1e9 FROM requests FINAL WHERE mode = 'live'"
    ).result_rows
    for value, expected in ((COST_USD, cost), (SPEND_USD, spend)):
        assert ask(client, number(value).sql, SHOWN[name]) == [(expected,)]


def test_minutes_are_those_of_the_time_that_is_shown_and_of_what_is_chosen(client: Client) -> None:
    chosen = Shown(
        *(BEGIN + timedelta(hours=1), BEGIN + timedelta(hours=2)),
        chosen={"mode": ["live"], "org": ["org_a"], "model": [], "provider": ["provider-0", "provider-1"]},
    )
    [(expected,)] = client.query(
        "SELECT count() FROM requests FINAL WHERE mode = 'live' AND org_id = 'org_a' AND provider IN ('provider-0', 'provider-1')"
        " AND started_at BETWEEN toStartOfMinute({since:DateTime}) AND {until:DateTime} + INTERVAL 59 SECOND",
        parameters={"since": chosen.since, "until": chosen.until},
    ).result_rows
    assert 0 < expected < 60
    assert ask(client, number("sum(requests)").sql, chosen) == [(expected,)]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
def test_percentiles_are_those_of_the_api(client: Client, share: float) -> None:
    seeded = random.Random(7)
    for size in (0, 1, 2, 5, 40):
        counts = {seeded.randrange(700): seeded.randrange(1, 50) for _ in range(size)}
        parts = ", ".join(f"{bucket}, {count}" for bucket, count in sorted(counts.items()))
        literal = f"CAST(map({parts}), 'Map(UInt16, UInt64)')"
        [(found,)] = client.query(f"SELECT {percentile_sql(literal, share)}").result_rows
        expected = percentiles(counts, [share])
        assert found == (None if expected is None else pytest.approx(expected[0]))


def test_percentiles_of_a_time_are_within_a_hundredth(client: Client) -> None:
    [(found,)] = ask(client, number(percentile("duration_ms", 0.5)).sql, SIX_HOURS)
    [(exact,)] = client.query(
        "SELECT quantileExact(0.5)(duration_ms) FROM requests FINAL WHERE mode = 'live' AND started_at >= {begin:DateTime}",
        parameters={"begin": BEGIN},
    ).result_rows
    assert found == pytest.approx(exact, rel=0.02)
