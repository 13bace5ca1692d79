"""Invoices in Postgres: the next one that is due, those that are closed, and what the one under way has so far."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import asyncpg

from control_plane.database import Database, written
from control_plane.statements.calendar import begin_of, first_of_month, next_month
from control_plane.statements.model import Invoice, InvoiceLine, InvoiceState, InvoiceSummary
from gateway_core.money import NanoUsd, format_usd

DRAFT = "draft"
"""Stands for the id of the invoice that is not closed yet."""

_STATEMENT_TIMEOUT_S = 120.0
"""A month of a large organisation is millions of rows."""


@dataclass(frozen=True, slots=True)
class Open:
    """Where an organisation's next invoice begins.

    Attributes:
        month: of the first thing on it; but never one that is closed.
        closed_nano_usd: the closing balance of the invoice before.
    """

    org_id: str
    time_zone: str
    month: date
    after: int
    closed_nano_usd: NanoUsd

    @property
    def ends_at(self) -> datetime:
        """When its month is over."""
        return begin_of(next_month(self.month), self.time_zone)


_OPEN = """
    SELECT o.org_id, o.time_zone, i.month, coalesce(i.last_transaction_id, 0) AS after,
           coalesce(i.closing_nano_usd, 0) AS closed, t.created_at
    FROM accounts.organizations o
    LEFT JOIN LATERAL (
        SELECT month, last_transaction_id, closing_nano_usd FROM billing.invoices
        WHERE org_id = o.org_id ORDER BY number DESC LIMIT 1
    ) i ON true
    CROSS JOIN LATERAL (
        SELECT min(first.transaction_id) AS transaction_id FROM billing.accounts a CROSS JOIN LATERAL (
            SELECT transaction_id FROM billing.entries
            WHERE account_id = a.account_id AND transaction_id > coalesce(i.last_transaction_id, 0)
            ORDER BY transaction_id LIMIT 1
        ) first
        WHERE a.org_id = o.org_id AND a.mode = 'live'
    ) f
    {join} JOIN billing.transactions t ON t.transaction_id = f.transaction_id
"""


async def list_open(db: Database, *, before: datetime) -> list[Open]:
    """Organisations with something on no invoice yet that was posted before a moment."""
    rows = await db.fetch(f"{_OPEN.format(join='')} WHERE t.created_at < $1 ORDER BY o.seq", before)
    return [_open(row, row["created_at"]) for row in rows]


async def find_open(db: Database, org_id: str, now: datetime) -> Open | None:
    """Where the next invoice of an organisation begins, also if nothing is on it yet."""
    row = await db.fetchrow(f"{_OPEN.format(join='LEFT')} WHERE o.org_id = $1", org_id)
    return None if row is None else _open(row, row["created_at"] or now)


def _open(row: asyncpg.Record, first_at: datetime) -> Open:
    month = first_of_month(first_at, row["time_zone"])
    # What came late, or was posted before the time zone was changed, is on the next one all the same.
    if row["month"] is not None:
        month = max(month, next_month(row["month"]))
    return Open(row["org_id"], row["time_zone"], month, row["after"], NanoUsd(row["closed"]))


async def last_transaction(db: Database, due: Open) -> int | None:
    """The last thing that belongs on an invoice. In a transaction of its own, because it keeps others from the balance."""
    last: int | None = await db.fetchval("SELECT billing.last_transaction($1, $2)", due.org_id, due.ends_at)
    return last


async def close(db: Database, due: Open, last: int, invoice_id: str, now: datetime) -> InvoiceSummary | None:
    """Close an invoice; None if another control plane has."""
    if not await db.fetchval(
        "SELECT billing.close_invoice($1, $2, $3, $4, $5, $6, $7)",
        *(invoice_id, due.org_id, due.month, due.time_zone, due.ends_at, last, now),
        timeout=_STATEMENT_TIMEOUT_S,
    ):
        return None
    row = await db.fetchrow("SELECT * FROM billing.invoices WHERE invoice_id = $1", invoice_id)
    return InvoiceSummary.model_validate(_summary(written(row)))


async def list_invoices(
    db: Database, org_id: str, *, before: int | None, limit: int
) -> list[tuple[int, InvoiceSummary]]:
    """Closed invoices, the latest first, each with its position."""
    rows = await db.fetch(
        """
        SELECT * FROM billing.invoices WHERE org_id = $1 AND ($2::bigint IS NULL OR number < $2)
        ORDER BY number DESC LIMIT $3
        """,
        org_id,
        before,
        limit,
    )
    return [(row["number"], InvoiceSummary.model_validate(_summary(row))) for row in rows]


async def find_invoice(db: Database, org_id: str, invoice_id: str, now: datetime) -> Invoice | None:
    """One invoice with its lines; `draft` is what will be on the next one."""
    if invoice_id == DRAFT:
        found = await find_open(db, org_id, now)
        return None if found is None else await _draft(db, found)
    row = await db.fetchrow("SELECT * FROM billing.invoices WHERE org_id = $1 AND invoice_id = $2", org_id, invoice_id)
    if row is None:
        return None
    return Invoice.model_validate({**_summary(row), "lines": [_line(line) for line in json.loads(row["lines"])]})


async def _draft(db: Database, found: Open) -> Invoice:
    rows = await db.fetch(
        "SELECT * FROM billing.statement($1, $2, $3)",
        found.org_id,
        found.after,
        2**63 - 1,
        timeout=_STATEMENT_TIMEOUT_S,
    )
    return Invoice(
        id=DRAFT,
        number=None,
        state=InvoiceState.DRAFT,
        month=found.month,
        time_zone=found.time_zone,
        ends_at=found.ends_at,
        opening_balance=format_usd(found.closed_nano_usd),
        closing_balance=format_usd(NanoUsd(found.closed_nano_usd + _sum(rows))),
        closed_at=None,
        lines=[_line({**row, "meters": row["meters"] and json.loads(row["meters"])}) for row in rows],
    )


def _sum(rows: Sequence[asyncpg.Record]) -> int:
    return sum(row["amount_nano_usd"] for row in rows)


def _summary(row: asyncpg.Record) -> dict[str, object]:
    return {
        **row,
        "id": row["invoice_id"],
        "state": InvoiceState.CLOSED,
        "opening_balance": format_usd(row["opening_nano_usd"]),
        "closing_balance": format_usd(row["closing_nano_usd"]),
    }


def _line(row: Mapping[str, Any]) -> InvoiceLine:
    return InvoiceLine.model_validate({**row, "amount": format_usd(row["amount_nano_usd"])})
