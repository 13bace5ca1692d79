"""Balances, credits and their history in the ledger, whose functions are the only way to change them."""

import asyncpg

from control_plane.accounts.actor import Actor
from control_plane.database import Database
from control_plane.payments.model import Balance, Transaction
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd, format_usd


async def find_balance(db: Database, org_id: str) -> Balance | None:
    """What an organisation has and owes."""
    row = await db.fetchrow(
        """
        SELECT b.posted_nano_usd, b.held_nano_usd, coalesce(-r.posted_nano_usd, 0) AS receivable_nano_usd
        FROM billing.accounts b LEFT JOIN billing.accounts r
            ON r.kind = 'receivable' AND r.org_id = b.org_id AND r.mode = b.mode
        WHERE b.kind = 'balance' AND b.org_id = $1 AND b.mode = $2
        """,
        org_id,
        Mode.LIVE,
    )
    if row is None:
        return None
    posted, held = row["posted_nano_usd"], row["held_nano_usd"]
    return Balance(
        posted=format_usd(posted),
        held=format_usd(held),
        available=format_usd(NanoUsd(posted - held)),
        receivable=format_usd(row["receivable_nano_usd"]),
    )


async def credit(db: Database, org_id: str, amount: NanoUsd, reason: str, actor: Actor) -> int | None:
    """Give, or take back. The transaction; None if there is not as much to take back, and then nothing has changed."""
    transaction_id: int | None = await db.fetchval(
        "SELECT billing.credit($1, $2, $3, $4, $5, $6)",
        org_id,
        amount,
        reason,
        Mode.LIVE,
        actor.kind,
        actor.actor_id,
    )
    return transaction_id


async def list_transactions(
    db: Database, org_id: str, *, before: int | None, limit: int
) -> list[tuple[int, Transaction]]:
    """What has changed the balance, or what the organisation owes; the latest first, each with its position."""
    # The newest of each account are enough: what is among the newest of both is among the newest of each it is in.
    rows = await db.fetch(
        """
        SELECT t.transaction_id AS id, t.kind, t.reason, coalesce(t.reference, t.request_id) AS reference,
               t.actor_kind, t.actor_id, t.created_at, moved.to_balance, moved.to_receivable
        FROM (
            SELECT e.transaction_id,
                   coalesce(sum(e.amount_nano_usd) FILTER (WHERE a.kind = 'balance'), 0)::bigint AS to_balance,
                   coalesce(-sum(e.amount_nano_usd) FILTER (WHERE a.kind = 'receivable'), 0)::bigint AS to_receivable
            FROM billing.accounts a CROSS JOIN LATERAL (
                SELECT transaction_id, amount_nano_usd FROM billing.entries
                WHERE account_id = a.account_id AND ($2::bigint IS NULL OR transaction_id < $2)
                ORDER BY transaction_id DESC LIMIT $3
            ) e
            WHERE a.kind IN ('balance', 'receivable') AND a.org_id = $1 AND a.mode = $4
            GROUP BY e.transaction_id ORDER BY e.transaction_id DESC LIMIT $3
        ) moved JOIN billing.transactions t USING (transaction_id)
        ORDER BY t.transaction_id DESC
        """,
        org_id,
        before,
        limit,
        Mode.LIVE,
    )
    return [(row["id"], _transaction(row)) for row in rows]


async def find_transaction(db: Database, org_id: str, transaction_id: int) -> Transaction:
    """One of an organisation's transactions, by its number."""
    [(_, transaction)] = await list_transactions(db, org_id, before=transaction_id + 1, limit=1)
    return transaction


def _transaction(row: asyncpg.Record) -> Transaction:
    return Transaction.model_validate(
        {
            **row,
            "amount": format_usd(row["to_balance"]),
            "receivable": format_usd(row["to_receivable"]),
        }
    )
