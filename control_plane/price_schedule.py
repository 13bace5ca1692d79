"""Publishes price versions when they are due. Every control plane does; the catalogue's lock lets one at a time."""

import asyncio
from typing import Final

import asyncpg

from control_plane.accounts.postgres_audit import write_entry
from control_plane.catalog.postgres_operations import add_operation
from control_plane.catalog.postgres_prices import append_price, find_price
from control_plane.catalog.postgres_scheduled_prices import is_any_due, take_due
from control_plane.catalog.resources import Operation
from gateway_core.clock import Now
from gateway_core.ids import RandomBytes, new_id
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble

POLL_S: Final = 1.0
_ACTION: Final = "price.publish"


class PriceSchedule:
    """Looks once a second. No control plane runs, or Postgres is gone: what is due waits, and the old price holds."""

    def __init__(self, pool: asyncpg.Pool, now: Now, random_bytes: RandomBytes, log: Logger) -> None:
        self._pool = pool
        self._now = now
        self._random_bytes = random_bytes
        self._log = log

    async def run(self) -> None:
        """Publish for ever."""
        while True:
            try:
                while published := await self.publish_next():
                    self._log.info("scheduled_price_published", target=published.target, revision=published.revision)
            except Trouble as error:
                self._log.warning("price_schedule_unavailable", error=type(error).__name__)
            await asyncio.sleep(POLL_S)

    async def publish_next(self) -> Operation | None:
        """Publish the version that has been due longest, in the name of who scheduled it; None if none is due.

        One per revision, in the order in which they were to hold: of two that are due, the later one is in force afterwards.

        Raises:
            asyncpg.PostgresError, OSError: it stays scheduled.
        """
        now = self._now()
        if not await is_any_due(self._pool, now):
            return None
        async with self._pool.acquire() as db, db.transaction():
            due = await take_due(db, now)
            if due is None:
                return None
            before = await find_price(db, due.model, due.provider)
            after = await append_price(db, due.model, due.provider, due.price_rows)
            await write_entry(
                db,
                actor=due.actor,
                org_id=None,
                action=_ACTION,
                target_id=due.schedule_id,
                before=before,
                after=after,
                request_id=due.request_id,
            )
            return await add_operation(
                db,
                operation_id=new_id("op", self._random_bytes),
                action=_ACTION,
                target=f"{due.model} at {due.provider}",
                actor=due.actor,
            )
