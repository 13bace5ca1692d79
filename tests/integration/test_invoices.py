"""Invoices on a real Postgres: every transaction is on one of them, once, and what is closed stays as it is."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from billing_sink.postgres_ledger import _row
from control_plane.statements import postgres_invoices
from control_plane.statements.closing import InvoiceClosing
from control_plane.statements.model import Invoice, InvoiceState
from gateway_core.money import parse_usd
from tests.support.api import Account, Api, Clock, running_api
from tests.support.ledger import posting
from tests.support.logs import QUIET


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    async with running_api(pool) as running:
        yield running


@pytest.fixture
async def owner(api: Api) -> Account:
    return await api.sign_up("owner@example.com")


class Months:
    """Time that passes in months, for one organisation whose transactions are all posted today."""

    def __init__(self, pool: asyncpg.Pool, org_id: str) -> None:
        self.pool = pool
        self.org_id = org_id
        self.clock = Clock()
        self._count = 0

    @property
    def closing(self) -> InvoiceClosing:
        return InvoiceClosing(self.pool, self.clock.now, self._random, QUIET)

    def _random(self, size: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(size)

    async def credit(self, amount: int) -> None:
        await self.pool.execute("SELECT billing.credit($1, $2, 'test')", self.org_id, amount)

    async def use(self, request_id: str, price: int) -> None:
        row = {**_row(posting(request_id, price=price)), "org_id": self.org_id}
        assert await self.pool.fetch("SELECT billing.settle($1::jsonb)", json.dumps([row])) == []

    async def end(self) -> int:
        """A month passes; how many invoices were closed."""
        self.clock.ahead += timedelta(days=32)
        return await self.closing.look()

    async def invoices(self) -> list[Invoice]:
        listed = await postgres_invoices.list_invoices(self.pool, self.org_id, before=None, limit=100)
        return [await self.invoice(summary.id) for _, summary in reversed(listed)]

    async def invoice(self, invoice_id: str) -> Invoice:
        found = await postgres_invoices.find_invoice(self.pool, self.org_id, invoice_id, self.clock.now())
        assert found is not None
        return found


@pytest.fixture
def months(pool: asyncpg.Pool, owner: Account) -> Months:
    return Months(pool, owner.org_id)


async def test_a_month_that_is_over_is_closed_once_with_what_moved_in_it(months: Months) -> None:
    await months.credit(1000)
    await months.use("r1", 300)
    await months.use("r2", 100)
    assert await months.closing.look() == 0
    assert (await months.invoice("draft")).closing_balance == "0.0000006"
    assert await months.end() == 1
    assert await months.closing.look() == 0

    [invoice] = await months.invoices()
    assert (invoice.number, invoice.state, invoice.time_zone) == (1, InvoiceState.CLOSED, "UTC")
    assert invoice.month == datetime.now(UTC).date().replace(day=1)
    assert (invoice.opening_balance, invoice.closing_balance) == ("0.00", "0.0000006")
    usage, credit = invoice.lines
    assert (usage.kind, usage.model, usage.count, usage.amount) == ("usage", "m", 2, "-0.0000004")
    assert usage.meters == {"input": 2}
    assert (credit.kind, credit.count, credit.amount) == ("credit", 1, "0.000001")


async def test_what_is_posted_after_the_closing_is_on_the_next_invoice(months: Months) -> None:
    await months.credit(1000)
    await months.end()
    await months.use("late", 10)
    draft = await months.invoice("draft")
    [first] = await months.invoices()
    assert draft.month > first.month
    assert draft.opening_balance == first.closing_balance
    assert await months.end() == 1
    _, second = await months.invoices()
    assert (second.number, second.month, [line.amount for line in second.lines]) == (2, draft.month, ["-0.00000001"])


async def test_a_month_in_which_nothing_moved_has_no_invoice(months: Months) -> None:
    assert await months.end() == 0
    await months.credit(5)
    assert await months.end() == 1
    assert await months.end() == 0
    await months.credit(5)
    assert await months.end() == 1
    assert [invoice.number for invoice in await months.invoices()] == [1, 2]
    assert (await months.invoice("draft")).lines == []


async def test_a_closed_invoice_cannot_be_changed(months: Months) -> None:
    await months.credit(5)
    await months.end()
    for statement in ("UPDATE billing.invoices SET closing_nano_usd = 0", "DELETE FROM billing.invoices"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await months.pool.execute(statement)


async def test_whatever_is_posted_meanwhile_every_transaction_is_on_exactly_one_invoice(months: Months) -> None:
    await months.credit(10_000)
    done = asyncio.Event()

    async def close() -> None:
        while not done.is_set():
            await asyncio.gather(months.end(), months.closing.look())

    closer = asyncio.create_task(close())
    await asyncio.gather(*(months.credit(1) for _ in range(30)), *(months.use(f"r{n}", 7) for n in range(30)))
    done.set()
    await closer
    await months.end()

    invoices = await months.invoices()
    assert len(invoices) > 1
    assert [invoice.number for invoice in invoices] == list(range(1, len(invoices) + 1))
    for before, after in itertools.pairwise(invoices):
        assert after.opening_balance == before.closing_balance
        assert after.month > before.month
    lines = [line for invoice in invoices for line in invoice.lines]
    assert sum(line.count for line in lines if line.kind == "usage") == 30
    assert sum(line.count for line in lines if line.kind == "credit") == 31
    balance = await months.pool.fetchval(
        "SELECT posted_nano_usd FROM billing.accounts WHERE org_id = $1 AND kind = 'balance' AND mode = 'live'",
        months.org_id,
    )
    assert parse_usd(invoices[-1].closing_balance) == balance == 10_000 + 30 - 30 * 7
    assert sum(parse_usd(line.amount) for line in lines) == balance


async def test_months_end_by_the_clock_of_the_organisation(pool: asyncpg.Pool, months: Months) -> None:
    await pool.execute("UPDATE accounts.organizations SET time_zone = 'Pacific/Kiritimati'")
    await months.credit(5)
    [due] = await postgres_invoices.list_open(pool, before=months.clock.now() + timedelta(days=1))
    first = datetime.now(UTC) + timedelta(hours=14)
    assert due.month == date(first.year, first.month, 1)
    assert due.ends_at.hour == 10  # midnight, fourteen hours ahead
    months.clock.ahead = due.ends_at + timedelta(minutes=59) - datetime.now(UTC)
    assert await months.closing.look() == 0
    months.clock.ahead += timedelta(minutes=2)
    assert await months.closing.look() == 1
