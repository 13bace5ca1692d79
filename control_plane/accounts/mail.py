"""Mails to users, and who sends them. Without a mail server they are written to the log, where the link is to be found."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from pydantic import SecretStr

from gateway_core.logs import Logger

_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){0,8}")
_ADDRESS_LENGTH_MAX: Final = 254


def is_mail_address(text: str) -> bool:
    """Whether mail can be sent there, as far as the form says."""
    return len(text) <= _ADDRESS_LENGTH_MAX and _ADDRESS.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail. The link carries a secret and is hidden in `repr`."""

    to: str
    subject: str
    link: str

    def __repr__(self) -> str:
        return f"Mail({self.to!r}, {self.subject!r})"


class Tls(StrEnum):
    """How the connection to the mail server is encrypted."""

    STARTTLS = "starttls"
    """From the first command on; a server that does not offer it gets no mail."""
    TLS = "tls"
    """From the first byte on."""
    NONE = "none"
    """Not at all: for a mail server on the same machine."""


@dataclass(frozen=True, slots=True)
class Relay:
    """The mail server that takes our mails, and as whom."""

    host: str
    port: int
    tls: Tls
    username: str | None
    password: SecretStr | None
    sender: str


class MailSender(Protocol):
    """Whoever carries mails."""

    async def send(self, mail: Mail) -> None:
        """Hand over one mail, without waiting for its delivery.

        Called after the commit; a mail that gets lost can be asked for again.
        """


class LogMailSender:
    """Shows each mail in the log, link included: for one's own machine."""

    def __init__(self, log: Logger) -> None:
        self._log = log

    async def send(self, mail: Mail) -> None:
        """Log it."""
        self._log.info("mail", to=mail.to, subject=mail.subject, link=mail.link)
