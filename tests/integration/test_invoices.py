"""Invoices on a real Postgres: every transaction is on one of them, once, and what is closed stays as it is."""

import asyncio
import csv
import io
import itertools
import json
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from billing_sink.postgres_ledger import PostgresLedger, _row
from billing_sink.postings import SpoolBatch
from billing_sink.spool import SpoolId
from control_plane.statements import postgres_invoices
from control_plane.statements.closing import InvoiceClosing
from control_plane.statements.model import Invoice, InvoiceState
from gateway_core.money import parse_usd
from tests.support.api import Account, Api, Clock
from tests.support.catalog_api import add_price, serve
from tests.support.ledger import FAR, decide, odd_line, posting
from tests.support.logs import QUIET


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

    async def use(self, request_id: str, price: int, **more: object) -> None:
        row = {**_row(posting(request_id, price=price)), "org_id": self.org_id, **more}
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


async def test_invoices_are_listed_read_and_downloaded(api: Api, owner: Account, months: Months) -> None:
    await months.credit(1000)
    await months.use("r1", 300)
    await months.end()
    [listed] = (await owner.api.get(f"{owner.org}/invoices"))["data"]
    assert "lines" not in listed
    path = f"{owner.org}/invoices/{listed['id']}"
    read = await owner.api.get(path)
    assert (read["number"], read["closing_balance"], len(read["lines"])) == (1, "0.0000007", 2)
    table = await owner.api.get(f"{path}/csv")
    assert table.headers["content-type"] == "text/csv"
    assert next(iter(csv.DictReader(io.StringIO(table.text)))) == {
        "kind": "usage",
        "project_id": "prj",
        "model": "m",
        "count": "1",
        "input": "1",
        "amount": "-0.0000003",
        "currency": "USD",
    }
    async with api.session.get(
        f"{api.url}/api/v1{path}/pdf", headers={"Authorization": f"Bearer {owner.api.token}"}
    ) as document:
        assert document.headers["content-disposition"].startswith('attachment; filename="invoice-')
        assert (await document.read()).startswith(b"%PDF-")
    draft = await owner.api.get(f"{owner.org}/invoices/draft")
    assert (draft["state"], draft["opening_balance"], draft["lines"]) == ("draft", "0.0000007", [])
    assert (await owner.api.get(f"{owner.org}/invoices/ivc_other")).status == 404
    other = await api.sign_up("other@example.com")
    assert (await other.api.get(path)).status == 404
    assert (await other.api.get(f"{other.org}/invoices/{listed['id']}")).status == 404


async def test_usage_is_told_by_what_was_asked_for(owner: Account, months: Months) -> None:
    for number in range(3):
        await months.use(f"r{number}", 100)
    path = f"{owner.org}/usage?since=2026-01-01T00:00:00Z&until=2026-02-01T00:00:00Z"
    usage = await owner.api.get(f"{path}&by=day,model")
    assert usage.status == 200, usage.text
    # Nothing was left to pay with: it is what the organisation paid.
    assert usage["data"] == [
        {
            "day": "2026-01-01",
            "model": "m",
            "project_id": None,
            "key_id": None,
            "requests": 3,
            "meters": {"input": 3},
            "amount": "0.00",
        }
    ]
    await months.credit(1000)
    await months.use("r9", 100)
    [row] = (await owner.api.get(f"{path}&by=key"))["data"]
    assert (row["day"], row["key_id"], row["requests"], row["amount"]) == (None, "key_test", 4, "0.0000001")
    await owner.api.patch(owner.org, {"time_zone": "America/New_York"})
    [row] = (await owner.api.get(path.replace("2026-01-01", "2025-12-31")))["data"]
    assert row["day"] == "2025-12-31"  # midnight in London
    table = await owner.api.get(path.replace("/usage?", "/usage/csv?"))
    assert table.text.splitlines()[0] == "day,model,project_id,key_id,requests,input,amount,currency"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("since=2026-01-01T00:00:00Z&until=2026-01-01T00:00:00Z", "?"),
        ("since=2026-01-01T00:00:00Z&until=2028-01-01T00:00:00Z", "?"),
        ("since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z&by=weather", "?by"),
        ("since=2026-01-01T00:00:00Z", "?until"),
    ],
)
async def test_usage_of_a_time_that_is_none_is_refused(owner: Account, query: str, pointer: str) -> None:
    refused = await owner.api.get(f"{owner.org}/usage?{query}")
    assert (refused.status, refused.pointers) == (422, [pointer])


async def test_a_receipt_is_for_those_who_may_read_the_bills(api: Api, owner: Account, months: Months) -> None:
    await months.credit(1000)
    await months.use("req_paid", 250)
    receipt = await owner.api.get("/receipts/req_paid")
    assert receipt.status == 200, receipt.text
    assert (receipt["price"], receipt["absorbed"], receipt["meters"], receipt["catalog_revision"]) == (
        *("0.00000025", "0.00"),
        *({"input": 1}, 1),
    )
    assert receipt["transaction_id"] is not None
    assert receipt["by_decision"] is False
    assert "cost" not in receipt.text
    other = await api.sign_up("other@example.com")
    assert (await other.api.get("/receipts/req_paid")).status == 404
    assert (await api.as_(await api.operator_token()).get("/receipts/req_paid")).status == 200
    assert (await owner.api.get("/receipts/req_none")).status == 404


async def test_a_receipt_names_the_version_of_the_price_that_was_charged(
    api: Api, owner: Account, months: Months, pool: asyncpg.Pool
) -> None:
    operator = api.as_(await api.operator_token())
    await serve(operator, "m", "p")
    newest = "SELECT max(revision) FROM catalog.revisions"
    await add_price(pool, "m", "p")
    charged = await pool.fetchval(newest)
    admitted_by = (await serve(operator, "another", "p"))["revision"]
    await add_price(pool, "m", "p")
    later = await pool.fetchval(newest)
    await months.use("req_paid", 250, price_version=admitted_by)
    receipt = await owner.api.get("/receipts/req_paid")
    assert (receipt["catalog_revision"], receipt["price_version"]) == (admitted_by, charged)
    versions = (await operator.get("/prices?history=true&model=m"))["data"]
    assert [each["version"] for each in versions][:2] == [later, charged]


async def test_the_receipt_of_a_quarantined_request_says_so_and_only_to_whom_its_money_is(
    api: Api, owner: Account, months: Months, pool: asyncpg.Pool
) -> None:
    await months.credit(1000)
    for request_id in ("r1", "r2", "r3"):
        place = "SELECT billing.place_hold($1, $2, 'key_test', 100, $3, 'live')"
        assert await pool.fetchval(place, request_id, owner.org_id, FAR)
    odd = (odd_line("r1"), odd_line("r2", is_read=False), odd_line("r3"), odd_line("r4", is_read=False))
    await PostgresLedger(pool).post(SpoolBatch(SpoolId("spool"), 0, 100, (), odd))

    receipt = await owner.api.get("/receipts/r1")
    assert receipt.status == 200, receipt.text
    assert receipt["by_decision"] is False
    shown = ("outcome", "org_id", "key_id", "model", "status", "meters")
    assert [receipt[name] for name in shown] == ["quarantined", owner.org_id, "key_test", "m", 200, {}]
    # Not priced yet, and so not zero.
    assert [receipt[name] for name in ("price", "absorbed", "transaction_id")] == [None, None, None]
    assert "odd" not in receipt.text
    unread = await owner.api.get("/receipts/r2")
    assert [unread[name] for name in (*shown, "price")] == ["quarantined", owner.org_id, "key_test", None, 0, {}, None]
    # Of this one nobody knows whose it is.
    assert (await owner.api.get("/receipts/r4")).status == 404
    other = await api.sign_up("other@example.com")
    assert (await other.api.get("/receipts/r1")).status == 404

    await decide(pool, "r1", "charge", 60)
    await decide(pool, "r3", "release")
    charged, released = [await owner.api.get(f"/receipts/{request_id}") for request_id in ("r1", "r3")]
    # The decision says how much, and nobody what for.
    told = ("outcome", "price", "meters", "by_decision", "model", "key_id")
    assert [charged[name] for name in told] == ["settled", "0.00000006", {}, True, "m", "key_test"]
    assert [released[name] for name in told] == ["released", "0.00", {}, True, "m", "key_test"]


async def test_a_line_that_contradicts_a_request_leaves_its_receipt_as_it_is_whatever_is_decided_about_it(
    owner: Account, months: Months, pool: asyncpg.Pool
) -> None:
    await months.credit(1000)
    await months.use("req_paid", 250)
    before = await owner.api.get("/receipts/req_paid")
    await PostgresLedger(pool).post(SpoolBatch(SpoolId("spool"), 0, 100, (), (odd_line("req_paid"),)))
    await decide(pool, "req_paid", "release")
    assert (await owner.api.get("/receipts/req_paid")).text == before.text
