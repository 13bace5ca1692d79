"""Judges providers, again and again. Every control plane does; who has the lock of the states does it for all, and all serve the same."""

import asyncio
from datetime import timedelta
from typing import Final

import asyncpg

from control_plane.catalog.postgres_states import read_states, try_lock_states, write_states
from control_plane.catalog.provider_state import ProviderState, Subject
from control_plane.database import Connection
from control_plane.health.judgement import judge
from control_plane.health.postgres_evidence import read_evidence
from gateway_core.clock import Now
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble

POLL_S: Final = 1.0
"""Also when nobody says that there is anything new: what ends by time ends within a second."""
PAUSE_S: Final = 0.1
"""Between two looks: while everything fails, batches of it are announced one after the other."""


class HealthWatch:
    """Looks when something has failed, and once a second.

    No control plane runs, or Postgres is gone: providers stay what they are.

    Attributes:
        news: set by whoever hears that there is something to be seen.
    """

    def __init__(self, pool: asyncpg.Pool, now: Now, log: Logger, *, out_for: timedelta) -> None:
        self._pool = pool
        self._now = now
        self._log = log
        self._out_for = out_for
        self.news = asyncio.Event()

    async def run(self) -> None:
        """Judge for ever."""
        while True:
            self.news.clear()
            try:
                for subject, state in (await self.look()).items():
                    self._log.info(
                        "provider_state",
                        provider=subject.provider,
                        upstream_model=subject.upstream_model,
                        state=str(state),
                    )
            except Trouble as error:
                self._log.warning("provider_health_unavailable", error=type(error).__name__)
            await asyncio.sleep(PAUSE_S)
            try:
                await asyncio.wait_for(self.news.wait(), POLL_S)
            except TimeoutError:
                continue

    async def look(self) -> dict[Subject, ProviderState]:
        """Judge once; what has changed. Nothing if another control plane is about it.

        Raises:
            asyncpg.PostgresError, OSError: nothing has changed.
        """
        async with self._pool.acquire() as db, db.transaction():
            if not await try_lock_states(db):
                return {}
            states = await read_states(db)
            now = self._now()
            changed = judge(states, await read_evidence(db, states, now), now, out_for=self._out_for)
            known = await _known(db, changed)
            changed = {subject: state for subject, state in changed.items() if subject.provider in known}
            await write_states(db, changed)
        return changed


async def _known(db: Connection, changed: dict[Subject, ProviderState]) -> set[str]:
    """Providers that are still in the catalogue, kept until the transaction ends."""
    rows = await db.fetch(
        "SELECT name FROM catalog.providers WHERE name = ANY($1) FOR KEY SHARE", [each.provider for each in changed]
    )
    return {row["name"] for row in rows}
