"""`python -m bench.sink_lines`: how many lines of the spool a second one billing sink rates and posts, and what that costs.

The real process on a Postgres of its own. The spool is full before it starts, with a mix of models, dialects and outcomes, and
money is set aside for every admitted request; ClickHouse is not there, so nothing is exported meanwhile. Measured from the first
batch that is in the ledger to the last, so that starting up is not in it. Rounds alternate between the numbers of organisations
and between what pays.
"""

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.books import PaidBy, fill, finished, open_books, set_aside
from bench.processes import cpu_s
from billing_sink.postgres_books import PostgresBooks
from billing_sink.spool import spool_id
from gateway_core.contract import Peer
from gateway_core.spool_fields import SPOOL_FILE
from local_stack.ports import free_port
from local_stack.postgres import running_postgres
from tests.support.planes import Certificates
from tests.support.spool_lines import render

DEADLINE_S = 300.0
POLL_S = 0.01


@dataclass(frozen=True)
class Round:
    """One spool, read to its end."""

    lines_per_s: float
    sink_us: float
    postgres_us: float


async def read_spool(dsn: str, directory: Path, postgres_pid: int, lines: int) -> Round:
    """Start a sink on the spool in a directory and wait until it has read all of it."""
    spool = directory / SPOOL_FILE
    database = await asyncpg.connect(dsn)
    identity = spool_id(spool)
    environment = {
        **os.environ,
        "TOLLGATE_POSTGRES_DSN": dsn,
        "TOLLGATE_CLICKHOUSE_URL": f"http://nobody:x@127.0.0.1:{free_port()}/none",
        "TOLLGATE_SPOOL_DIR": str(directory),
        "TOLLGATE_BILLING_SINK_PORT": str(free_port()),
        "TOLLGATE_BILLING_SINK_METRICS_PORT": str(free_port()),
        **Certificates.issued(directory / "certificates").environment("BILLING_SINK", Peer.BILLING_SINK),
        "TOLLGATE_LOG_LEVEL": "ERROR",
    }
    log = (directory / "sink.log").open("wb")
    process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
        [sys.executable, "-m", "billing_sink"], env=environment, stdout=log, stderr=log
    )
    try:
        end, began_at, began = spool.stat().st_size, 0, 0.0
        sink_s = postgres_s = 0.0
        async with asyncio.timeout(DEADLINE_S):
            while True:
                offset = await database.fetchval(
                    "SELECT byte_offset FROM billing.spool_offsets WHERE spool_id = $1", identity
                )
                if offset and not began_at:
                    began_at, began = offset, perf_counter()
                    sink_s, postgres_s = cpu_s([process.pid]), cpu_s([postgres_pid])
                if offset == end:
                    break
                assert process.poll() is None, "the sink has ended"
                await asyncio.sleep(POLL_S)
        elapsed = perf_counter() - began
        measured = lines * (end - began_at) / end
        return Round(
            measured / elapsed,
            (cpu_s([process.pid]) - sink_s) / measured * 1e6,
            (cpu_s([postgres_pid]) - postgres_s) / measured * 1e6,
        )
    finally:
        process.terminate()
        process.wait()
        log.close()
        await database.close()


async def measure(
    dsn: str, spool: Path, postgres_pid: int, *, orgs: int, paid_by: PaidBy, lines: int, seed: int
) -> Round:
    """One round: a new spool, what pays for it, and a sink that reads it."""
    rng = random.Random(seed)  # noqa: S311 - repeatable
    database = await asyncpg.connect(dsn)
    version = await database.fetchval("SELECT max(revision) FROM catalog.revisions")
    written = [
        finished(str(UUID(int=rng.getrandbits(128), version=4)), rng, orgs=orgs, price_version=version)
        for _ in range(lines)
    ]
    await set_aside(database, written, paid_by, seed=seed)
    await database.close()
    spool.mkdir()  # noqa: ASYNC240 - nothing else runs in this process
    (spool / SPOOL_FILE).write_bytes(b"".join(render(each) + b"\n" for each in written))
    return await read_spool(dsn, spool, postgres_pid, lines)


async def filled(server_dsn: str, *, orgs: int, ledger_rows: int, console: Console) -> str:
    """The DSN of a database of its own for so many organisations, and with so many requests in its ledger.

    What the sink does by the minute is done for them, so that none of it is measured as if it were posting.
    """
    name = f"bench_{orgs}"
    server = await asyncpg.connect(server_dsn)
    await server.execute(f"CREATE DATABASE {name}")
    await server.close()
    dsn = urlsplit(server_dsn)._replace(path=f"/{name}").geturl()
    database = await asyncpg.connect(dsn)
    await open_books(database, orgs=orgs)
    began = perf_counter()
    await fill(database, rows=ledger_rows)
    console.print(f"{orgs:,} organisations: {ledger_rows:,} requests in {perf_counter() - began:,.0f} s")
    await database.close()
    async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool:
        books = PostgresBooks(pool)
        for what, work in (
            ("sealed", books.seal()),
            ("added up for their providers", books.add_up_for_providers()),
        ):
            began = perf_counter()
            await work
            console.print(f"  {what} in {perf_counter() - began:,.1f} s")
        began = perf_counter()
        assert not [check for check in await books.check() if check.wrong]
        console.print(f"  looked through, seals and all, in {perf_counter() - began:,.1f} s")
    return dsn


async def run(orgs: Sequence[int], ledger_rows: int, lines: int, rounds: int) -> None:
    """Fill the books, measure, print."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        directory = Path(name)
        async with running_postgres(directory / "postgres") as dsn:
            pid = int((directory / "postgres" / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
            dsns = {count: await filled(dsn, orgs=count, ledger_rows=ledger_rows, console=console) for count in orgs}
            found: dict[tuple[int, PaidBy], list[Round]] = {
                (count, paid_by): [] for count in orgs for paid_by in PaidBy
            }
            turns = [each for _ in range(rounds) for each in found]
            for seed, (count, paid_by) in enumerate(track(turns, "Rounds", console=console)):
                spool = directory / f"spool-{seed}"
                found[count, paid_by].append(
                    await measure(dsns[count], spool, pid, orgs=count, paid_by=paid_by, lines=lines, seed=seed)
                )
    table = Table(
        title=f"A ledger of {ledger_rows:,} requests, load average {os.getloadavg()[0]:.1f}", title_justify="left"
    )
    for column in ("organisations", "paid by", "lines/s", "sink CPU µs/line", "Postgres CPU µs/line"):
        table.add_column(column, justify="right")
    for (count, paid_by), results in found.items():
        table.add_row(
            f"{count:,}",
            paid_by,
            *(
                f"{statistics.median(values):,.0f}"
                for values in (
                    [each.lines_per_s for each in results],
                    [each.sink_us for each in results],
                    [each.postgres_us for each in results],
                )
            ),
        )
    console.print(table)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.sink_lines", description=__doc__)
    parser.add_argument("--orgs", type=int, nargs="+", default=[10, 10_000], help="default: 10 10000")
    parser.add_argument(
        "--ledger-rows", type=int, default=1_000_000, help="requests that are there before; default: 1000000"
    )
    parser.add_argument("--lines", type=int, default=40_000, help="per round; default: 40000")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    given = parser.parse_args()
    asyncio.run(run(given.orgs, given.ledger_rows, given.lines, given.rounds))


if __name__ == "__main__":
    main()
