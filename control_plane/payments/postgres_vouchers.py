"""Vouchers in Postgres. A code is redeemed once by each organisation, and by no more of them than it is for."""

from datetime import datetime

import asyncpg

from control_plane.accounts.actor import Actor
from control_plane.database import Database, locked, written
from control_plane.errors import VoucherRefusedError
from control_plane.payments.model import NewVoucher, TransactionKind, Voucher
from gateway_core.api_keys import KeyHash
from gateway_core.money import format_usd, parse_usd


async def add_voucher(
    db: Database, *, voucher_id: str, code_hash: KeyHash, spec: NewVoucher, created_by: str
) -> Voucher:
    """Write down a new voucher."""
    row = await db.fetchrow(
        """
        INSERT INTO payments.vouchers (voucher_id, code_hash, amount_nano_usd, uses_max, expires_at, reason, created_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *
        """,
        voucher_id,
        code_hash,
        parse_usd(spec.amount),
        spec.uses,
        spec.expires_at,
        spec.reason,
        created_by,
    )
    return _voucher(written(row))


async def list_vouchers(db: Database, *, before: int | None, limit: int) -> list[tuple[int, Voucher]]:
    """All vouchers, the latest first, each with its position."""
    rows = await db.fetch(
        "SELECT * FROM payments.vouchers WHERE $1::bigint IS NULL OR seq < $1 ORDER BY seq DESC LIMIT $2",
        before,
        limit,
    )
    return [(row["seq"], _voucher(row)) for row in rows]


async def withdraw_voucher(db: Database, voucher_id: str) -> Voucher | None:
    """End a voucher. What was redeemed stays."""
    row = await db.fetchrow(
        """
        UPDATE payments.vouchers SET withdrawn_at = now() WHERE voucher_id = $1 AND withdrawn_at IS NULL RETURNING *
        """,
        voucher_id,
    )
    return None if row is None else _voucher(row)


async def redeem(db: Database, org_id: str, code_hash: KeyHash, *, now: datetime, actor: Actor) -> int:
    """Give an organisation what a code is worth. The transaction.

    Raises:
        VoucherRefusedError: it is worth nothing to this organisation now.
    """
    voucher = await db.fetchrow(
        f"SELECT * FROM payments.vouchers WHERE code_hash = $1 {locked()}",  # noqa: S608 - words of ours
        code_hash,
    )
    if voucher is None:
        raise VoucherRefusedError("no voucher has this code")
    if voucher["withdrawn_at"] is not None or (voucher["expires_at"] is not None and voucher["expires_at"] <= now):
        raise VoucherRefusedError("no longer valid")
    if await db.fetchval(
        "SELECT true FROM payments.redemptions WHERE voucher_id = $1 AND org_id = $2", voucher["voucher_id"], org_id
    ):
        raise VoucherRefusedError("redeemed by this organisation before")
    if voucher["uses"] == voucher["uses_max"]:
        raise VoucherRefusedError("used up")
    transaction_id: int = await db.fetchval(
        "SELECT billing.move_money($1, $2, 'funding', $3, $4, $5, $6, $7)",
        org_id,
        voucher["amount_nano_usd"],
        TransactionKind.VOUCHER,
        voucher["reason"],
        voucher["voucher_id"],
        actor.kind,
        actor.actor_id,
    )
    await db.execute("UPDATE payments.vouchers SET uses = uses + 1 WHERE voucher_id = $1", voucher["voucher_id"])
    await db.execute(
        "INSERT INTO payments.redemptions (voucher_id, org_id, transaction_id) VALUES ($1, $2, $3)",
        voucher["voucher_id"],
        org_id,
        transaction_id,
    )
    return transaction_id


def _voucher(row: asyncpg.Record) -> Voucher:
    return Voucher.model_validate(
        {**row, "id": row["voucher_id"], "amount": format_usd(row["amount_nano_usd"])},
    )
