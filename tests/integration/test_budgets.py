"""Budgets in the ledger on a real Postgres: what counts, until when, and that nobody gets more than there is left."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import available_timezones

import asyncpg
import pytest

from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postings import SpoolBatch
from billing_sink.rating import Outcome
from billing_sink.spool import SpoolId
from control_plane.statements import calendar
from gateway_core.migrate import migrate, read_functions, read_migrations
from gateway_core.mode import Mode
from tests.support.databases import MIGRATIONS, fresh_database
from tests.support.ledger import (
    FAR,
    ORG,
    Answer,
    Limits,
    decide,
    hold,
    hold_within,
    odd_line,
    open_org,
    open_slice,
    posting,
    settle_at,
)

NOON = datetime(2026, 5, 15, 12, tzinfo=UTC)
TOMORROW = datetime(2026, 5, 16, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
DAILY = Limits(key_per_day=1000, project_per_day=1000)


@pytest.fixture
async def rich(pool: asyncpg.Pool) -> asyncpg.Pool:
    """An organisation whose money is not what ends first; the books are right at the end."""
    await open_org(pool, balance=10**9)
    return pool


async def books_are_right(pool: asyncpg.Pool) -> bool:
    return not await pool.fetch("SELECT name FROM billing.check_books() WHERE wrong > 0")


@pytest.mark.parametrize("limits", [Limits(key_per_day=4000), Limits(project_per_month=4000)])
async def test_a_thousand_requests_at_once_on_a_budget_for_forty_admit_exactly_forty(
    rich: asyncpg.Pool, limits: Limits
) -> None:
    keys = ["key_test"] if limits.key_per_day else ["key_test", "key_other", "key_third"]
    answers = await asyncio.gather(
        *(hold_within(rich, f"r{n}", 100, limits, key_id=keys[n % len(keys)]) for n in range(1000))
    )
    assert sum(answer.held is not None for answer in answers) == 40
    assert await rich.fetchval("SELECT sum(held_nano_usd) FROM billing.accounts") == 4000


async def test_what_is_left_of_a_budget_is_shared_out_to_the_last_of_it(rich: asyncpg.Pool) -> None:
    limits = Limits(key_per_day=4050)
    answers = await asyncio.gather(*(hold_within(rich, f"r{n}", 100, limits, least=50) for n in range(200)))
    assert sorted(answer.held for answer in answers if answer.held is not None) == [50] + [100] * 40


@pytest.mark.parametrize(
    ("limits", "budget", "renews_at"),
    [
        (Limits(key_per_day=250), "key_per_day", TOMORROW),
        (Limits(key_per_month=250), "key_per_month", JUNE),
        (Limits(project_per_day=250), "project_per_day", TOMORROW),
        (Limits(project_per_month=250), "project_per_month", JUNE),
        (Limits("UTC", 250, 1000, 1000, 1000), "key_per_day", TOMORROW),
        # When the day renews, the month is still in the way.
        (Limits(key_per_day=200, project_per_month=250), "project_per_month", JUNE),
    ],
)
async def test_a_hold_is_what_is_left_and_then_the_budget_that_is_in_the_way_is_named(
    rich: asyncpg.Pool, limits: Limits, budget: str, renews_at: datetime
) -> None:
    assert await hold_within(rich, "r1", 100, limits, now=NOON) == Answer(100)
    left = min(each for each in (*limits_of(limits),)) - 100
    assert await hold_within(rich, "r2", 500, limits, now=NOON, least=left) == Answer(left)
    # Nothing is spent, so it need not renew.
    assert await hold_within(rich, "r3", 60, limits, now=NOON, least=51) == Answer(None, budget)
    await settle_at(rich, NOON, posting("r1", price=100), posting("r2", price=left))
    assert await hold_within(rich, "r4", 60, limits, now=NOON, least=51) == Answer(None, budget, renews_at)
    assert await rich.fetchval("SELECT count(*) FROM billing.holds") == 2


async def test_of_a_budget_that_is_spent_and_one_that_is_only_held_the_spent_one_is_in_the_way(
    rich: asyncpg.Pool,
) -> None:
    limits = Limits(key_per_day=100, project_per_month=150)
    await settle_at(rich, NOON, posting("r1", price=80))
    assert await hold_within(rich, "r2", 60, limits, now=NOON, key_id="key_other") == Answer(60)
    assert await hold_within(rich, "r3", 30, limits, now=NOON) == Answer(None, "key_per_day", TOMORROW)
    # What is left of the key's own budget is enough for this one, and what is spent of the project's.
    assert await hold_within(rich, "r4", 20, limits, now=NOON) == Answer(None, "project_per_month")
    assert await hold_within(rich, "r5", 71, limits, now=NOON, key_id="key_other") == Answer(
        None, "project_per_month", JUNE
    )


async def test_a_budget_below_what_a_request_needs_at_the_least_is_no_matter_of_what_is_held(
    rich: asyncpg.Pool,
) -> None:
    limits = Limits(key_per_day=50)
    assert await hold_within(rich, "r1", 50, limits, now=NOON) == Answer(50)
    assert await hold_within(rich, "r2", 51, limits, now=NOON) == Answer(None, "key_per_day", TOMORROW)
    assert await hold_within(rich, "r2", 50, limits, now=NOON) == Answer(None, "key_per_day")


def limits_of(limits: Limits) -> list[int]:
    named = (limits.key_per_day, limits.key_per_month, limits.project_per_day, limits.project_per_month)
    return [each for each in named if each is not None]


async def test_a_balance_that_ends_before_the_budget_is_no_matter_of_the_budget(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=300)
    limits = Limits(key_per_day=1000)
    assert await hold_within(pool, "r1", 200, limits) == Answer(200)
    assert await hold_within(pool, "r2", 200, limits, least=50) == Answer(100)
    assert await hold_within(pool, "r3", 200, limits, least=50) == Answer(None)


async def test_a_request_asked_about_again_is_answered_by_its_hold_though_that_was_the_last_of_the_budget(
    rich: asyncpg.Pool,
) -> None:
    limits = Limits(key_per_day=400)
    asked = [hold_within(rich, "r1", 400, limits) for _ in range(20)]
    assert set(await asyncio.gather(*asked)) == {Answer(400)}
    assert (await hold_within(rich, "r2", 1, limits)).budget == "key_per_day"
    with pytest.raises(asyncpg.UniqueViolationError, match="r1 has another hold"):
        await hold_within(rich, "r1", 401, limits)


async def test_what_costs_nothing_fits_into_every_budget(rich: asyncpg.Pool) -> None:
    limits = Limits(key_per_day=100)
    assert (await hold_within(rich, "r1", 100, limits)).held == 100
    for limit in (100, 50, 0):
        assert await hold_within(rich, f"free{limit}", 0, replace(limits, key_per_day=limit)) == Answer(0)


async def test_what_a_request_did_not_need_is_left_again_and_what_it_was_charged_is_not(rich: asyncpg.Pool) -> None:
    limits = Limits(key_per_day=100, project_per_month=100)
    assert (await hold_within(rich, "r1", 100, limits, now=NOON)).held == 100
    await settle_at(rich, NOON, posting("r1", price=30))
    assert (await hold_within(rich, "r2", 100, limits, now=NOON, least=1)).held == 70
    await settle_at(rich, NOON, posting("r2", price=0, outcome=Outcome.RELEASED))
    assert (await hold_within(rich, "r3", 100, limits, now=NOON, least=1)).held == 70
    assert await books_are_right(rich)


async def test_a_key_does_not_spend_another_ones_budget_but_both_spend_their_projects(rich: asyncpg.Pool) -> None:
    limits = Limits(key_per_day=100, project_per_day=150)
    await settle_at(rich, NOON, posting("r1", price=80))
    assert (await hold_within(rich, "r2", 100, limits, now=NOON, least=1, key_id="key_other")).held == 70
    refused = await hold_within(rich, "r3", 100, limits, now=NOON, least=1)
    assert refused == Answer(None, "project_per_day")


async def test_play_money_is_spent_from_the_same_limit_of_its_own(rich: asyncpg.Pool) -> None:
    limits = Limits(project_per_day=100)
    assert (await hold_within(rich, "r1", 100, limits, now=NOON, mode=Mode.TEST)).held == 100
    assert (await hold_within(rich, "r2", 100, limits, now=NOON)).held == 100
    await settle_at(rich, NOON, posting("r1", price=90, mode=Mode.TEST), posting("r2", price=60))
    assert (await hold_within(rich, "r3", 100, limits, now=NOON, least=1, mode=Mode.TEST)).held == 10
    assert (await hold_within(rich, "r4", 100, limits, now=NOON, least=1)).held == 40
    assert await books_are_right(rich)


async def left(pool: asyncpg.Pool, limits: Limits, *, now: datetime = NOON) -> int | None:
    """What a request could hold now."""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        answer = await hold_within(connection, "asking for what is left", 10**6, limits, now=now, least=0)
        await transaction.rollback()
    return answer.held


async def test_everything_that_changes_what_requests_were_charged_counts(rich: asyncpg.Pool) -> None:
    # Beyond its hold: more than the budget allowed for it.
    await hold_within(rich, "beyond", 10, DAILY, now=NOON)
    await settle_at(rich, NOON, posting("beyond", price=50))
    assert await left(rich, DAILY) == 950
    # Late: the hold has gone back already, and is left again until the line comes.
    await hold_within(rich, "late", 100, DAILY, now=NOON, expires_at=NOON)
    assert await left(rich, DAILY) == 850
    await rich.execute("SELECT billing.expire_holds($1, 10)", NOON)
    assert await left(rich, DAILY) == 950
    await settle_at(rich, NOON, posting("late", price=70))
    assert await left(rich, DAILY) == 880
    # Estimated, and paid from a slice.
    await settle_at(rich, NOON, posting("guess", price=20, outcome=Outcome.ESTIMATED))
    await open_slice(rich, "s1", 20_000)
    await settle_at(rich, NOON, posting("share", price=10, slice_id="s1", share=30))
    assert await left(rich, DAILY) == 850
    # Read twice.
    await settle_at(rich, NOON, posting("late", price=70))
    assert await left(rich, DAILY) == 850
    assert await books_are_right(rich)


@pytest.mark.parametrize("is_read", [True, False])
async def test_a_quarantined_request_is_held_for_and_then_spent_in_the_day_it_is_charged(
    rich: asyncpg.Pool, is_read: bool
) -> None:
    await hold_within(rich, "odd", 100, DAILY, now=NOON)
    await PostgresLedger(rich).post(SpoolBatch(SpoolId("spool"), 0, 10, (), (odd_line("odd", is_read=is_read),)))
    assert await left(rich, DAILY, now=TOMORROW) == 900
    assert await decide(rich, "odd", "charge", 60, now=TOMORROW)
    assert await left(rich, DAILY, now=TOMORROW) == 940
    assert await left(rich, DAILY, now=TOMORROW + timedelta(days=1)) == 1000
    assert await books_are_right(rich)


async def test_what_the_platform_absorbs_is_not_spent(pool: asyncpg.Pool) -> None:
    await open_org(pool, balance=100)
    await settle_at(pool, NOON, posting("r1", price=130))
    await pool.execute("SELECT billing.credit($1, 1000, 'more')", ORG)
    assert await left(pool, DAILY) == 900
    assert await books_are_right(pool)


async def test_a_hold_from_before_midnight_counts_after_it_too_and_what_it_becomes_counts_once(
    rich: asyncpg.Pool,
) -> None:
    limits = Limits(key_per_day=100)
    evening = TOMORROW - timedelta(seconds=1)
    await hold_within(rich, "r1", 60, limits, now=evening)
    assert (await hold_within(rich, "r2", 100, limits, now=TOMORROW, least=1)).held == 40
    await settle_at(rich, TOMORROW + timedelta(minutes=5), posting("r1", price=60), posting("r2", price=40))
    assert await left(rich, limits, now=TOMORROW + timedelta(hours=1)) == 0
    assert await left(rich, limits, now=TOMORROW + timedelta(days=1)) == 100


@pytest.mark.parametrize(
    ("time_zone", "first", "last", "renewed"),
    [
        ("UTC", "2025-02-28T00:00", "2025-02-28T23:59:59", "2025-03-01T00:00"),
        ("Asia/Kathmandu", "2025-06-29T18:15", "2025-06-30T18:14:59", "2025-06-30T18:15"),
        ("Pacific/Chatham", "2025-06-29T11:15", "2025-06-30T11:14:59", "2025-06-30T11:15"),
        ("Pacific/Kiritimati", "2025-06-29T10:00", "2025-06-30T09:59:59", "2025-06-30T10:00"),
        # 25 hours, 23 hours, and half an hour less than in the states around.
        ("America/St_Johns", "2025-11-02T02:30", "2025-11-03T03:29:59", "2025-11-03T03:30"),
        ("America/St_Johns", "2025-03-09T03:30", "2025-03-10T02:29:59", "2025-03-10T02:30"),
        ("Europe/Berlin", "2025-03-29T23:00", "2025-03-30T21:59:59", "2025-03-30T22:00"),
        ("Australia/Lord_Howe", "2025-04-05T13:00", "2025-04-06T13:29:59", "2025-04-06T13:30"),
        # Midnight twice, the first one begins the day; and a day without a midnight.
        ("America/Havana", "2025-11-02T04:00", "2025-11-03T04:59:59", "2025-11-03T05:00"),
        ("Africa/Cairo", "2025-04-24T22:00", "2025-04-25T20:59:59", "2025-04-25T21:00"),
    ],
)
async def test_a_day_is_that_of_the_time_zone_also_where_the_clock_is_changed(
    rich: asyncpg.Pool, time_zone: str, first: str, last: str, renewed: str
) -> None:
    limits = Limits(time_zone, key_per_day=1000)
    before = utc(first) - timedelta(seconds=1)
    await settle_at(rich, before, posting("before", price=1))
    assert (await hold_within(rich, "asking", 1000, limits, now=before)).renews_at == utc(first)
    assert await left(rich, limits, now=before) == 999
    await settle_at(rich, utc(first), posting("first", price=10))
    await settle_at(rich, utc(last), posting("last", price=100))
    assert await left(rich, limits, now=utc(last)) == 890
    assert (await hold_within(rich, "asking", 1000, limits, now=utc(last))).renews_at == utc(renewed)
    await settle_at(rich, utc(renewed), posting("renewed", price=500))
    assert await left(rich, limits, now=utc(renewed)) == 500
    assert await books_are_right(rich)


@pytest.mark.parametrize(
    ("time_zone", "first", "last", "renewed"),
    [
        ("UTC", "2024-02-01T00:00", "2024-02-29T23:59:59", "2024-03-01T00:00"),
        ("Asia/Kathmandu", "2025-11-30T18:15", "2025-12-31T18:14:59", "2025-12-31T18:15"),
        ("America/St_Johns", "2025-03-01T03:30", "2025-04-01T02:29:59", "2025-04-01T02:30"),
        ("America/St_Johns", "2025-11-01T02:30", "2025-12-01T03:29:59", "2025-12-01T03:30"),
        ("Pacific/Kiritimati", "2025-01-31T10:00", "2025-02-28T09:59:59", "2025-02-28T10:00"),
        ("Pacific/Pago_Pago", "2025-02-01T11:00", "2025-03-01T10:59:59", "2025-03-01T11:00"),
    ],
)
async def test_a_month_is_that_of_the_time_zone_whatever_its_length(
    rich: asyncpg.Pool, time_zone: str, first: str, last: str, renewed: str
) -> None:
    limits = Limits(time_zone, project_per_month=1000)
    await settle_at(rich, utc(first) - timedelta(seconds=1), posting("before", price=1))
    assert await left(rich, limits, now=utc(first)) == 1000
    # At both ends of the month, and of the days of UTC that are whole in it.
    moments = (0, 900, 20 * 3600, 86_400, 2 * 86_400)
    for number, seconds in enumerate(moments):
        await settle_at(rich, utc(first) + timedelta(seconds=seconds), posting(f"early{number}", price=10))
        await settle_at(rich, utc(last) - timedelta(seconds=seconds), posting(f"late{number}", price=100))
    assert await left(rich, limits, now=utc(last)) == 1000 - 110 * len(moments)
    assert (await hold_within(rich, "asking", 1000, limits, now=utc(last))).renews_at == utc(renewed)
    await settle_at(rich, utc(renewed), posting("renewed", price=500))
    assert await left(rich, limits, now=utc(renewed)) == 500
    assert await books_are_right(rich)


async def test_every_day_of_every_time_zone_begins_with_its_first_moment_and_with_a_quarter(pool: asyncpg.Pool) -> None:
    wrong = await pool.fetch(
        """
        SELECT zone.name, day::date FROM pg_timezone_names zone,
            generate_series('2012-01-02'::timestamp, '2037-12-31', '1 day') AS day,
            LATERAL (SELECT billing.begin_of(day::date, zone.name) AS begins_at) b
        WHERE (b.begins_at AT TIME ZONE zone.name)::date <> day
           OR ((b.begins_at - interval '1 second') AT TIME ZONE zone.name)::date >= day
           OR extract(epoch FROM b.begins_at) % 900 <> 0
        """,
        timeout=120,
    )
    assert wrong == []


async def test_months_of_invoices_and_of_budgets_begin_at_the_same_moment(pool: asyncpg.Pool) -> None:
    # Up to when every release of the database of time zones says the same.
    rows = await pool.fetch(
        """
        SELECT zone.name, month::date AS month, billing.begin_of(month::date, zone.name) AS begins_at
        FROM pg_timezone_names zone, generate_series('2012-01-01'::timestamp, '2024-12-01', '1 month') AS month
        WHERE zone.name = ANY ($1)
        """,
        ["UTC", *(zone for zone in available_timezones() if "/" in zone)],
    )
    assert len(rows) > 300 * 13 * 12
    differing = [
        (row["name"], row["month"]) for row in rows if calendar.begin_of(row["month"], row["name"]) != row["begins_at"]
    ]
    assert differing == []


async def test_what_was_charged_before_there_were_budgets_is_spent_too(postgres_dsn: str) -> None:
    async with (
        fresh_database(postgres_dsn, {"billing_sink": 13}) as dsn,
        asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool,
    ):
        await pool.execute(
            """
            WITH account AS (INSERT INTO billing.accounts (kind, org_id, mode) VALUES ('balance', $1, 'live') RETURNING *)
            INSERT INTO billing.requests (
                request_id, input_hash, mode, outcome, usage_source, org_id, project_id, key_id, stream, status, attempts,
                started_at, duration_ms, bytes_received, bytes_sent, sse_events, meters, cost_nano_usd, price_nano_usd,
                absorbed_nano_usd, recorded_at)
            SELECT 'r' || n, '', 'live', 'settled', 'none', org_id, 'prj', 'key_test', false, 200, 1, $2, 1, 1, 1, 0, '{}', 1,
                   n, 1, $2::timestamptz + n / 3 * interval '30 minutes'
            FROM account, generate_series(1, 4) AS n
            """,
            ORG,
            NOON,
        )
        connection = await asyncpg.connect(dsn)
        folder = MIGRATIONS["billing_sink"]
        await migrate(connection, "billing_sink", read_migrations(folder), read_functions(folder))
        await connection.close()
        spending = await pool.fetch("SELECT spender_id, day, amount_nano_usd, quarters[49:51] FROM billing.spending")
        assert sorted(map(tuple, spending)) == [(id_, NOON.date(), 6, [1, None, 5]) for id_ in ("key_test", "prj")]
        [check] = await pool.fetch(
            "SELECT * FROM billing.check_books() WHERE name = 'spending_is_what_requests_have_paid'"
        )
        assert check["wrong"] == 0


@pytest.mark.parametrize("is_begun", [False, True])
async def test_requests_of_a_key_that_one_statement_records_at_several_moments_are_refused(
    rich: asyncpg.Pool, *, is_begun: bool
) -> None:
    statement = """
        INSERT INTO billing.requests (
            request_id, input_hash, mode, outcome, usage_source, org_id, project_id, key_id, stream, status, attempts,
            started_at, duration_ms, bytes_received, bytes_sent, sse_events, meters, cost_nano_usd, price_nano_usd,
            absorbed_nano_usd, recorded_at)
        SELECT 'r' || n, '', 'live', 'settled', 'none', $1, 'prj', 'key_test', false, 200, 1, $2, 1, 1, 1, 0, '{}', 1,
               1, 0, $2::timestamptz + n * interval '1 minute'
        FROM generate_series($3::integer, $4) AS n
        """
    if is_begun:
        await rich.execute(statement, ORG, NOON, 0, 0)
    with pytest.raises((asyncpg.CardinalityViolationError, asyncpg.UniqueViolationError)):
        await rich.execute(statement, ORG, NOON, 1, 2)
    assert await rich.fetchval("SELECT count(*) FROM billing.requests") == is_begun


async def test_whoever_holds_settles_expires_and_decides_at_once_waits_for_nobody_in_a_circle(
    rich: asyncpg.Pool,
) -> None:
    limits = Limits(key_per_day=2000, project_per_day=3000)
    ledger = PostgresLedger(rich)
    spools = (SpoolId(f"s{n}") for n in range(1000))

    async def request(number: int) -> None:
        request_id, key_id = f"r{number}", f"key_{number % 3}"
        budgets = limits if number % 2 else replace(limits, key_per_day=None)
        if number % 5 == 0:
            await hold(rich, request_id, 50)
        elif (await hold_within(rich, request_id, 50, budgets, least=10, key_id=key_id)).held is None:
            return
        if number % 7 == 0:
            await ledger.post(SpoolBatch(next(spools), 0, 10, (), (odd_line(request_id),)))
            await decide(rich, request_id, "charge", 20)
        elif number % 11 == 0:
            await ledger.expire_holds(FAR)
        else:
            await ledger.post(SpoolBatch(next(spools), 0, 10, (posting(request_id, price=30, key_id=key_id),), ()))

    await asyncio.gather(*(request(number) for number in range(300)))
    assert await books_are_right(rich)
    spent = await rich.fetchval("SELECT sum(amount_nano_usd) FROM billing.spending WHERE spender_kind = 'project'")
    assert spent > 2500


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
