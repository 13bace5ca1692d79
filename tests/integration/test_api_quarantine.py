"""Decisions about quarantined requests through the API on a real Postgres: seen, decided once, audited."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postings import SpoolBatch
from billing_sink.spool import SpoolId
from tests.support.api import Api, Reply, running_api
from tests.support.ledger import ORG, hold, odd_line, open_org, open_slice, posting, read_books

DOLLAR = 1_000_000_000


@pytest.fixture
async def operator(pool: asyncpg.Pool, in_its_role: asyncpg.Pool) -> AsyncIterator[Api]:
    """With three lines in quarantine: of a hold of 4 dollars, of a share of one dollar, and a torn one."""
    await open_org(pool, balance=20 * DOLLAR)
    await hold(pool, "r1", 4 * DOLLAR)
    await open_slice(pool, "s1", 500_000)
    odd = (odd_line("r1"), odd_line("r2", slice_id="s1", share=DOLLAR), odd_line(None, is_read=False))
    await PostgresLedger(pool).post(SpoolBatch(SpoolId("spool"), 0, 100, (), odd))
    async with running_api(pool, in_its_role=in_its_role) as api:
        yield api.as_(await api.operator_token())


async def lines(operator: Api, query: str = "") -> dict[str | None, dict[str, Any]]:
    """By request."""
    return {each["request_id"]: each for each in (await operator.get(f"/billing/quarantine{query}"))["data"]}


async def decide(operator: Api, line: dict[str, Any], decision: str, **more: Any) -> Reply:
    body = {"decision": decision, "reason": "looked into", **more}
    return await operator.post(f"/billing/quarantine/{line['id']}/decision", body)


async def test_what_is_quarantined_is_listed_with_what_is_held_for_it(operator: Api) -> None:
    found = await lines(operator)
    assert {request_id: each["held"] for request_id, each in found.items()} == {
        "r1": "4.00",
        "r2": "1.00",
        None: "0.00",
    }
    assert [found["r2"][name] for name in ("org_id", "mode", "model", "decision")] == [ORG, "live", "m", None]
    whole = await operator.get(f"/billing/quarantine/{found['r1']['id']}")
    assert (whole["line"], whole["usage"]) == ("quarantined r1 None", ["{}"])
    first = await operator.get("/billing/quarantine?limit=2")
    rest = await operator.get(f"/billing/quarantine?limit=2&cursor={first['next_cursor']}")
    assert [each["request_id"] for each in first["data"] + rest["data"]] == [None, "r2", "r1"]
    assert rest["next_cursor"] is None


async def test_lines_are_found_by_their_reason_and_by_whether_they_are_decided(operator: Api) -> None:
    found = await lines(operator)
    await decide(operator, found["r1"], "release")
    assert set(await lines(operator, "?open=true")) == {"r2", None}
    assert set(await lines(operator, "?open=false")) == {"r1"}
    assert len(await lines(operator, "?reason=UnpricedError")) == 3
    assert await lines(operator, "?reason=torn") == {}


async def test_a_charge_is_made_once_and_the_same_decision_again_changes_nothing(operator: Api) -> None:
    line = (await lines(operator))["r1"]
    made = await decide(operator, line, "charge", amount="2.5")
    assert made.status == 200, made.text
    assert (made["held"], made["decision"]["charged"], made["decision"]["held"]) == ("0.00", "2.50", "4.00")
    assert (made["decision"]["amount"], made["decision"]["reason"]) == ("2.50", "looked into")
    books = await read_books(operator.pool)
    again = await decide(operator, line, "charge", amount="2.50")
    assert (again.status, again["decision"]) == (200, made["decision"])
    for other in ({"decision": "release"}, {"decision": "charge"}, {"decision": "charge", "amount": "2.51"}):
        assert (await decide(operator, line, **other)).status == 409
    assert await read_books(operator.pool) == books
    assert books.revenue == 2.5 * DOLLAR
    assert not any(check["wrong"] for check in (await operator.get("/billing/books"))["checks"])


async def test_a_charge_without_an_amount_is_what_was_held_and_one_of_too_much_is_capped(operator: Api) -> None:
    found = await lines(operator)
    assert (await decide(operator, found["r2"], "charge"))["decision"]["charged"] == "1.00"
    # 4 are held for it and 8 are free; 7 of the slice are for other requests.
    assert (await decide(operator, found["r1"], "charge", amount="1000"))["decision"]["charged"] == "12.00"
    books = await read_books(operator.pool)
    assert (books.balance, books.held, books.absorbed) == (7 * DOLLAR, 7 * DOLLAR, 0)


async def test_a_decision_is_audited_with_who_and_why(operator: Api) -> None:
    line = (await lines(operator))["r1"]
    await decide(operator, line, "release")
    [entry] = (await operator.get("/audit?limit=1"))["data"]
    assert (entry["action"], entry["target_id"], entry["org_id"]) == ("quarantine.decide", str(line["id"]), ORG)
    assert entry["before"]["held"] == "4.00"
    assert not {"line", "usage"} & entry["after"].keys()
    assert entry["after"]["decision"]["reason"] == "looked into"
    assert entry["after"]["decision"]["actor_id"] == entry["actor_id"]


async def test_a_rehearsal_decides_nothing(operator: Api) -> None:
    line = (await lines(operator))["r1"]
    body = {"decision": "charge", "reason": "to see"}
    made = await operator.post(f"/billing/quarantine/{line['id']}/decision?dry_run=true", body)
    assert (made.status, made["decision"]["charged"]) == (200, "4.00")
    assert (await lines(operator))["r1"]["decision"] is None
    assert (await read_books(operator.pool)).revenue == 0


async def test_what_cannot_be_charged_can_only_be_put_away(operator: Api) -> None:
    await PostgresLedger(operator.pool).post(SpoolBatch(SpoolId("spool"), 100, 200, (posting("r1", price=5),), ()))
    found = await lines(operator)
    for line in (found["r1"], found[None]):
        assert (await decide(operator, line, "charge", amount="1")).status == 409
        assert (await decide(operator, line, "release")).status == 200
    assert (await read_books(operator.pool)).revenue == 5


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"decision": "forgive", "reason": "x"}, ["/decision"]),
        ({"decision": "charge"}, ["/reason"]),
        ({"decision": "charge", "reason": "x", "amount": "0"}, ["/amount"]),
        ({"decision": "charge", "reason": "x", "amount": "-1"}, ["/amount"]),
        ({"decision": "charge", "reason": "x", "amount": 1.5}, ["/amount"]),
        ({"decision": "release", "reason": "x", "amount": "1"}, ["/amount"]),
        ({"decision": "release", "reason": 1, "amount": "1"}, ["/amount", "/reason"]),
    ],
)
async def test_a_decision_that_says_nothing_clear_is_refused(
    operator: Api, body: dict[str, Any], pointers: list[str]
) -> None:
    line = (await lines(operator))["r1"]
    refused = await operator.post(f"/billing/quarantine/{line['id']}/decision", body)
    assert (refused.status, refused.pointers) == (422, pointers)


@pytest.mark.parametrize("line", ["0", "x", "9" * 18, "9" * 40, "-1"])
async def test_a_line_that_is_not_there_is_not_found(operator: Api, line: str) -> None:
    assert (await operator.get(f"/billing/quarantine/{line}")).status == 404
    body = {"decision": "release", "reason": "x"}
    assert (await operator.post(f"/billing/quarantine/{line}/decision", body)).status == 404
