"""A hold in Postgres, placed by the functions of schema `billing`, which billing_sink owns."""

from datetime import datetime

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from gateway_core.api_keys import ApiKey
from gateway_core.budgets import AllHeld, Budget, Budgets, Exhausted
from gateway_core.ids import RequestId
from gateway_core.money import NanoUsd

Held = NanoUsd | Exhausted | AllHeld | None
"""What is held. None if the balance covers less than the least; a budget that allows less than that is named."""


async def place_hold(
    connection: asyncpg.Pool | PoolConnectionProxy,
    request_id: RequestId,
    key: ApiKey,
    *,
    amount: NanoUsd,
    least: NanoUsd,
    expires_at: datetime,
) -> Held:
    """Hold an amount for a request, or as much of it as the balance of the key's mode covers and its budgets allow, but the least."""
    if key.budgets is not None:
        return await _place_within(
            connection, key.budgets, request_id, key, amount=amount, least=least, expires_at=expires_at
        )
    held: NanoUsd | None = await connection.fetchval(
        """
        SELECT billing.place_hold(
            p_request_id => $1, p_org_id => $2, p_project_id => $3, p_key_id => $4, p_mode => $5,
            p_amount_nano_usd => $6, p_least_nano_usd => $7, p_expires_at => $8)
        """,
        *(request_id, key.org_id, key.project_id, key.key_id, key.mode),
        *(amount, least, expires_at),
    )
    return held


async def _place_within(
    connection: asyncpg.Pool | PoolConnectionProxy,
    budgets: Budgets,
    request_id: RequestId,
    key: ApiKey,
    *,
    amount: NanoUsd,
    least: NanoUsd,
    expires_at: datetime,
) -> Held:
    [row] = await connection.fetch(
        """
        SELECT * FROM billing.place_hold_within_budgets(
            p_request_id => $1, p_org_id => $2, p_project_id => $3, p_key_id => $4, p_mode => $5,
            p_amount_nano_usd => $6, p_least_nano_usd => $7, p_expires_at => $8, p_time_zone => $9,
            p_key_per_day => $10, p_key_per_month => $11, p_project_per_day => $12, p_project_per_month => $13)
        """,
        *(request_id, key.org_id, key.project_id, key.key_id, key.mode),
        *(amount, least, expires_at, budgets.time_zone),
        *(budgets.key_per_day_nano_usd, budgets.key_per_month_nano_usd),
        *(budgets.project_per_day_nano_usd, budgets.project_per_month_nano_usd),
    )
    if row["budget"] is not None:
        budget = Budget(row["budget"])
        return AllHeld(budget) if row["renews_at"] is None else Exhausted(budget, row["renews_at"])
    held: NanoUsd | None = row["held_nano_usd"]
    return held
