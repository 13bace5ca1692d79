"""What is told of single requests: to whom, and what was tried for them."""

import json
from collections.abc import Sequence
from dataclasses import replace

import asyncpg
import pytest

from billing_sink.postgres_ledger import PostgresLedger, _row
from billing_sink.postings import SpoolBatch, make_batch, parse_lines
from billing_sink.prices import PriceBook
from billing_sink.spool import RawBatch, RawLine, SpoolId
from gateway_core.ids import OrgId, PriceVersion
from tests.support.api import Account, Api
from tests.support.ledger import odd_line, posting
from tests.support.spool_lines import Json, failed_attempt, render


@pytest.fixture
async def operator(api: Api) -> Api:
    return api.as_(await api.operator_token())


async def use(pool: asyncpg.Pool, request_id: str, **fields: object) -> None:
    row = {**_row(posting(request_id, price=0)), "cost_nano_usd": 5_000, **fields}
    assert await pool.fetch("SELECT billing.settle($1::jsonb)", json.dumps([row])) == []


async def fail(pool: asyncpg.Pool, *lines: Json) -> Sequence[str]:
    """Attempts, as the sink records them; why it set any of them aside."""
    contents = [RawLine(number, render(line)) for number, line in enumerate(lines)]
    offset = await pool.fetchval("SELECT coalesce(max(byte_offset), 0) FROM billing.spool_offsets")
    parsed = parse_lines(RawBatch(offset, offset + 1, contents))
    batch = make_batch(SpoolId("attempts"), parsed, PriceBook.of(PriceVersion(0), ()))
    return [item.reason for item in (await PostgresLedger(pool).post(batch)).quarantined]


async def test_a_request_has_its_attempts_in_order_and_says_why_each_next_one_was_made(
    api: Api, owner: Account, operator: Api
) -> None:
    await use(
        api.pool,
        "r",
        org_id=owner.org_id,
        provider="good",
        upstream_model="m-good",
        attempts=4,
        started_at="2026-01-01T00:00:00+00:00",
        duration_ms=900,
        model="m",
        asked_model="alias",
    )
    at = "2026-01-01T00:00:00.{}Z"
    assert not await fail(
        api.pool,
        failed_attempt("r", start_time=at.format("400000"), duration_ms=100, status=429, cluster="provider/azure"),
        failed_attempt("r", start_time=at.format("100000"), duration_ms=200, status=0, response_flags="UT"),
        failed_attempt("r", start_time=at.format("050000"), duration_ms=1, status=0, response_flags="UF"),
    )
    shown = await operator.get("/requests/r")
    assert shown.status == 200, shown.text
    assert (shown["asked_model"], shown["model"], shown["provider"], shown["cost"]) == (
        "alias",
        "m",
        "good",
        "0.000005",
    )
    assert [
        (each["number"], each["provider"], each["upstream_model"], each["status"], each["duration_ms"], each["cost"])
        for each in shown["attempts"]
    ] == [
        (1, "openai", "gpt-4o-mini-2024", None, 1, "0.00"),
        # It had been sent, so nobody knows what the provider makes of it.
        (2, "openai", "gpt-4o-mini-2024", None, 200, None),
        (3, "azure", "mini", 429, 100, "0.00"),
        (4, "good", "m-good", 200, 400, "0.000005"),
    ]
    assert [each["tried_next_because"] for each in shown["attempts"]] == [
        "no connection to the provider",
        "no answer in the time for one attempt",
        "it answered 429: too many requests",
        None,
    ]
    assert shown["attempts"][0]["host"] == "127.0.0.1:59235"
    assert shown["attempts"][1]["flags"] == ["no answer in the time for one attempt"]


async def test_the_last_attempt_that_failed_too_is_not_told_twice(api: Api, owner: Account, operator: Api) -> None:
    await use(api.pool, "r", org_id=owner.org_id, attempts=1, status=429, outcome="released", cost_nano_usd=0)
    await fail(api.pool, failed_attempt("r", status=429))
    [attempt] = (await operator.get("/requests/r"))["attempts"]
    assert (attempt["status"], attempt["tried_next_because"], attempt["cost"]) == (429, None, "0.00")


async def test_members_see_their_own_requests_without_what_they_cost_us_and_nobody_elses(api: Api) -> None:
    mine, theirs = await api.sign_up("me@example.com"), await api.sign_up("them@example.com")
    viewer = await api.join(mine, "viewer@example.com", "viewer")
    await use(api.pool, "mine", org_id=mine.org_id, attempts=2)
    await use(api.pool, "nobodys", org_id=None, outcome="refused", status=401, cost_nano_usd=0)
    await fail(api.pool, failed_attempt("mine"))
    shown = await viewer.api.get("/requests/mine")
    assert shown.status == 200
    assert [each["cost"] for each in [shown.document, *shown["attempts"]]] == [None] * 3
    assert [each["host"] for each in shown["attempts"]] == [None] * 2
    for caller, request_id in ((theirs, "mine"), (mine, "nobodys"), (mine, "unknown")):
        reply = await caller.api.get(f"/requests/{request_id}")
        assert reply.status == 404
        assert reply["detail"] == "There is nothing here, or nothing that you may see."
    operator = api.as_(await api.operator_token())
    assert (await operator.get("/requests/nobodys"))["status"] == 401
    token = await mine.api.post(f"{mine.org}/tokens", {"name": "x", "scopes": ["keys:read"]})
    assert (await api.as_(token["token"]).get("/requests/mine")).status == 404


async def test_a_request_in_quarantine_has_no_price_and_no_cost_yet(api: Api, owner: Account, operator: Api) -> None:
    odd = odd_line("odd")
    assert odd.line is not None
    assert odd.line.grant is not None
    of_the_owner = replace(odd, line=replace(odd.line, grant=replace(odd.line.grant, org_id=OrgId(owner.org_id))))
    await PostgresLedger(api.pool).post(SpoolBatch(SpoolId("odd"), 0, 1, (), (of_the_owner,)))
    shown = await operator.get("/requests/odd")
    assert (shown.status, shown["outcome"], shown["price"], shown["cost"]) == (200, "quarantined", None, None)


async def test_requests_are_listed_the_latest_first_page_by_page_and_by_what_they_are(api: Api, owner: Account) -> None:
    other = await api.sign_up("them@example.com")
    for number in range(7):
        # Several begin in one millisecond.
        began = f"2026-01-01T00:00:00.00{number // 3}+00:00"
        status = 200 if number % 2 else 500
        await use(api.pool, f"r{number}", org_id=owner.org_id, started_at=began, status=status, model=f"m{number}")
    await use(api.pool, "theirs", org_id=other.org_id)
    path, cursor, found = f"{owner.org}/requests", None, []
    while True:
        page = await owner.api.get(path, params={"limit": "2"} | ({"cursor": cursor} if cursor else {}))
        found += [each["request_id"] for each in page["data"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert found == [f"r{number}" for number in reversed(range(7))]

    async def those(**by: str) -> list[str]:
        return [each["request_id"] for each in (await owner.api.get(path, params=by))["data"]]

    assert await those(status="500") == ["r6", "r4", "r2", "r0"]
    assert await those(model="m3") == ["r3"]
    assert await those(since="2026-01-01T00:00:00.002Z") == ["r6"]
    assert await those(until="2026-01-01T00:00:00.001Z") == ["r2", "r1", "r0"]
    assert await those(outcome="refused") == []
    assert len(await those(key_id="key_test")) == 7


async def test_an_attempt_is_recorded_once_and_another_one_of_its_moment_is_set_aside(api: Api) -> None:
    first, other = failed_attempt("r"), failed_attempt("r", status=503)
    assert not await fail(api.pool, first, first)
    assert not await fail(api.pool, first)
    assert await fail(api.pool, other) == ["conflict: this attempt is recorded with another input"]
    assert await api.pool.fetchval("SELECT count(*) FROM billing.attempts") == 1
    assert await api.pool.fetchval("SELECT request_id FROM billing.quarantine") is None
    with pytest.raises(asyncpg.RaiseError, match="append-only"):
        await api.pool.execute("UPDATE billing.attempts SET status = 200")
