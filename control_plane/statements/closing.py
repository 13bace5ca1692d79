"""Closes the invoices of months that are over. Every control plane looks; Postgres closes each once."""

import asyncio
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from control_plane.statements import postgres_invoices
from control_plane.statements.postgres_invoices import Open
from control_plane.webhooks.model import EventType
from control_plane.webhooks.postgres_events import emit
from gateway_core.clock import Now
from gateway_core.ids import RandomBytes, new_id
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble

POLL_S: Final = 60.0
GRACE: Final = timedelta(hours=1)
"""After the end of a month: requests that were running then end in it, most of them. The rest is on the next invoice."""


class InvoiceClosing:
    """Looks once a minute. No control plane runs, or Postgres is gone: months are closed later, and hold what they would have held."""

    def __init__(self, pool: asyncpg.Pool, now: Now, random_bytes: RandomBytes, log: Logger) -> None:
        self._pool = pool
        self._now = now
        self._random_bytes = random_bytes
        self._log = log

    async def run(self) -> None:
        """Close for ever."""
        while True:
            try:
                while await self.look():
                    pass  # of an organisation with several months due, one is closed by each look
            except Trouble as error:
                self._log.warning("invoice_closing_unavailable", error=type(error).__name__)
            await asyncio.sleep(POLL_S)

    async def look(self) -> int:
        """Close the earliest month of each organisation that is due. How many were closed.

        Raises:
            asyncpg.PostgresError, OSError: the rest waits.
        """
        now = self._now()
        due = [
            each for each in await postgres_invoices.list_open(self._pool, before=now) if each.ends_at + GRACE <= now
        ]
        closed = 0
        for each in due:
            last = await postgres_invoices.last_transaction(self._pool, each)
            if last is not None and await self._close(each, last, now):
                closed += 1
        return closed

    async def _close(self, due: Open, last: int, now: datetime) -> bool:
        invoice_id = new_id("ivc", self._random_bytes)
        async with self._pool.acquire() as db, db.transaction():
            invoice = await postgres_invoices.close(db, due, last, invoice_id, now)
            if invoice is None:
                return False
            await emit(db, due.org_id, EventType.INVOICE_CLOSED, invoice)
        self._log.info("invoice_closed", org_id=due.org_id, month=str(due.month), invoice_id=invoice_id)
        return True
