"""`python -m bench.analytics`: how fast the analytics answer, by how many requests there are in ClickHouse.

The whole stack runs, and questions go through its API. Requests are made up inside ClickHouse, evenly over the last 90 days: 200 organisations,
of which the first makes a fifth of all, 20 models, 5 providers, 1,000 keys. They are added up by the statements of the billing sink, day by day. Rows only grow: each size is
measured with what is there of the one before.
"""

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import aiohttp
import clickhouse_connect
from clickhouse_connect.driver.client import Client
from rich.console import Console
from rich.table import Table

from bench import figures
from billing_sink.postgres_exports import Position
from billing_sink.postgres_roll_ups import Stretch
from billing_sink.roll_ups import LISTED_MAX, ROLL_UPS, statement
from tests.support.stack import Stack, running_stack

DAYS: Final = 90
ORGS: Final = 200
ROWS_AT_ONCE: Final = 1_000_000
BUSY: Final = "org_bench_0"

_MADE_UP: Final = f"""
    INSERT INTO requests (request_id, started_at, recorded_at, outcome, usage_source, org_id, project_id, key_id, endpoint, model, provider, stream, status,
        error_code, attempts, duration_ms, first_byte_ms, bytes_received, bytes_sent, sse_events, input_tokens, output_tokens, cost_nano_usd, price_nano_usd,
        absorbed_nano_usd, mode, meters, cached, asked_model, upstream_model, client, tags, output_token_us, overhead_us)
    WITH cityHash64(number) AS h, toDateTime64({{begin:Int64}} + h % ({DAYS} * 86400), 3, 'UTC') AS began,
        if(h % 5 = 0, 0, intDiv(h, 7) % {ORGS}) AS org, 100 + intDiv(h, 11) % 2000 AS input, 10 + intDiv(h, 13) % 500 AS output,
        [200, 200, 200, 200, 200, 200, 200, 200, 429, 500][1 + intDiv(h, 17) % 10] AS answered, intDiv(h, 19) % 20 AS model_number
    SELECT toString(generateUUIDv4(number)), began, began, 'settled', 'provider', concat('org_bench_', toString(org)), concat('prj_', toString(org), '_', toString(h % 3)),
        concat('key_', toString(org), '_', toString(h % 5)), 'chat', concat('model-', toString(model_number)), concat('provider-', toString(model_number % 5)), h % 2 = 0,
        answered, if(answered = 429, 'rate_limit_exceeded', ''), 1, 200 + intDiv(h, 23) % 20000, 50 + intDiv(h, 29) % 1000, 1000, 2000, 20, input, output, input * 150 + output * 600,
        input * 165 + output * 660, 0, 'live', map('input', input, 'output', output), h % 50 = 0, concat('model-', toString(model_number)), concat('model-', toString(model_number)),
        ['OpenAI/Python', 'curl', 'OpenAI/JS', 'Anthropic/Python'][1 + h % 4], map('team', concat('team-', toString(h % 12))), intDiv(h, 31) % 40000, 300 + intDiv(h, 37) % 3000
    FROM numbers({{first:UInt64}}, {{rows:UInt64}})
    """  # noqa: S608 - numbers of ours

QUESTIONS: Final[Mapping[str, tuple[str, Mapping[str, str], int]]] = {
    "requests by hour, 1 day": ("timeseries", {"step": "hour"}, 1),
    "spend by day and model, 30 days": ("timeseries", {"step": "day", "by": "model"}, 30),
    "the same by Berlin's clock": ("timeseries", {"step": "day", "by": "model", "time_zone": "Europe/Berlin"}, 30),
    "breakdown by key, 90 days": ("breakdown", {"by": "key"}, DAYS),
    "top projects, 90 days": ("top", {"of": "project"}, DAYS),
    "latency by hour, 7 days": ("latency", {"step": "hour"}, 7),
    "latency by provider, 30 days": ("latency", {"by": "provider"}, 30),
    "errors by model, 7 days": ("errors", {"by": "model"}, 7),
    "spend by tag, 30 days": ("breakdown", {"by": "tag:team"}, 30),
}
"""What dashboards ask: of which view, how, and over how many days."""


def fill(client: Client, begin: datetime, *, first: int, rows: int) -> None:
    """So many more requests."""
    for at in range(first, first + rows, ROWS_AT_ONCE):
        parameters = {
            "begin": int(begin.timestamp()),
            "first": at,
            "rows": min(ROWS_AT_ONCE, first + rows - at),
        }
        client.command(_MADE_UP, parameters=parameters)


def add_up(client: Client, begin: datetime, *, version: int) -> float:
    """Add all of it up; how long that took, in seconds."""
    began = perf_counter()
    for day in range(DAYS):
        at = begin + timedelta(days=day)
        # More than a statement names, so that it reads the whole day of everybody.
        minutes = [at + timedelta(minutes=minute) for minute in range(24 * 60)]
        stretch = Stretch(minutes, [str(each) for each in range(LISTED_MAX + 1)], ROWS_AT_ONCE, Position(version, 0))
        for each in ROLL_UPS:
            client.command(statement(each, stretch), {"orgs": list(stretch.orgs)})
    return perf_counter() - began


async def ask(
    session: aiohttp.ClientSession, url: str, now: datetime, view: str, query: Mapping[str, str], days: int
) -> float:
    """How long an answer takes, in milliseconds."""
    times = {"since": (now - timedelta(days=days)).isoformat(), "until": now.isoformat()}
    began = perf_counter()
    async with session.get(f"{url}/{view}", params={**times, **query}) as answer:
        text = await answer.text()
        assert answer.ok, text
    return (perf_counter() - began) * 1000


async def measure(stack: Stack, now: datetime, rounds: int) -> Mapping[str, Mapping[str, Sequence[float]]]:
    """Each question of the busiest organisation and of everybody, in turns; milliseconds of every answer."""
    api = f"{stack.endpoints['control_plane_url']}/api/v1"
    asked = {f"/orgs/{BUSY}/analytics": "the busiest organisation", "/analytics": "everybody"}
    found: dict[str, dict[str, list[float]]] = {who: {name: [] for name in QUESTIONS} for who in asked.values()}
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {stack.endpoints['operator_token']}"}
    ) as session:
        for _ in range(rounds):
            for path, who in asked.items():
                for name, question in QUESTIONS.items():
                    found[who][name].append(await ask(session, api + path, now, *question))
    return found


async def run(arguments: argparse.Namespace, console: Console) -> Sequence[Mapping[str, Any]]:
    """Grow, and measure each size."""
    now = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begin = now - timedelta(days=DAYS)
    rows: list[Mapping[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as directory:
        async with running_stack(Path(directory) / "stack", TOLLGATE_CLICKHOUSE_MINUTES_DAYS=str(2 * DAYS)) as stack:
            async with stack.database() as connection:
                await connection.execute("INSERT INTO accounts.organizations (org_id, name) VALUES ($1, $1)", BUSY)
            client = clickhouse_connect.get_client(
                dsn=stack.endpoints["clickhouse_url"], autogenerate_session_id=False, send_receive_timeout=3600
            )
            there = 0
            for size in sorted(arguments.rows):
                began = perf_counter()
                await asyncio.to_thread(fill, client, begin, first=there, rows=size - there)
                filled_s = perf_counter() - began
                there = size
                added_s = await asyncio.to_thread(add_up, client, begin, version=size)
                console.print(f"{size:,} requests: made up in {filled_s:,.0f} s, added up in {added_s:,.0f} s")
                for who, questions in (await measure(stack, now, arguments.rounds)).items():
                    rows += [
                        {
                            "requests": size,
                            "of": who,
                            "question": name,
                            "p50_ms": round(statistics.median(times), 1),
                            "p95_ms": round(statistics.quantiles(times, n=20)[-1], 1),
                        }
                        for name, times in questions.items()
                    ]
    return rows


def main() -> None:
    """Show it as a table, and keep it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--keep", action="store_true", help="write docs/benchmarks/analytics.json")
    arguments = parser.parse_args()
    console = Console()
    rows = asyncio.run(run(arguments, console))
    table = Table("requests", "of", "question", "p50 ms", "p95 ms")
    for row in rows:
        table.add_row(f"{row['requests']:,}", row["of"], row["question"], str(row["p50_ms"]), str(row["p95_ms"]))
    console.print(table)
    if arguments.keep:
        figures.write("analytics", {"rows": rows})


if __name__ == "__main__":
    main()
