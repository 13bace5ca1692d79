"""What is done when a balance runs low: tell those who pay, and pay with what they have saved. Every control plane looks.

A top-up is written down before Stripe is asked, and asked for under its own id, so whoever dies in between is followed by
another who asks again and charges nothing twice. That it is paid, Stripe tells by webhook like of every other.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from control_plane.accounts.actor import Actor, ActorKind
from control_plane.accounts.mail import Mail, MailSender
from control_plane.accounts.postgres_audit import write_entry
from control_plane.accounts.postgres_orgs import billing_mail_addresses
from control_plane.database import written
from control_plane.errors import PaymentsUnavailableError
from control_plane.payments import postgres_settings
from control_plane.payments.model import TopUp
from control_plane.payments.postgres_settings import Due
from control_plane.payments.postgres_topups import find_topup
from control_plane.payments.stripe_payments import DeclinedError, StripePayments
from control_plane.webhooks.model import EventType
from control_plane.webhooks.postgres_events import emit
from gateway_core.clock import Now
from gateway_core.ids import RandomBytes, new_id
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble

POLL_S: Final = 2.0
ASK_AGAIN_AFTER: Final = timedelta(minutes=1)
GIVE_UP_AFTER: Final = timedelta(hours=20)
"""Before Stripe forgets that it has been asked, which is after a day."""
PAUSE: Final = timedelta(hours=24)

_ACTOR: Final = Actor(ActorKind.SYSTEM, "automatic_topup")
_LOW: Final = "Your balance is running low"
_FAILED: Final = "An automatic top-up has failed"
_UNANSWERED: Final = "unanswered"


class LowBalance:
    """Looks every two seconds. Postgres or Stripe gone: what is due waits."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        payments: StripePayments | None,
        mail: MailSender,
        public_url: str,
        now: Now,
        random_bytes: RandomBytes,
        log: Logger,
    ) -> None:
        self._pool = pool
        self._payments = payments
        self._mail = mail
        self._public_url = public_url
        self._now = now
        self._random_bytes = random_bytes
        self._log = log

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except Trouble as error:
                self._log.warning("low_balance_unavailable", error=type(error).__name__)
            await asyncio.sleep(POLL_S)

    async def look(self) -> None:
        """Tell and pay whatever is due now.

        Raises:
            asyncpg.PostgresError, OSError: the rest waits.
        """
        async with self._pool.acquire() as db, db.transaction():
            low = await postgres_settings.take_low_balances(db)
            for org_id, notice in low:
                await emit(db, org_id, EventType.BALANCE_LOW, notice)
        for org_id, _ in low:
            await self._tell(org_id, _LOW)
        if self._payments is None:
            return
        now = self._now()
        while await self._begin(now):
            pass
        while (due := await postgres_settings.take_due(self._pool, now, now - ASK_AGAIN_AFTER)) is not None:
            await self._ask(self._payments, due)

    async def _begin(self, now: datetime) -> bool:
        topup_id = new_id("top", self._random_bytes)
        async with self._pool.acquire() as db, db.transaction():
            org_id = await postgres_settings.begin_topup(db, topup_id, now)
            if org_id is None:
                return False
            await self._audit(db, "topup.create", org_id, topup_id)
            return True

    async def _ask(self, payments: StripePayments, due: Due) -> None:
        if due.created_at <= self._now() - GIVE_UP_AFTER:
            await self._fail(due, _UNANSWERED)
            return
        try:
            await payments.charge(due.topup_id, due.org_id, due.cents, due.method)
        except DeclinedError as error:
            await self._fail(due, str(error))
        except PaymentsUnavailableError:
            return  # it is not known whether it is paid: it is asked for again
        else:
            await postgres_settings.await_word(self._pool, due.topup_id)

    async def _fail(self, due: Due, failure: str) -> None:
        now = self._now()
        async with self._pool.acquire() as db, db.transaction():
            if not await postgres_settings.fail_topup(db, due.topup_id, failure, now=now, paused_until=now + PAUSE):
                return
            failed = await self._audit(db, "topup.fail", due.org_id, due.topup_id)
            await emit(db, due.org_id, EventType.TOPUP_FAILED, failed)
        self._log.warning("automatic_topup_failed", org_id=due.org_id, topup_id=due.topup_id, failure=failure)
        await self._tell(due.org_id, _FAILED)

    async def _audit(self, db: asyncpg.pool.PoolConnectionProxy, action: str, org_id: str, topup_id: str) -> TopUp:
        """Returns the top-up as it is now."""
        topup = written(await find_topup(db, org_id, topup_id))
        await write_entry(
            db,
            actor=_ACTOR,
            org_id=org_id,
            action=action,
            target_id=topup_id,
            before=None,
            after=topup,
            request_id=topup_id,
        )
        return topup

    async def _tell(self, org_id: str, subject: str) -> None:
        for address in await billing_mail_addresses(self._pool, org_id):
            await self._mail.send(Mail(address, subject, self._public_url))
