"""Reconciliation through the API on a real Postgres: compared with the ledger, kept for good, listed, told as metrics."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from billing_sink.drift import DriftMetrics
from billing_sink.postgres_books import PostgresBooks
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postings import SpoolBatch
from billing_sink.spool import SpoolId
from tests.support.api import Api, Reply, running_api
from tests.support.ledger import open_org, posting

DOLLAR = 1_000_000_000
FILE = "day,model,requests,input,cost_usd\n2026-01-01,m-2026-01-01,3,3,6.03\n"


@pytest.fixture
async def operator(pool: asyncpg.Pool, in_its_role: asyncpg.Pool) -> AsyncIterator[Api]:
    """With three requests of 2 dollars each on the first of January."""
    await open_org(pool, balance=20 * DOLLAR)
    finished = tuple(posting(f"r{number}", price=2 * DOLLAR) for number in range(3))
    await PostgresLedger(pool).post(SpoolBatch(SpoolId("spool"), 0, 100, finished, ()))
    await PostgresBooks(pool).add_up_for_providers()
    async with running_api(pool, in_its_role=in_its_role) as api:
        yield api.as_(await api.operator_token())


async def reconcile(operator: Api, content: str = FILE, **more: Any) -> Reply:
    return await operator.post("/billing/reconciliation", {"provider": "p", "content": content, **more})


async def test_a_file_is_compared_with_the_ledger_and_what_was_found_is_kept(operator: Api) -> None:
    made = await reconcile(operator)
    assert made.status == 201, made.text
    assert (made["format"], made["file_sha256"]) == ("plain", hashlib.sha256(FILE.encode()).hexdigest())
    assert (made["first_day"], made["last_day"], made["threshold_percent"]) == ("2026-01-01", "2026-01-01", "0.5")
    [comparison] = made["report"]["comparisons"]
    assert (comparison["their_names"], comparison["our_names"]) == (["m-2026-01-01"], ["m"])
    assert {line["measure"]: line["verdict"] for line in comparison["lines"]} == {
        "requests": "within",
        "input": "within",
        "cost_usd": "within",
    }
    cost = made["report"]["totals"][-1]
    assert [cost[name] for name in ("theirs", "ours", "difference", "percent")] == ["6.03", "6.00", "-0.03", "-0.4975"]
    assert (made["drift_percent"], made["beyond"]) == ("0.4975", 0)
    again = await operator.get(f"/billing/reconciliation/{made['id']}")
    assert again.document == made.document
    sheet = await operator.get(f"/billing/reconciliation/{made['id']}/csv")
    assert "2026-01-01T00:00:00+00:00,m,m-2026-01-01,m,cost_usd,6.03,6.00,-0.03,-0.4975,within,0,0,0,0" in sheet.text


async def test_each_run_is_listed_with_who_made_it_and_cannot_be_changed(operator: Api) -> None:
    first = await reconcile(operator)
    second = await reconcile(operator, threshold_percent="0.1")
    listed = await operator.get("/billing/reconciliation?provider=p&limit=1")
    assert [each["id"] for each in listed["data"]] == [second["id"]]
    assert (listed["data"][0]["beyond"], listed["data"][0]["actor_kind"]) == (1, "token")
    rest = await operator.get(f"/billing/reconciliation?provider=p&limit=1&cursor={listed['next_cursor']}")
    assert [each["id"] for each in rest["data"]] == [first["id"]]
    assert (await operator.get("/billing/reconciliation?provider=other"))["data"] == []
    for statement in ("UPDATE billing.reconciliations SET beyond = 0", "DELETE FROM billing.reconciliations"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await operator.pool.execute(statement)


async def test_the_newest_drift_of_each_provider_is_a_metric(operator: Api) -> None:
    await reconcile(operator, "day,model,requests\n2026-01-01,m,30\n")
    await reconcile(operator, "day,model,requests\n2026-01-01,m,4\n")
    registry = CollectorRegistry()
    DriftMetrics(registry).show(await PostgresBooks(operator.pool).drifts())
    for name, value in (("drift_ratio", 0.25), ("lines_beyond", 1.0)):
        assert registry.get_sample_value(f"tollgate_billing_sink_reconciliation_{name}", {"provider": "p"}) == value


async def test_a_dry_run_keeps_nothing(operator: Api) -> None:
    body = {"provider": "p", "content": FILE}
    assert (await operator.post("/billing/reconciliation?dry_run=true", body)).status == 201
    assert (await operator.get("/billing/reconciliation"))["data"] == []


@pytest.mark.parametrize(
    ("more", "pointer", "said"),
    [
        ({"provider": "nobody"}, "/provider", "no provider"),
        ({"content": "day,model,cost_eur\n2026-01-01,m,1\n"}, "/content", "known are"),
        ({"by": "hour"}, "/by", "days only"),
        ({"threshold_percent": "100.1"}, "/threshold_percent", "100 percent"),
        ({"threshold_percent": "1e3"}, "/threshold_percent", "match"),
        ({"content": "day,model,input\n2026-01-01,m,1\n2026-06-01,m,1\n"}, "/content", "92 days"),
        ({"content": "day,model,input\n9999-12-31,m,1\n"}, "/content", "92 days"),
        ({"format": "openai-usage"}, "/content", "needs the columns"),
        ({"file": {"format": "plain", "sha256": "x"}}, "/file/sha256", "match"),
    ],
)
async def test_what_cannot_be_compared_is_refused_with_the_field(
    operator: Api, more: dict[str, Any], pointer: str, said: str
) -> None:
    refused = await operator.post("/billing/reconciliation", {"provider": "p", "content": FILE, **more})
    assert refused.status == 422, refused.text
    [fault] = refused["errors"]
    assert fault["pointer"] == pointer
    assert said in fault["detail"]


async def test_a_provider_that_is_not_there_and_a_file_that_cannot_be_read_are_told_at_once(operator: Api) -> None:
    refused = await reconcile(operator, "no table", provider="nobody")
    assert (refused.status, refused.pointers) == (422, ["/content", "/provider"])
    refused = await reconcile(operator, provider="nobody", by="hour")
    assert (refused.status, refused.pointers) == (422, ["/by", "/provider"])
