"""The sink on a real Postgres: a line the ledger cannot take is set aside and stops no other."""

from pathlib import Path

import asyncpg
from prometheus_client import CollectorRegistry

from billing_sink.current_prices import CurrentPrices
from billing_sink.postgres_claim import SpoolClaim
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postgres_prices import PostgresPrices
from billing_sink.sink import Sink
from tests.support.ledger import open_org
from tests.support.logs import QUIET
from tests.support.spool_lines import GRANT, line, render

HUGE = 2**63 - 1


async def sell(pool: asyncpg.Pool, *, cost: int, price: int) -> None:
    """Have the model of the lines sold, at so much for a token of input; its output is free."""
    await pool.execute("INSERT INTO catalog.providers (name, kind, base_url) VALUES ('openai', 'openai', 'http://x')")
    await pool.execute("INSERT INTO catalog.models VALUES ('gpt-4o-mini', 'x', 1, 1)")
    await pool.execute("INSERT INTO catalog.deployments VALUES ('gpt-4o-mini', 'openai', 'x')")
    await pool.execute("INSERT INTO catalog.prices VALUES ('gpt-4o-mini', 'openai', 1, 'input', $1, $2)", cost, price)


def sink_of(spool: Path, claim: SpoolClaim, registry: CollectorRegistry) -> Sink:
    return Sink(
        spool,
        claim,
        PostgresLedger(claim),
        CurrentPrices(PostgresPrices(claim)),
        batch_lines=100,
        registry=registry,
        log=QUIET,
    )


async def test_a_line_the_ledger_refuses_is_quarantined_and_every_other_line_is_recorded(
    pool: asyncpg.Pool, claim: SpoolClaim, tmp_path: Path
) -> None:
    await sell(pool, cost=HUGE, price=HUGE)
    lines = [line(f"r{number}", grant=None, status=401, cluster=None, usage_first=None) for number in range(9)]
    # A charge that no BIGINT holds.
    unheld = {name: value for name, value in GRANT.items() if name != "hold_nano_usd"}
    lines[5] = line("r5", usage_first={"prompt_tokens": 10**9}, grant=unheld)
    spool = tmp_path / "access.jsonl"
    spool.write_bytes(b"".join(render(each) + b"\n" for each in lines))
    await sink_of(spool, claim, CollectorRegistry()).drain()
    recorded = {row["request_id"] for row in await pool.fetch("SELECT request_id FROM billing.requests")}
    assert recorded == {f"r{number}" for number in range(9)} - {"r5"}
    row = await pool.fetchrow("SELECT reason, line FROM billing.quarantine")
    assert row is not None
    assert row["reason"].startswith("the ledger refuses it")
    assert row["line"] == render(lines[5])
    assert await pool.fetchval("SELECT byte_offset FROM billing.spool_offsets") == spool.stat().st_size


async def test_what_requests_were_answered_with_and_what_they_cost_is_counted_as_they_are_recorded(
    pool: asyncpg.Pool, claim: SpoolClaim, tmp_path: Path
) -> None:
    await open_org(pool, balance=10**9, org_id="org_demo")
    mtok = 1_000_000
    await sell(pool, cost=2 * mtok, price=3 * mtok)
    used = {"usage_first": {"prompt_tokens": 10, "completion_tokens": 0}}
    refused = {"grant": None, "cluster": None, "usage_first": None}
    lines = [
        *(line("a", **used), line("b", **used), line("c", status=500, usage_first=None)),
        *(line("d", status=401, **refused), line("e", status=0, **refused)),
    ]
    spool = tmp_path / "access.jsonl"
    spool.write_bytes(b"".join(render(each) + b"\n" for each in lines))
    registry = CollectorRegistry()
    await sink_of(spool, claim, registry).drain()

    def counted(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"tollgate_billing_sink_{name}_total", labels)

    assert {answer: counted("answers", answer=answer) for answer in ("2xx", "3xx", "4xx", "5xx", "none")} == {
        "2xx": 2,
        "3xx": 0,
        "4xx": 1,
        "5xx": 1,
        "none": 1,
    }
    at = {"mode": "live", "provider": "openai"}
    assert (counted("cost_nano_usd", **at), counted("price_nano_usd", **at)) == (40, 60)
