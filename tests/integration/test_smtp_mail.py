"""Mails by SMTP, to a real server on loopback that does what a test wants of it."""

import asyncio
import secrets
import ssl
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from control_plane.accounts.mail import Mail, Relay, Tls
from control_plane.accounts.smtp_mail import SmtpMailSender
from gateway_core.clock import utc_now
from tests.support.logs import QUIET
from tests.support.mail_server import MailServer, mail_server

MAIL = Mail("ada@example.com", "Verify your e-mail address", f"https://gateway.test/verify?token={'t' * 120}")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, with its key."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail server of a test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(utc_now() - timedelta(hours=1))
        .not_valid_after(utc_now() + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    path = tmp_path_factory.mktemp("smtp") / "certificate.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + made.public_bytes(Encoding.PEM))
    return path


@dataclass
class Sending:
    """A sender at work, and its counts."""

    sender: SmtpMailSender
    registry: CollectorRegistry

    def count(self, outcome: str) -> float | None:
        return self.registry.get_sample_value("tollgate_control_plane_mails_total", {"outcome": outcome})


def sending(server: MailServer, tls: Tls, certificate: Path, *, password: str | None = None, **limits: Any) -> Sending:
    registry = CollectorRegistry()
    relay = Relay(
        host="127.0.0.1",
        port=server.port,
        tls=tls,
        username=None if password is None else "tollgate",
        password=None if password is None else SecretStr(password),
        sender="gateway@example.com",
    )
    context = ssl.create_default_context(cafile=certificate)
    limits.setdefault("retry_after_s", 0.01)
    sender = SmtpMailSender(relay, context, registry, QUIET, now=utc_now, random_bytes=secrets.token_bytes, **limits)
    return Sending(sender, registry)


@pytest.mark.parametrize("tls", list(Tls))
async def test_a_mail_arrives_with_its_link_whole_and_encrypted_as_is_set(tls: Tls, certificate: Path) -> None:
    async with mail_server(tls, certificate) as server:
        sending_ = sending(server, tls, certificate)
        async with sending_.sender.delivering():
            await sending_.sender.send(MAIL)
    [mail] = server.mails
    assert (mail["From"], mail["To"], mail["Subject"]) == ("gateway@example.com", MAIL.to, MAIL.subject)
    assert mail["Message-ID"].endswith("@example.com>")
    assert mail["Date"] is not None
    assert MAIL.link in mail.as_string().splitlines()
    assert server.encrypted == [tls is not Tls.NONE]
    assert sending_.count("sent") == 1


@pytest.mark.parametrize(("password", "arrives"), [("mail secret", True), ("wrong", False), (None, False)])
async def test_a_server_that_asks_for_a_password_gets_it(
    password: str | None, arrives: bool, certificate: Path
) -> None:
    async with mail_server(Tls.STARTTLS, certificate, with_password=True) as server:
        sending_ = sending(server, Tls.STARTTLS, certificate, password=password)
        async with sending_.sender.delivering():
            await sending_.sender.send(MAIL)
    assert len(server.mails) == arrives
    assert sending_.count("sent" if arrives else "refused") == 1


async def test_a_server_without_encryption_gets_no_mail_where_encryption_is_set(certificate: Path) -> None:
    async with mail_server(Tls.NONE, certificate) as server:
        sending_ = sending(server, Tls.STARTTLS, certificate)
        async with sending_.sender.delivering():
            await sending_.sender.send(MAIL)
    assert server.mails == []
    assert sending_.count("failed") == 1


async def test_a_certificate_nobody_vouches_for_gets_no_mail(certificate: Path) -> None:
    async with mail_server(Tls.TLS, certificate) as server:
        sending_ = sending(server, Tls.TLS, certificate)
        sending_.sender._tls_context = ssl.create_default_context()
        async with sending_.sender.delivering():
            await sending_.sender.send(MAIL)
    assert server.mails == []
    assert sending_.count("failed") == 1


async def test_what_fails_for_a_moment_is_sent_again_as_the_same_mail(certificate: Path) -> None:
    async with mail_server(Tls.NONE, certificate) as server:
        server.answers = ["451 later", "451 later"]
        sending_ = sending(server, Tls.NONE, certificate)
        async with sending_.sender.delivering():
            await sending_.sender.send(MAIL)
    assert server.asked == 3
    assert len(server.mails) == 1
    assert (sending_.count("sent"), sending_.count("failed")) == (1, 0)


async def test_a_mail_the_server_refuses_for_good_is_not_sent_again_and_the_next_one_is_sent(certificate: Path) -> None:
    async with mail_server(Tls.NONE, certificate) as server:
        server.answers = ["554 spam"]
        sending_ = sending(server, Tls.NONE, certificate)
        async with sending_.sender.delivering():
            await sending_.sender.send(MAIL)
            await sending_.sender.send(MAIL)
    assert server.asked == 2
    assert (sending_.count("refused"), sending_.count("sent")) == (1, 1)


async def test_a_slow_server_holds_nobody_up_and_what_the_outbox_cannot_hold_is_dropped(certificate: Path) -> None:
    async with mail_server(Tls.NONE, certificate) as server:
        server.pause_s = 0.2
        sending_ = sending(server, Tls.NONE, certificate, outbox_max=3)
        async with sending_.sender.delivering():
            async with asyncio.timeout(0.1):
                for _ in range(10):
                    await sending_.sender.send(MAIL)
            assert sending_.registry.get_sample_value("tollgate_control_plane_mails_waiting") == 3
    assert sending_.count("dropped") == 7
    assert sending_.count("sent") == 3


async def test_a_server_that_does_not_answer_is_given_up(certificate: Path) -> None:
    async with mail_server(Tls.NONE, certificate) as server:
        server.pause_s = 30
        sending_ = sending(server, Tls.NONE, certificate, attempt_s=0.1)
        async with sending_.sender.delivering():
            await sending_.sender.send(MAIL)
    assert server.asked == 3
    assert sending_.count("failed") == 1


async def test_what_the_end_of_the_process_leaves_unsent_is_counted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.accounts.smtp_mail.DRAIN_S", 0.1)
    async with mail_server(Tls.NONE, certificate) as server:
        server.pause_s = 30
        sending_ = sending(server, Tls.NONE, certificate)
        async with sending_.sender.delivering():
            for _ in range(3):
                await sending_.sender.send(MAIL)
            await asyncio.sleep(0.05)
    assert sending_.count("failed") == 3


def test_neither_the_link_nor_the_password_shows_in_a_repr() -> None:
    relay = Relay("mail.test", 587, Tls.STARTTLS, "tollgate", SecretStr("mail secret"), "gateway@example.com")
    assert "mail secret" not in repr(relay)
    assert "token" not in repr(MAIL)
