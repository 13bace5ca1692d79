"""Mails to users, and who sends them. The local stack writes them to its log, where the link is to be found."""

from dataclasses import dataclass
from typing import Protocol

from gateway_core.logs import Logger


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail. The link carries a secret and is hidden in `repr`."""

    to: str
    subject: str
    link: str

    def __repr__(self) -> str:
        return f"Mail({self.to!r}, {self.subject!r})"


class MailSender(Protocol):
    """Whoever carries mails."""

    async def send(self, mail: Mail) -> None:
        """Hand over one mail. Called after the commit; a mail that gets lost can be asked for again."""


class LogMailSender:
    """Shows each mail in the log, link included: for one's own machine."""

    def __init__(self, log: Logger) -> None:
        self._log = log

    async def send(self, mail: Mail) -> None:
        """Log it."""
        self._log.info("mail", to=mail.to, subject=mail.subject, link=mail.link)
