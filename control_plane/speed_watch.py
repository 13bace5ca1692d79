"""Follows how fast providers answer. Every control plane does; a row's lock lets one at a time."""

import asyncio
from typing import Final

import asyncpg

from control_plane.catalog.postgres_first_bytes import take_in
from gateway_core.clock import Now
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble

POLL_S: Final = 2.0


class SpeedWatch:
    """Looks every two seconds. No control plane runs, or Postgres is gone: the order that Envoy has stays."""

    def __init__(self, pool: asyncpg.Pool, now: Now, log: Logger) -> None:
        self._pool = pool
        self._now = now
        self._log = log

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                async with self._pool.acquire() as db, db.transaction():
                    changed = await take_in(db, self._now())
                if changed:
                    self._log.info("provider_speed_changed")
            except Trouble as error:
                self._log.warning("provider_speed_unknown", error=type(error).__name__)
            await asyncio.sleep(POLL_S)
