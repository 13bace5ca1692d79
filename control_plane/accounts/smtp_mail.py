"""Mails by SMTP, from an outbox in memory: an answer never waits for a mail server.

A mail that finds the outbox full is dropped, one the server refuses for good or that fails three times is lost, and so is
what the end of the process finds unsent. All of that is counted and logged, and none of it is told to the caller: whoever
misses a mail asks for it again.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from enum import StrEnum
from typing import Final

from aiosmtplib import SMTP, SMTPException, SMTPRecipientsRefused, SMTPResponseException
from prometheus_client import CollectorRegistry, Counter, Gauge

from control_plane.accounts.mail import Mail, Relay, Tls
from gateway_core.clock import Now
from gateway_core.ids import RandomBytes, new_id
from gateway_core.logs import Logger

OUTBOX_MAX: Final = 1000
"""At a mail a second, what a mail server can be behind before mails are dropped: a quarter of an hour."""
ATTEMPTS: Final = 3
ATTEMPT_S: Final = 20.0
RETRY_AFTER_S: Final = 2.0
DRAIN_S: Final = 5.0
"""How long the end of the process waits for the outbox."""
_QUIT_S: Final = 1.0
_PERMANENT: Final = 500
_ENDED: Final = "the process has ended"
_POLICY: Final = SMTP_POLICY.clone(max_line_length=900)
"""A link is not broken in two, which quoted-printable would do with a long one."""


class Outcome(StrEnum):
    """What became of a mail."""

    SENT = "sent"
    REFUSED = "refused"
    FAILED = "failed"
    DROPPED = "dropped"


class SmtpMailSender:
    """Takes mails at once and delivers them one after the other."""

    def __init__(
        self,
        relay: Relay,
        tls_context: ssl.SSLContext,
        registry: CollectorRegistry,
        log: Logger,
        *,
        now: Now,
        random_bytes: RandomBytes,
        outbox_max: int = OUTBOX_MAX,
        attempt_s: float = ATTEMPT_S,
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        self._relay = relay
        self._tls_context = tls_context
        self._log = log
        self._now = now
        self._random_bytes = random_bytes
        self._attempt_s = attempt_s
        self._retry_after_s = retry_after_s
        self._outbox: asyncio.Queue[Mail] = asyncio.Queue(outbox_max)
        self._mails = Counter(
            "tollgate_control_plane_mails_total", "Mails, by what became of them", ["outcome"], registry=registry
        )
        for outcome in Outcome:
            self._mails.labels(outcome)
        waiting = Gauge("tollgate_control_plane_mails_waiting", "Mails in the outbox", registry=registry)
        waiting.set_function(self._outbox.qsize)

    async def send(self, mail: Mail) -> None:
        """Put it into the outbox, or drop it if that is full."""
        try:
            self._outbox.put_nowait(mail)
        except asyncio.QueueFull:
            self._note(Outcome.DROPPED, reason="the outbox is full")

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[None]:
        """Deliver while the block runs, and for a few seconds after it."""
        async with asyncio.TaskGroup() as group:
            delivery = group.create_task(self._deliver_all(), name="mail_outbox")
            try:
                yield
            finally:
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_S):
                        await self._outbox.join()
                delivery.cancel()
                while not self._outbox.empty():
                    self._outbox.get_nowait()
                    self._note(Outcome.FAILED, reason=_ENDED)

    async def _deliver_all(self) -> None:
        while True:
            mail = await self._outbox.get()
            try:
                await self._deliver(mail.to, self._message(mail))
            except asyncio.CancelledError:
                self._note(Outcome.FAILED, reason=_ENDED)
                raise
            self._outbox.task_done()

    async def _deliver(self, to: str, message: bytes) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._hand_over(to, message)
            except (SMTPException, OSError, ValueError) as error:
                if _is_final(error):
                    self._note(Outcome.REFUSED, reason=type(error).__name__)
                    return
                if attempt == ATTEMPTS:
                    self._note(Outcome.FAILED, reason=type(error).__name__)
                    return
                await asyncio.sleep(self._retry_after_s * attempt)
            else:
                self._mails.labels(Outcome.SENT).inc()
                return

    async def _hand_over(self, to: str, message: bytes) -> None:
        relay = self._relay
        connection = SMTP(
            hostname=relay.host,
            port=relay.port,
            use_tls=relay.tls is Tls.TLS,
            start_tls=relay.tls is Tls.STARTTLS,
            tls_context=None if relay.tls is Tls.NONE else self._tls_context,
            username=relay.username,
            password=None if relay.password is None else relay.password.get_secret_value(),
            # Its default asks the name service who we are, and waits.
            local_hostname=_domain(relay.sender),
            timeout=self._attempt_s,
        )
        try:
            async with asyncio.timeout(self._attempt_s):
                await connection.connect()
                await connection.sendmail(relay.sender, to, message)
            # The mail is theirs now. What goes wrong from here on is no reason to send it again.
            with suppress(SMTPException):
                await connection.quit(timeout=_QUIT_S)
        finally:
            # Not by `async with`: that would wait for an answer to QUIT, even when it is cancelled or out of time.
            connection.close()

    def _message(self, mail: Mail) -> bytes:
        """The mail as text. Made once: what is sent a second time has the same Message-ID."""
        message = EmailMessage(_POLICY)
        message["From"] = self._relay.sender
        message["To"] = mail.to
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(self._now())
        message["Message-ID"] = f"<{new_id('msg', self._random_bytes)}@{_domain(self._relay.sender)}>"
        # No automatic answer is of use to anybody (RFC 3834).
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(
            f"{mail.subject}: follow this link.\n\n{mail.link}\n\nIf you did not ask for this, ignore it.\n"
        )
        return message.as_bytes()

    def _note(self, outcome: Outcome, *, reason: str) -> None:
        # Neither the address nor the link: the log of a gateway that sends mails is not where they belong.
        self._mails.labels(outcome).inc()
        self._log.warning("mail_lost", outcome=outcome, reason=reason)


def _is_final(error: Exception) -> bool:
    """Whether the server will say the same of this mail the next time."""
    if isinstance(error, SMTPRecipientsRefused):
        return all(refused.code >= _PERMANENT for refused in error.recipients)
    return isinstance(error, SMTPResponseException) and error.code >= _PERMANENT


def _domain(address: str) -> str:
    return address.rpartition("@")[2]
