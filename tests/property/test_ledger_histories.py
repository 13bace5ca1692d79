"""Random histories of credits, top-ups, refunds, disputes, holds, slices, settlements, quarantine, decisions and expiries: the books are right after each step."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
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
from billing_sink.postings import Posting, Quarantined, SpoolBatch
from billing_sink.rating import Outcome
from billing_sink.spool import SpoolId
from tests.support.histories import PostgresMachine, run_histories
from tests.support.ledger import ORG, decide, hold, odd_line, open_org, open_slice, posting, read_books

START = datetime(2026, 1, 1, tzinfo=UTC)
HOLD_S = 3600
YEARS_S = 30 * 365 * 86_400
"""Longer than anything waits for a person."""
MONEY = st.integers(0, 2000)


@dataclass
class Slice:
    """What a process of ext_authz knows of its slice."""

    slice_id: str
    rest: int


@dataclass(frozen=True)
class Odd:
    """A request in quarantine, and what is held for it where that is a share of a slice."""

    request_id: str
    slice_id: str | None = None
    share: int | None = None


@dataclass
class World:
    """The database of one history."""

    pool: asyncpg.Pool
    now: datetime = START
    offset: int = 0
    is_open: bool = False
    credited: int = 0
    admitted: dict[str, bool] = field(default_factory=dict)

    async def post(self, *lines: Posting, odd: Sequence[Quarantined] = ()) -> None:
        await PostgresLedger(self.pool).post(SpoolBatch(SpoolId("spool"), self.offset, self.offset + 10, lines, odd))
        self.offset += 10


class Histories(PostgresMachine):
    """One organisation. Lines may come late, twice, or never; time may pass at any point."""

    held = Bundle("held")
    slices = Bundle("slices")
    shares = Bundle("shares")
    lines = Bundle("lines")
    odd = Bundle("odd")

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.pool)

    @initialize(balance=MONEY)
    def open(self, balance: int) -> None:
        self.run(open_org(self.world.pool, balance=balance))
        self.world.is_open = True
        self.world.credited = balance

    @rule(amount=st.integers(1, 2000))
    def credit(self, amount: int) -> None:
        self.run(self.world.pool.execute("SELECT billing.credit($1, $2, 'more')", ORG, amount))
        self.world.credited += amount

    @rule(amount=st.integers(-3000, -1))
    def take_back(self, amount: int) -> None:
        """An operator's, never below zero and nothing that is held."""
        before = self.run(read_books(self.world.pool))
        taken = self.run(self.world.pool.fetchval("SELECT billing.credit($1, $2, 'a mistake')", ORG, amount))
        assert (taken is not None) is (before.balance - before.held >= -amount)
        if taken is not None:
            self.world.credited += amount

    @rule(kind=st.sampled_from(["topup", "refund", "dispute", "dispute_won"]), amount=st.integers(1, 3000))
    def move(self, kind: str, amount: int) -> None:
        """Of a payment. What is taken back and is spent or held is owed, and paid by what comes in next."""
        before = self.run(read_books(self.world.pool))
        signed = amount if kind in ("topup", "dispute_won") else -amount
        self.run(
            self.world.pool.execute(
                "SELECT billing.move_money($1, $2, 'funding', $3, NULL, $4, 'stripe', 'evt')", ORG, signed, kind, "pi"
            )
        )
        self.world.credited += signed
        books = self.run(read_books(self.world.pool))
        free = before.balance - before.held
        owed = max(-before.owed - amount, 0) if signed > 0 else -before.owed + max(amount - free, 0)
        assert (books.owed, books.held) == (-owed, before.held)

    @rule(target=held, amount=MONEY, least=MONEY)
    def place_hold(self, amount: int, least: int) -> str | None:
        request_id, least = f"r{next(self.numbers)}", min(least, amount)
        expires_at = self.world.now + timedelta(seconds=HOLD_S)
        books = self.run(read_books(self.world.pool))
        placed = self.run(hold(self.world.pool, request_id, amount, least=least, expires_at=expires_at))
        free = books.balance - books.held
        assert placed == (min(amount, free) if books.balance > 0 and free >= least else None)
        if placed is None:
            return None
        assert self.run(hold(self.world.pool, request_id, amount, least=least, expires_at=expires_at)) == placed
        return request_id

    @rule(target=slices, share_ppm=st.integers(1000, 500_000))
    def cut_slice(self, share_ppm: int) -> Slice | None:
        slice_id = f"s{next(self.numbers)}"
        expires_at = self.world.now + timedelta(seconds=HOLD_S)
        size = self.run(open_slice(self.world.pool, slice_id, share_ppm, expires_at=expires_at))
        return None if size is None else Slice(slice_id, size)

    @rule(target=shares, spent=slices, amount=MONEY, held=st.none() | MONEY)
    def spend(self, spent: Slice | None, amount: int, held: int | None) -> tuple[str, str, int] | None:
        """What is `held` besides, another process has asked for, and was too late with its answer."""
        if spent is None:
            return None
        request_id, amount = f"r{next(self.numbers)}", min(amount, spent.rest)
        if held is not None:
            expires_at = self.world.now + timedelta(seconds=HOLD_S // 2)
            self.run(hold(self.world.pool, request_id, held, expires_at=expires_at))
        spent.rest -= amount
        return request_id, spent.slice_id, amount

    @rule(spent=consumes(slices))
    def give_back(self, spent: Slice | None) -> None:
        if spent is not None:
            self.run(self.world.pool.execute("SELECT billing.return_slice($1, $2)", spent.slice_id, spent.rest))

    @rule(target=lines, request_id=consumes(held), price=MONEY)
    def settle_hold(self, request_id: str | None, price: int) -> Posting | None:
        return self._settle(None if request_id is None else posting(request_id, price=price))

    @rule(target=lines, share=consumes(shares), price=MONEY)
    def settle_share(self, share: tuple[str, str, int] | None, price: int) -> Posting | None:
        if share is None:
            return None
        request_id, slice_id, amount = share
        return self._settle(posting(request_id, price=price, slice_id=slice_id, share=amount))

    @rule(target=lines, request_id=consumes(held))
    def release(self, request_id: str | None) -> Posting | None:
        return self._settle(None if request_id is None else posting(request_id, price=0, outcome=Outcome.RELEASED))

    def _settle(self, line: Posting | None) -> Posting | None:
        if line is not None:
            self.run(self.world.post(line))
            self.world.admitted[line.request_id] = True
        return line

    @rule(target=odd, request_id=consumes(held), is_read=st.booleans())
    def quarantine_hold(self, request_id: str | None, is_read: bool) -> Odd | None:
        return self._quarantine(None if request_id is None else Odd(request_id), is_read=is_read)

    @rule(target=odd, share=consumes(shares))
    def quarantine_share(self, share: tuple[str, str, int] | None) -> Odd | None:
        return self._quarantine(None if share is None else Odd(*share), is_read=True)

    def _quarantine(self, odd: Odd | None, *, is_read: bool) -> Odd | None:
        if odd is not None:
            line = odd_line(odd.request_id, slice_id=odd.slice_id, share=odd.share, is_read=is_read)
            self.run(self.world.post(odd=[line]))
        return odd

    @rule(odd=odd, decision=st.sampled_from(["charge", "release"]), amount=st.integers(1, 3000))
    def decide(self, odd: Odd | None, decision: str, amount: int) -> None:
        if odd is None:
            return
        before = self.run(read_books(self.world.pool))
        stated = amount if decision == "charge" else None
        made = self.run(decide(self.world.pool, odd.request_id, decision, stated))
        books = self.run(read_books(self.world.pool))
        if odd.request_id in self.world.admitted:
            assert books == before
            return
        self.world.admitted[odd.request_id] = True
        assert made is not None
        free = before.balance - before.held + made["held_nano_usd"]
        assert made["charged_nano_usd"] == (min(amount, free) if decision == "charge" else 0)
        assert (books.balance, books.held) == (
            before.balance - made["charged_nano_usd"],
            before.held - made["held_nano_usd"],
        )
        assert self.run(decide(self.world.pool, odd.request_id, "release")) == made

    @rule(odd=odd, price=MONEY)
    def price_after_all(self, odd: Odd | None, price: int) -> None:
        """Its line is read again by somebody who can price it; if it is decided about, that stands."""
        if odd is None:
            return
        before = self.run(read_books(self.world.pool))
        self.run(self.world.post(posting(odd.request_id, price=price, slice_id=odd.slice_id, share=odd.share)))
        if odd.request_id in self.world.admitted:
            assert self.run(read_books(self.world.pool)) == before
        self.world.admitted[odd.request_id] = True

    @rule(line=lines)
    def replay(self, line: Posting | None) -> None:
        if line is not None:
            before = self.run(read_books(self.world.pool))
            self.run(self.world.post(line))
            assert self.run(read_books(self.world.pool)) == before

    @rule(line=lines, amount=MONEY)
    def ask_too_late(self, line: Posting | None, amount: int) -> None:
        """For somebody who is gone. Where the request had a hold, that is said."""
        if line is not None:
            with contextlib.suppress(asyncpg.UniqueViolationError):
                assert self.run(hold(self.world.pool, line.request_id, amount)) is None

    @rule(seconds=st.sampled_from([1, HOLD_S // 2, HOLD_S, YEARS_S]))
    def time_passes(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)
        ledger = PostgresLedger(self.world.pool)
        self.run(ledger.expire_holds(self.world.now))
        self.run(ledger.close_slices(self.world.now))

    @invariant()
    def the_books_are_right(self) -> None:
        if not self.world.is_open:
            return
        books = self.run(read_books(self.world.pool))
        assert books.balance - books.held >= 0
        assert -books.funding == self.world.credited
        charged = self.run(self.world.pool.fetchval("SELECT coalesce(sum(price_nano_usd), 0) FROM billing.requests"))
        assert books.revenue == charged
        assert books.owed <= 0
        assert books.balance + books.owed == self.world.credited - charged - books.absorbed
        checks = self.run(self.world.pool.fetch("SELECT name FROM billing.check_books() WHERE wrong > 0"))
        assert checks == []

    @invariant()
    def every_request_that_ended_has_one_outcome(self) -> None:
        recorded = self.run(self.world.pool.fetch("SELECT request_id FROM billing.requests"))
        assert {row["request_id"] for row in recorded} == set(self.world.admitted)


@pytest.mark.timeout(300)
def test_no_history_gets_the_books_wrong(postgres_dsn: str) -> None:
    run_histories(Histories, postgres_dsn, examples=15, steps=25)
