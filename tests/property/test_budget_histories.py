"""Random histories of requests under budgets, by a clock that is moved over midnights, month ends and changes of the clock.

A model in Python, which knows the calendar by itself, says what is left before every hold; and no budget is ever overspent but by what a
request cost beyond what it held when it was charged.
"""

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    consumes,
    initialize,
    invariant,
    rule,
)

from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postings import SpoolBatch
from billing_sink.rating import Outcome
from billing_sink.spool import SpoolId
from tests.support.histories import PostgresMachine, run_histories
from tests.support.ledger import Answer, Limits, decide, hold_within, odd_line, open_org, posting, settle_at

ZONES = ("UTC", "Asia/Kathmandu", "America/St_Johns", "America/Havana", "Pacific/Chatham")
BEGINS = tuple(
    datetime(*each, tzinfo=UTC) for each in ((2024, 2, 28, 20), (2024, 3, 9, 22), (2024, 11, 2, 23), (2024, 12, 31, 2))
)
"""A leap day, both changes of the clock, and the end of a year are near."""
HOLD_S = 3600
MONEY = st.integers(0, 300)
LIMIT = st.none() | st.integers(0, 1500)
KEYS = ("key_test", "key_other")


class Held(NamedTuple):
    """A request that is running."""

    key_id: str
    amount: int
    expires_at: datetime


class Charge(NamedTuple):
    """What a request was charged, and what of that was beyond its hold."""

    key_id: str
    at: datetime
    amount: int
    beyond: int


@dataclass
class Model:
    """What should be."""

    limits: Limits = field(default_factory=Limits)
    now: datetime = BEGINS[0]
    held: dict[str, Held] = field(default_factory=dict)
    waiting: dict[str, Held] = field(default_factory=dict)
    charges: list[Charge] = field(default_factory=list)

    def begins(self) -> dict[str, datetime]:
        """When the day and the month of now began."""
        zone = ZoneInfo(self.limits.time_zone)
        today = self.now.astimezone(zone).date()
        return {
            period: datetime.combine(first, time(), zone).astimezone(UTC)
            for period, first in (("day", today), ("month", today.replace(day=1)))
        }

    def budgets(self, key_id: str) -> dict[str, tuple[int, int, int, int]]:
        """Limit, what was charged, that with what is held, and what of it was beyond holds, of every budget that a key is under."""
        found = {}
        begins = self.begins()
        for owner, period in itertools.product(("key", "project"), ("day", "month")):
            limit = getattr(self.limits, f"{owner}_per_{period}")
            if limit is not None:
                keys = (key_id,) if owner == "key" else KEYS
                charges = [each for each in self.charges if each.key_id in keys and each.at >= begins[period]]
                held = sum(each.amount for each in (*self.held.values(), *self.waiting.values()) if each.key_id in keys)
                charged = sum(each.amount for each in charges)
                beyond = sum(each.beyond for each in charges)
                found[f"{owner}_per_{period}"] = (limit, charged, charged + held, beyond)
        return found

    def left(self, key_id: str) -> int | None:
        """Of the tightest of them; None if there are none."""
        return min((max(limit - counted, 0) for limit, _, counted, _ in self.budgets(key_id).values()), default=None)

    def charge(self, held: Held, amount: int) -> None:
        """A request has ended, whether what was held for it is there still or not."""
        covered = held.amount if held.expires_at > self.now else 0
        self.charges.append(Charge(held.key_id, self.now, amount, max(amount - covered, 0)))


class Histories(PostgresMachine):
    """A project with two keys, and more money than it can spend."""

    running = Bundle("running")
    odd = Bundle("odd")

    def __init__(self) -> None:
        super().__init__()
        self.run(open_org(self.pool, balance=10**9))
        self.model = Model()

    @initialize(zone=st.sampled_from(ZONES), now=st.sampled_from(BEGINS), limits=st.tuples(LIMIT, LIMIT, LIMIT, LIMIT))
    def begin(self, zone: str, now: datetime, limits: tuple[int | None, ...]) -> None:
        self.model.limits = Limits(zone, *limits)
        self.model.now = now

    @rule(target=running, key_id=st.sampled_from(KEYS), amount=MONEY, least=MONEY)
    def place(self, key_id: str, amount: int, least: int) -> tuple[str, Held] | None:
        request_id, least, model = f"r{next(self.numbers)}", min(least, amount), self.model
        expires_at = model.now + timedelta(seconds=HOLD_S)

        def ask() -> Answer:
            return self.run(
                hold_within(
                    *(self.pool, request_id, amount, model.limits),
                    now=model.now,
                    least=least,
                    expires_at=expires_at,
                    key_id=key_id,
                )
            )

        left, answer = model.left(key_id), ask()
        if left is not None and left < least:
            assert answer.held is None
            assert answer.budget is not None
            limit, charged, counted, _ = model.budgets(key_id)[answer.budget]
            assert limit - counted < least
            are_spent = [limit - charged < least for limit, charged, _, _ in model.budgets(key_id).values()]
            if any(are_spent):
                assert limit - charged < least
                assert answer.renews_at is not None
                assert answer.renews_at > model.now
            else:
                assert answer.renews_at is None
            return None
        assert answer == Answer(amount if left is None else min(amount, left))
        assert answer.held is not None
        assert ask() == answer
        model.held[request_id] = Held(key_id, answer.held, expires_at)
        return request_id, model.held[request_id]

    @rule(request=consumes(running), price=MONEY)
    def settle(self, request: tuple[str, Held] | None, price: int) -> None:
        if request is not None:
            self._end(*request, price)

    @rule(request=consumes(running))
    def settle_by_all_of_its_hold(self, request: tuple[str, Held] | None) -> None:
        if request is not None:
            self._end(*request, request[1].amount)

    def _end(self, request_id: str, held: Held, price: int) -> None:
        outcome = Outcome.SETTLED if price else Outcome.RELEASED
        line = posting(request_id, price=price, outcome=outcome, key_id=held.key_id)
        self.run(settle_at(self.pool, self.model.now, line))
        self.model.charge(held, price)
        self.model.held.pop(request_id, None)

    @rule(target=odd, request=consumes(running))
    def quarantine(self, request: tuple[str, Held] | None) -> tuple[str, Held] | None:
        if request is None or request[0] not in self.model.held:
            return None
        request_id, _ = request
        number = next(self.numbers)
        batch = SpoolBatch(SpoolId(f"s{number}"), 0, 10, (), (odd_line(request_id, is_read=False),))
        self.run(PostgresLedger(self.pool).post(batch))
        # It waits for seven days from the real moment, which is later than any of this history.
        self.model.waiting[request_id] = self.model.held.pop(request_id)._replace(
            expires_at=datetime.max.replace(tzinfo=UTC)
        )
        return request_id, self.model.waiting[request_id]

    @rule(odd=consumes(odd), amount=st.integers(0, 400))
    def decide(self, odd: tuple[str, Held] | None, amount: int) -> None:
        if odd is None:
            return
        request_id, held = odd
        decision, stated = ("charge", amount) if amount else ("release", None)
        self.run(decide(self.pool, request_id, decision, stated, now=self.model.now))
        self.model.charge(held, amount)
        del self.model.waiting[request_id]

    @rule(
        passing=st.sampled_from(
            [
                timedelta(seconds=1),
                timedelta(minutes=14),
                timedelta(hours=1),
                timedelta(hours=11),
                timedelta(days=1),
                timedelta(days=13),
            ]
        )
    )
    def time_passes(self, passing: timedelta) -> None:
        self.model.now += passing
        self._expire()

    @rule()
    def the_next_day_begins(self) -> None:
        zone = ZoneInfo(self.model.limits.time_zone)
        tomorrow = self.model.now.astimezone(zone).date() + timedelta(days=1)
        self.model.now = datetime.combine(tomorrow, time(), zone).astimezone(UTC)
        self._expire()

    def _expire(self) -> None:
        self.run(PostgresLedger(self.pool).expire_holds(self.model.now))
        self.model.held = {id_: held for id_, held in self.model.held.items() if held.expires_at > self.model.now}

    @invariant()
    def no_budget_is_overspent_but_by_usage_beyond_its_hold(self) -> None:
        for key_id in KEYS:
            for limit, _, counted, beyond in self.model.budgets(key_id).values():
                assert counted - beyond <= limit

    @invariant()
    def the_books_are_right(self) -> None:
        assert self.run(self.pool.fetch("SELECT name FROM billing.check_books() WHERE wrong > 0")) == []


@pytest.mark.timeout(300)
def test_no_history_overspends_a_budget(postgres_dsn: str) -> None:
    run_histories(Histories, postgres_dsn, examples=20, steps=30)
