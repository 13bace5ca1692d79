"""What batches do to the ledger: one hold for all lines, each line paid from its part of it once, and the rest goes back."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from billing_sink.batches.model import Batch, RememberedLine
from billing_sink.batches.outcomes import end_of
from billing_sink.batches.postgres_batches import NotHeldError, PostgresBatches
from billing_sink.kept import Kept
from gateway_core.api_keys import ApiKey
from gateway_core.budgets import Budgets, Exhausted
from gateway_core.endpoints import Endpoint
from gateway_core.ids import KeyId, OrgId, ProjectId, ProviderName, RequestId
from gateway_core.kept import KeptKind, KeptName, ObjectId
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd
from tests.support.ledger import FAR, ORG, Books, hold, odd_line, open_org, posting, read_books

KEY = ApiKey(KeyId("key_test"), OrgId(ORG), ProjectId("prj"), (), is_disabled=False, expires_at=None)
NOW = datetime(2026, 11, 1, tzinfo=UTC)
BATCH = Batch(
    ObjectId("batch_1"),
    Mode.LIVE,
    KEY.org_id,
    KEY.project_id,
    KEY.key_id,
    ProviderName("p"),
    Endpoint.CHAT,
    ObjectId("file-1"),
    {"a": "b"},
    NOW,
)


def lines(count: int, amount: int = 100) -> Sequence[RememberedLine]:
    return [
        RememberedLine(f"line {number}", RequestId(f"batch_1-{number}"), NanoUsd(amount), "{}")
        for number in range(1, count + 1)
    ]


async def begin(pool: asyncpg.Pool, count: int, *, balance: int = 1000, key: ApiKey = KEY) -> PostgresBatches:
    await open_org(pool, balance=balance)
    batches = PostgresBatches(pool)
    await batches.begin(BATCH, key, NanoUsd(100 * count), lines(count), expires_at=FAR)
    return batches


async def wrong(pool: asyncpg.Pool) -> list[str]:
    return [row["name"] for row in await pool.fetch("SELECT name FROM billing.check_books() WHERE wrong > 0")]


async def test_a_batch_is_held_for_as_a_whole_and_remembered_as_its_owners(pool: asyncpg.Pool) -> None:
    batches = await begin(pool, 3)
    assert await read_books(pool) == Books(1000, 300, 0, 0, -1000)
    assert await batches.find(KEY.org_id, Mode.LIVE, BATCH.batch_id) == BATCH
    assert await batches.find(OrgId("org_2"), Mode.LIVE, BATCH.batch_id) is None
    assert await batches.find(KEY.org_id, Mode.TEST, BATCH.batch_id) is None
    assert await batches.open() == [BATCH]
    assert await batches.count_open(KEY.org_id, Mode.LIVE) == 1
    kind = await pool.fetchval("SELECT kind FROM billing.kept_objects WHERE object_id = 'batch_1' AND org_id = $1", ORG)
    assert kind == KeptKind.BATCH
    assert await wrong(pool) == []


async def test_nothing_is_written_of_a_batch_that_is_not_covered(pool: asyncpg.Pool) -> None:
    with pytest.raises(NotHeldError) as refused:
        await begin(pool, 11)
    assert refused.value.budget is None
    assert await PostgresBatches(pool).open() == []
    assert await read_books(pool) == Books(1000, 0, 0, 0, -1000)


async def test_a_budget_counts_what_an_open_batch_holds(pool: asyncpg.Pool) -> None:
    limited = replace(KEY, budgets=Budgets("UTC", key_per_day_nano_usd=NanoUsd(500)))
    batches = await begin(pool, 3, key=limited)
    second = replace(BATCH, batch_id=ObjectId("batch_2"))
    with pytest.raises(NotHeldError) as refused:
        await batches.begin(second, limited, NanoUsd(300), (), expires_at=FAR)
    assert refused.value.budget is not None
    assert not isinstance(refused.value.budget, Exhausted)
    await batches.begin(second, limited, NanoUsd(200), (), expires_at=FAR)


async def test_lines_are_paid_from_the_batchs_hold_and_the_rest_goes_back_at_its_end(pool: asyncpg.Pool) -> None:
    batches = await begin(pool, 3)
    first, second, _ = lines(3)
    await batches.settle(BATCH, [first, second], [posting("batch_1-1", price=60), posting("batch_1-2", price=100)], ())
    assert await read_books(pool) == Books(840, 100, 160, 0, -1000)
    assert await wrong(pool) == []
    file = Kept(
        KeptName(KeptKind.FILE, ObjectId("file-out")),
        Mode.LIVE,
        KEY.org_id,
        KEY.project_id,
        KEY.key_id,
        BATCH.provider,
        NOW,
    )
    assert await batches.end(BATCH, end_of(BATCH), [file], NOW) == []
    assert await read_books(pool) == Books(840, 0, 160, 0, -1000)
    assert await batches.open() == []
    assert await batches.lines(BATCH.batch_id, ["line 1"]) == {}
    assert await pool.fetchval("SELECT org_id FROM billing.kept_objects WHERE object_id = 'file-out'") == ORG
    assert await wrong(pool) == []


async def test_whatever_is_said_again_changes_nothing(pool: asyncpg.Pool) -> None:
    batches = await begin(pool, 2)
    both, postings = lines(2), [posting("batch_1-1", price=60), posting("batch_1-2", price=10)]
    for _ in range(3):
        assert await batches.settle(BATCH, both, postings, ()) == []
    await batches.settle(BATCH, both[:1], postings[:1], ())
    for _ in range(2):
        await batches.end(BATCH, end_of(BATCH), (), NOW)
    await batches.settle(BATCH, both, postings, ())
    assert await read_books(pool) == Books(930, 0, 70, 0, -1000)
    assert await wrong(pool) == []


async def test_no_other_request_gets_what_a_batch_holds_while_its_lines_are_settled(pool: asyncpg.Pool) -> None:
    batches = await begin(pool, 2, balance=200)
    assert await hold(pool, "other", 1) is None
    await batches.settle(BATCH, lines(2)[:1], [posting("batch_1-1", price=100)], ())
    assert await hold(pool, "other", 1) is None
    await batches.settle(BATCH, lines(2)[1:], [posting("batch_1-2", price=100)], ())
    assert await read_books(pool) == Books(0, 0, 200, 0, -200)


async def test_a_line_that_nobody_can_price_keeps_its_part_until_a_person_decides(pool: asyncpg.Pool) -> None:
    batches = await begin(pool, 2)
    aside = await batches.settle(BATCH, lines(2), [posting("batch_1-1", price=60)], [odd_line("batch_1-2")])
    assert [item.request_id for item in aside] == ["batch_1-2"]
    await batches.end(BATCH, end_of(BATCH), (), NOW)
    assert await read_books(pool) == Books(940, 100, 60, 0, -1000)
    await pool.execute(
        """
        SELECT billing.decide_quarantine(quarantine_id, 'charge', NULL, 'looked into', 'user', 'usr') FROM billing.quarantine
        """
    )
    assert await read_books(pool) == Books(840, 0, 160, 0, -1000)
    assert await wrong(pool) == []


async def test_another_answer_to_a_line_that_is_posted_is_set_aside(pool: asyncpg.Pool) -> None:
    batches = await begin(pool, 1)
    await batches.settle(BATCH, lines(1), [posting("batch_1-1", price=60)], ())
    [conflict] = await batches.settle(BATCH, lines(1), [posting("batch_1-1", price=61)], ())
    assert conflict.reason.startswith("conflict")
    await batches.end(BATCH, end_of(BATCH), (), NOW)
    assert await read_books(pool) == Books(940, 0, 60, 0, -1000)


async def test_lines_of_a_batch_whose_hold_has_expired_pay_from_what_is_free(pool: asyncpg.Pool) -> None:
    batches = await begin(pool, 2)
    await pool.execute("SELECT billing.expire_holds($1, 10)", FAR + timedelta(days=1))
    assert await read_books(pool) == Books(1000, 0, 0, 0, -1000)
    await batches.settle(BATCH, lines(2), [posting("batch_1-1", price=60)], ())
    await batches.end(BATCH, end_of(BATCH), (), NOW)
    assert await read_books(pool) == Books(940, 0, 60, 0, -1000)
    assert await wrong(pool) == []


async def test_a_hold_is_not_divided_into_more_than_it_is(pool: asyncpg.Pool) -> None:
    batches = await begin(pool, 2)
    with pytest.raises(asyncpg.CheckViolationError):
        await batches.settle(BATCH, lines(3), (), ())
    assert await read_books(pool) == Books(1000, 200, 0, 0, -1000)


async def test_one_process_looks_after_all_batches_at_a_time(pool: asyncpg.Pool) -> None:
    batches = PostgresBatches(pool)
    async with batches.turn() as first, batches.turn() as second:
        assert (first, second) == (True, False)
    async with batches.turn() as third:
        assert third


async def test_a_list_has_an_organisations_own_the_newest_first(pool: asyncpg.Pool) -> None:
    batches = await begin(pool, 1)
    later = replace(BATCH, batch_id=ObjectId("batch_0"), created_at=NOW + timedelta(seconds=1))
    await batches.begin(later, KEY, NanoUsd(1), (), expires_at=FAR)
    found = await batches.list(KEY.org_id, Mode.LIVE, after=None, limit=10)
    assert [each.batch_id for each in found] == ["batch_0", "batch_1"]
    assert await batches.list(KEY.org_id, Mode.LIVE, after=later, limit=10) == [BATCH]
    assert await batches.list(OrgId("org_2"), Mode.LIVE, after=None, limit=10) == []
