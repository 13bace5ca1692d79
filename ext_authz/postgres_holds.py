"""Holds in Postgres, placed by the functions of schema `billing`, which billing_sink owns."""

from datetime import timedelta

import asyncpg

from gateway_core.clock import Now
from gateway_core.ids import KeyId, OrgId, RequestId
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd


class PostgresHolds:
    """One hold per request."""

    def __init__(self, pool: asyncpg.Pool, now: Now) -> None:
        self._pool = pool
        self._now = now

    async def place(
        self, request_id: RequestId, *, org_id: OrgId, key_id: KeyId, mode: Mode, amount: NanoUsd, ttl: timedelta
    ) -> bool:
        """Hold an amount for a request; False if the balance of that mode does not cover it."""
        held: bool = await self._pool.fetchval(
            "SELECT billing.place_hold($1, $2, $3, $4, $5, $6)",
            request_id,
            org_id,
            key_id,
            amount,
            self._now() + ttl,
            mode,
        )
        return held
