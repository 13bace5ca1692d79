"""The sink on a real Postgres: a line the ledger cannot take is set aside and stops no other."""

from pathlib import Path

import asyncpg
from prometheus_client import CollectorRegistry

from billing_sink.current_prices import CurrentPrices
from billing_sink.postgres_claim import SpoolClaim
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postgres_prices import PostgresPrices
from billing_sink.sink import Sink
from tests.support.logs import QUIET
from tests.support.spool_lines import GRANT, line, render

HUGE = 2**63 - 1


async def test_a_line_the_ledger_refuses_is_quarantined_and_every_other_line_is_recorded(
    pool: asyncpg.Pool, claim: SpoolClaim, tmp_path: Path
) -> None:
    await pool.execute("INSERT INTO catalog.providers (name, kind, base_url) VALUES ('openai', 'openai', 'http://x')")
    await pool.execute("INSERT INTO catalog.models VALUES ('gpt-4o-mini', 'x', 1, 1)")
    await pool.execute("INSERT INTO catalog.deployments VALUES ('gpt-4o-mini', 'openai', 'x')")
    await pool.execute("INSERT INTO catalog.prices VALUES ('gpt-4o-mini', 'openai', 1, 'input', $1, $1)", HUGE)
    lines = [line(f"r{number}", grant=None, status=401, cluster=None, usage_first=None) for number in range(9)]
    # A charge that no BIGINT holds.
    unheld = {name: value for name, value in GRANT.items() if name != "hold_nano_usd"}
    lines[5] = line("r5", usage_first={"prompt_tokens": 10**9}, grant=unheld)
    spool = tmp_path / "access.jsonl"
    spool.write_bytes(b"".join(render(each) + b"\n" for each in lines))
    log = QUIET
    sink = Sink(
        spool,
        claim,
        PostgresLedger(claim),
        CurrentPrices(PostgresPrices(claim)),
        batch_lines=100,
        registry=CollectorRegistry(),
        log=log,
    )
    await sink.drain()
    recorded = {row["request_id"] for row in await pool.fetch("SELECT request_id FROM billing.requests")}
    assert recorded == {f"r{number}" for number in range(9)} - {"r5"}
    row = await pool.fetchrow("SELECT reason, line FROM billing.quarantine")
    assert row is not None
    assert row["reason"].startswith("the ledger refuses it")
    assert row["line"] == render(lines[5])
    assert await pool.fetchval("SELECT byte_offset FROM billing.spool_offsets") == spool.stat().st_size
