"""A real SMTP server on a port of loopback, which does what a test wants of it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as policy
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from control_plane.accounts.mail import Tls


@dataclass
class MailServer:
    """What it has received, and how it is to answer.

    Attributes:
        answers: to the next mails, one each; after them it takes all.
        pause_s: how long it thinks about each mail.
    """

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    pause_s: float = 0.0
    asked: int = 0

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        self.asked += 1
        await asyncio.sleep(self.pause_s)
        answer = self.answers.pop(0) if self.answers else "250 taken"
        if answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            self.mails.append(message_from_bytes(envelope.content, policy=policy))
            assert server.transport is not None
            self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return answer


def authenticate(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=data == LoginPassword(b"tollgate", b"mail secret"), handled=False)


@asynccontextmanager
async def mail_server(
    tls: Tls = Tls.NONE, certificate: Path | None = None, *, with_password: bool = False
) -> AsyncIterator[MailServer]:
    """One until the block ends; with TLS it needs a certificate and its key in one file."""
    server = MailServer()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if certificate is not None:
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()

    def connection() -> SMTP:
        return SMTP(
            server,
            hostname="mail.test",
            tls_context=context if tls is Tls.STARTTLS else None,
            require_starttls=tls is Tls.STARTTLS,
            authenticator=authenticate,
            auth_required=with_password,
            auth_require_tls=tls is Tls.STARTTLS,
            loop=loop,
        )

    listening = await loop.create_server(connection, "127.0.0.1", 0, ssl=context if tls is Tls.TLS else None)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
