"""Holds and slices in Postgres, placed by the functions of schema `billing`, which billing_sink owns."""

from datetime import datetime, timedelta

import asyncpg

from ext_authz.slices import Payer
from gateway_core.api_keys import ApiKey
from gateway_core.budgets import AllHeld, Budget, Budgets, Exhausted
from gateway_core.clock import Now
from gateway_core.ids import RequestId, SliceId
from gateway_core.money import NanoUsd


class PostgresHolds:
    """One hold per request."""

    def __init__(self, pool: asyncpg.Pool, now: Now) -> None:
        self._pool = pool
        self._now = now

    async def place(
        self, request_id: RequestId, key: ApiKey, *, amount: NanoUsd, least: NanoUsd, ttl: timedelta
    ) -> NanoUsd | Exhausted | AllHeld | None:
        """Hold an amount for a request, or as much of it as the balance of the key's mode covers and its budgets allow.

        None if the balance covers less than the least; a budget that allows less than that is named.
        """
        expires_at = self._now() + ttl
        if key.budgets is not None:
            return await self._place_within(
                key.budgets, request_id, key, amount=amount, least=least, expires_at=expires_at
            )
        held: NanoUsd | None = await self._pool.fetchval(
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
        self,
        budgets: Budgets,
        request_id: RequestId,
        key: ApiKey,
        *,
        amount: NanoUsd,
        least: NanoUsd,
        expires_at: datetime,
    ) -> NanoUsd | Exhausted | AllHeld | None:
        [row] = await self._pool.fetch(
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


class PostgresSlices:
    """Slices of one process.

    Attributes:
        share_ppm: how much of what is free one slice is, in millionths.
        request_ttl: how long the longest request takes, and its line to arrive.
    """

    def __init__(self, pool: asyncpg.Pool, holder: str, *, share_ppm: int, request_ttl: timedelta, now: Now) -> None:
        self._pool = pool
        self._holder = holder
        self._share_ppm = share_ppm
        self._request_ttl = request_ttl
        self._now = now

    async def open(
        self, slice_id: SliceId, payer: Payer, *, amount_min: NanoUsd, spend_for: timedelta
    ) -> NanoUsd | None:
        """Set a slice aside; returns its size, or None if it would be smaller than that."""
        size: NanoUsd | None = await self._pool.fetchval(
            """
            SELECT billing.open_slice(
                p_slice_id => $1, p_org_id => $2, p_mode => $3, p_holder => $4, p_share_ppm => $5, p_amount_min => $6,
                p_expires_at => $7)
            """,
            *(slice_id, payer.org_id, payer.mode, self._holder, self._share_ppm, amount_min),
            self._now() + spend_for + self._request_ttl,
        )
        return size

    async def give_back(self, slice_id: SliceId, unspent: NanoUsd) -> None:
        """Give back what was not spent."""
        await self._pool.execute("SELECT billing.return_slice($1, $2)", slice_id, unspent)
