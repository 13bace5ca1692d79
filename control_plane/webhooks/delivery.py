"""Carries events from the outbox to webhooks, at least once. Every control plane does; each attempt is made by one of them.

An attempt is claimed in a transaction, made without one, and recorded in another. Whoever dies in between leaves a claim that ends
after a minute; then another one makes the attempt again, with the same `webhook-id`.
"""

import asyncio
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Final

import aiohttp
import asyncpg
from prometheus_client import CollectorRegistry, Counter, Gauge
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter

from control_plane.accounts.actor import Actor, ActorKind
from control_plane.accounts.mail import Mail, MailSender
from control_plane.accounts.postgres_audit import write_entry
from control_plane.accounts.postgres_orgs import billing_mail_addresses
from control_plane.database import Connection
from control_plane.sealing import Seal, UnreadableSealError, webhook_secret
from control_plane.webhooks.model import DeliveryState, DisabledBecause, Fault, Webhook
from control_plane.webhooks.outgoing import ForbiddenAddressError
from control_plane.webhooks.postgres_deliveries import Due, Result, count_waiting, has_delivered_since, record, take_due
from control_plane.webhooks.postgres_webhooks import WebhookSettings, change_webhook, find_webhook
from control_plane.webhooks.retries import retry_after
from control_plane.webhooks.signature import signed_headers
from gateway_core.clock import Now
from gateway_core.ids import RandomBytes
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble

POLL_S: Final = 1.0
COUNT_S: Final = 15.0
ATTEMPTS_AT_ONCE: Final = 16
CLAIM: Final = timedelta(minutes=1)
"""Longer than an attempt can take, with what is written before and after it."""

_ACTOR: Final = Actor(ActorKind.SYSTEM, "webhooks")
_DISABLED: Final = "A webhook of yours has been disabled"
_OK: Final = range(200, 300)
_GONE: Final = 410
_FRACTION_BYTES: Final = 4
_DATA: Final = TypeAdapter(JsonValue)


class Outcome(StrEnum):
    """What became of an attempt."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    FAILED = "failed"
    """It was the last one, after three days or a 410."""


class Message(BaseModel):
    """What is sent."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    id: str
    type: str
    created_at: datetime
    org_id: str
    data: JsonValue


class WebhookDelivery:
    """Makes the attempts that are due. Postgres gone: they wait."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        http: aiohttp.ClientSession,
        seal: Seal,
        mail: MailSender,
        public_url: str,
        registry: CollectorRegistry,
        log: Logger,
        *,
        now: Now,
        random_bytes: RandomBytes,
    ) -> None:
        self._pool = pool
        self._http = http
        self._seal = seal
        self._mail = mail
        self._public_url = public_url
        self._log = log
        self._now = now
        self._random_bytes = random_bytes
        self._deliveries = Counter(
            "tollgate_control_plane_webhook_deliveries_total",
            "Attempts to tell a webhook something, by what became of them",
            ["outcome"],
            registry=registry,
        )
        for outcome in Outcome:
            self._deliveries.labels(outcome)
        self._waiting = Gauge(
            "tollgate_control_plane_webhook_deliveries_waiting",
            "Deliveries still to be made, of all control planes",
            registry=registry,
        )

    async def run(self) -> None:
        """Deliver for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._count(), name="webhook_count")
            under_way: set[asyncio.Task[None]] = set()
            while True:
                for due in await self.take(ATTEMPTS_AT_ONCE - len(under_way)):
                    under_way.add(group.create_task(self.attempt(due), name="webhook_attempt"))
                if under_way:
                    # One that hangs keeps its own place and no other.
                    _, under_way = await asyncio.wait(under_way, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(POLL_S)

    async def take(self, limit: int) -> list[Due]:
        """Claim attempts that are due, at most so many."""
        now = self._now()
        try:
            return await take_due(self._pool, now, claimed_until=now + CLAIM, limit=limit)
        except Trouble as error:
            self._log.warning("webhook_delivery_unavailable", error=type(error).__name__)
            return []

    async def attempt(self, due: Due) -> None:
        """Make an attempt and write down what it has come to."""
        answer = await self._post(due)
        try:
            outcome = await self._record(due, answer)
        except Trouble as error:
            self._log.warning("webhook_delivery_unavailable", error=type(error).__name__)
            return
        if outcome is not None:
            self._deliveries.labels(outcome).inc()
            self._log.info(
                "webhook_attempt",
                org_id=due.org_id,
                webhook_id=due.webhook_id,
                delivery_id=due.delivery_id,
                attempt=due.attempt,
                outcome=outcome,
                answer=answer,
            )

    async def _post(self, due: Due) -> int | Fault:
        """The status of the answer, or why there is none."""
        purpose = webhook_secret(due.webhook_id)
        try:
            secrets = [self._seal.open_secret(purpose, each) for each in due.sealed_secrets]
        except UnreadableSealError as error:
            self._log.error("webhook_secret_unreadable", error=str(error))
            return Fault.SECRET
        message = Message(
            id=due.event_id,
            type=due.event_type,
            created_at=due.event_at,
            org_id=due.org_id,
            data=_DATA.validate_json(due.data),
        )
        body = message.model_dump_json().encode()
        headers = signed_headers(secrets, due.event_id, self._now(), body)
        try:
            async with self._http.post(due.url, data=body, headers=headers, allow_redirects=False) as response:
                return response.status
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a name that cannot be asked for
            return _fault(error)

    async def _record(self, due: Due, answer: int | Fault) -> Outcome | None:
        """None if the attempt is nobody's any more."""
        now = self._now()
        status, fault = (answer, Fault.ANSWER) if isinstance(answer, int) else (None, answer)
        disabled, to_tell = None, list[str]()
        async with self._pool.acquire() as db, db.transaction():
            webhook = await find_webhook(db, due.org_id, due.webhook_id, lock=True)
            if webhook is None:
                return None
            if status in _OK:
                result = Result(DeliveryState.DELIVERED, status, None, None)
            elif status == _GONE or (wait := retry_after(now - due.first_attempt_at, self._fraction())) is None:
                result = Result(DeliveryState.FAILED, status, fault, None)
            else:
                result = Result(DeliveryState.WAITING, status, fault, now + wait)
            if not await record(db, due, result, now=now):
                return None
            if result.state is DeliveryState.FAILED:
                disabled = await self._judge(db, webhook, due, status)
            if disabled is not None:
                to_tell = await billing_mail_addresses(db, due.org_id)
        if disabled is not None:
            self._log.warning("webhook_disabled", org_id=due.org_id, webhook_id=due.webhook_id, because=disabled)
        for address in to_tell:
            await self._mail.send(Mail(address, _DISABLED, self._public_url))
        return _OUTCOME_BY_STATE[result.state]

    async def _judge(self, db: Connection, webhook: Webhook, due: Due, status: int | None) -> DisabledBecause | None:
        """Disable a webhook that is gone, or has taken nothing as long as this delivery was tried."""
        if status == _GONE:
            because = DisabledBecause.GONE
        elif await has_delivered_since(db, webhook.id, due.first_attempt_at):
            return None
        else:
            because = DisabledBecause.FAILING
        settings = WebhookSettings(webhook.url, webhook.event_types, enabled=False)
        after = await change_webhook(db, webhook.id, settings, now=self._now(), disabled_because=because)
        await write_entry(
            db,
            actor=_ACTOR,
            org_id=due.org_id,
            action="webhook.disable",
            target_id=webhook.id,
            before=webhook,
            after=after,
            request_id=due.delivery_id,
        )
        return because

    async def _count(self) -> None:
        while True:
            try:
                self._waiting.set(await count_waiting(self._pool))
            except Trouble as error:
                self._log.warning("webhook_delivery_unavailable", error=type(error).__name__)
            await asyncio.sleep(COUNT_S)

    def _fraction(self) -> float:
        return int.from_bytes(self._random_bytes(_FRACTION_BYTES)) / (1 << 8 * _FRACTION_BYTES)


_OUTCOME_BY_STATE: Final = {
    DeliveryState.DELIVERED: Outcome.DELIVERED,
    DeliveryState.WAITING: Outcome.RETRIED,
    DeliveryState.FAILED: Outcome.FAILED,
}


def _fault(error: Exception) -> Fault:
    if isinstance(error, TimeoutError):
        return Fault.TIMEOUT
    if isinstance(error, aiohttp.ClientSSLError):
        return Fault.TLS
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ForbiddenAddressError):
        return Fault.ADDRESS
    return Fault.CONNECTION
