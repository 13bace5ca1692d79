"""Holds and slices in Postgres, placed by the functions of schema `billing`, which billing_sink owns."""

from datetime import timedelta

import asyncpg

from ext_authz.slices import Payer
from gateway_core.api_keys import ApiKey
from gateway_core.clock import Now
from gateway_core.ids import RequestId, SliceId
from gateway_core.money import NanoUsd
from gateway_core.postgres_holds import Held, place_hold


class PostgresHolds:
    """One hold per request."""

    def __init__(self, pool: asyncpg.Pool, now: Now) -> None:
        self._pool = pool
        self._now = now

    async def place(
        self, request_id: RequestId, key: ApiKey, *, amount: NanoUsd, least: NanoUsd, ttl: timedelta
    ) -> Held:
        """Hold an amount for a request, or as much of it as may be, but the least."""
        return await place_hold(self._pool, request_id, key, amount=amount, least=least, expires_at=self._now() + ttl)


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
