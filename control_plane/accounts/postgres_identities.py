"""Identities at issuers in Postgres, and the log-ins that are under way to one."""

from dataclasses import dataclass
from datetime import datetime

from control_plane.accounts.model import LinkedIdentity
from control_plane.database import Database, written
from gateway_core.api_keys import KeyHash


@dataclass(frozen=True, slots=True)
class LogIn:
    """A log-in that was begun.

    Attributes:
        issuer: its name in the settings.
        return_to: the path of ours where the browser goes with the answer.
    """

    issuer: str
    return_to: str


async def begin_log_in(
    db: Database, *, state_hash: KeyHash, secret_hash: KeyHash, log_in: LogIn, expires_at: datetime
) -> None:
    """Keep what a log-in will be known by when it comes back."""
    await db.execute(
        """
        INSERT INTO accounts.oidc_log_ins (state_hash, secret_hash, issuer, return_to, expires_at)
        VALUES ($1, $2, $3, $4, $5)
        """,
        state_hash,
        secret_hash,
        log_in.issuer,
        log_in.return_to,
        expires_at,
    )


async def find_log_in(db: Database, state_hash: KeyHash, now: datetime) -> LogIn | None:
    """The log-in of a state; None if it is unknown, used or too old."""
    row = await db.fetchrow(
        """
        SELECT issuer, return_to FROM accounts.oidc_log_ins
        WHERE state_hash = $1 AND used_at IS NULL AND expires_at > $2
        """,
        state_hash,
        now,
    )
    return None if row is None else LogIn(row["issuer"], row["return_to"])


async def use_log_in(db: Database, *, state_hash: KeyHash, secret_hash: KeyHash, now: datetime) -> LogIn | None:
    """The log-in of a state, this once; None if it is unknown, used, too old, or was begun with another secret."""
    row = await db.fetchrow(
        """
        UPDATE accounts.oidc_log_ins SET used_at = $3
        WHERE state_hash = $1 AND secret_hash = $2 AND used_at IS NULL AND expires_at > $3 RETURNING issuer, return_to
        """,
        state_hash,
        secret_hash,
        now,
    )
    return None if row is None else LogIn(row["issuer"], row["return_to"])


async def forget_old_log_ins(db: Database, now: datetime) -> None:
    """Remove those that are too old to come back."""
    await db.execute("DELETE FROM accounts.oidc_log_ins WHERE expires_at <= $1", now)


async def find_user_id(db: Database, issuer: str, subject: str) -> str | None:
    """The user a subject is linked to."""
    user_id: str | None = await db.fetchval(
        "SELECT user_id FROM accounts.identities WHERE issuer = $1 AND subject = $2", issuer, subject
    )
    return user_id


async def link_identity(db: Database, *, issuer: str, subject: str, user_id: str, email: str) -> LinkedIdentity:
    """Link a subject to a user, for good. Two at once: the second is refused by the primary key."""
    row = await db.fetchrow(
        """
        INSERT INTO accounts.identities (issuer, subject, user_id, email) VALUES ($1, $2, $3, $4)
        RETURNING issuer, subject, user_id, email, created_at
        """,
        issuer,
        subject,
        user_id,
        email,
    )
    return LinkedIdentity.model_validate({**written(row)})
