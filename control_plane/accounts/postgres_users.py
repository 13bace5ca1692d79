"""Users in Postgres, and the tokens that are mailed to them."""

from datetime import datetime
from typing import Final

from control_plane.accounts.model import User
from control_plane.accounts.postgres_makers import (
    disable_keys,
    end_tokens,
    take_back_invitations,
    with_what_they_made,
)
from control_plane.database import Database, locked, written
from gateway_core.api_keys import KeyHash

_COLUMNS: Final = "user_id AS id, email, name, email_verified_at, is_operator, created_at, revision"


async def add_user(
    db: Database, *, user_id: str, email: str, name: str, password_hash: str | None, verified_at: datetime | None = None
) -> User | None:
    """Write a new user; None if the address has one. Without a password they log in at an issuer."""
    row = await db.fetchrow(
        f"""
        INSERT INTO accounts.users (user_id, email, name, password_hash, email_verified_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT DO NOTHING RETURNING {_COLUMNS}
        """,  # noqa: S608 - a list of columns of ours
        user_id,
        email,
        name,
        password_hash,
        verified_at,
    )
    return None if row is None else User.model_validate({**row})


async def find_user(db: Database, user_id: str, *, lock: bool = False) -> User | None:
    """A user by id. Locked, it stays as it is until the end of the transaction."""
    row = await db.fetchrow(
        f"SELECT {_COLUMNS} FROM accounts.users WHERE user_id = $1 AND disabled_at IS NULL {locked('') if lock else ''}",  # noqa: S608 - a list of columns of ours
        user_id,
    )
    return None if row is None else User.model_validate({**row})


async def find_user_by_email(db: Database, email: str, *, lock: bool = False) -> User | None:
    """A user by address, however it is spelt. Locked, it stays as it is until the end of the transaction."""
    row = await db.fetchrow(
        f"""
        SELECT {_COLUMNS} FROM accounts.users
        WHERE lower(email) = lower($1) AND disabled_at IS NULL {locked("") if lock else ""}
        """,  # noqa: S608 - a list of columns of ours
        email,
    )
    return None if row is None else User.model_validate({**row})


async def password_hash(db: Database, user_id: str, *, lock: bool = False) -> str | None:
    """The stored hash of a user's password; None if they have none. Locked, it stays until the transaction ends."""
    stored: str | None = await db.fetchval(
        f"SELECT password_hash FROM accounts.users WHERE user_id = $1 {locked('') if lock else ''}",  # noqa: S608 - no text but ours
        user_id,
    )
    return stored


async def set_password(db: Database, user_id: str, hashed: str) -> None:
    """Put another hash in its place."""
    await db.execute(
        "UPDATE accounts.users SET password_hash = $2, revision = revision + 1 WHERE user_id = $1", user_id, hashed
    )


async def void_resets(db: Database, user_id: str, now: datetime) -> None:
    """Void what was mailed to reset a password that has been changed since."""
    await db.execute(
        """
        UPDATE accounts.mail_tokens SET used_at = $2
        WHERE user_id = $1 AND purpose = 'reset_password' AND used_at IS NULL
        """,
        user_id,
        now,
    )


async def void_credentials(db: Database, user_id: str, now: datetime) -> None:
    """Void whatever may open a user's account, or act for them: nobody knows who chose it.

    The password and the links in mails are gone. The machine tokens they have made end, and the keys are disabled, which
    can be undone; the invitations are taken back. The same for what those tokens have made.
    """
    await db.execute(
        "UPDATE accounts.users SET password_hash = NULL, revision = revision + 1 WHERE user_id = $1", user_id
    )
    await db.execute(
        "UPDATE accounts.mail_tokens SET used_at = $2 WHERE user_id = $1 AND used_at IS NULL", user_id, now
    )
    makers = await with_what_they_made(db, [user_id])
    await disable_keys(db, makers, now)
    await end_tokens(db, makers, now)
    await take_back_invitations(db, makers, now)


async def rename_user(db: Database, user_id: str, name: str) -> User:
    """Change the name."""
    row = await db.fetchrow(
        f"UPDATE accounts.users SET name = $2, revision = revision + 1 WHERE user_id = $1 RETURNING {_COLUMNS}",  # noqa: S608 - a list of columns of ours
        user_id,
        name,
    )
    return User.model_validate({**written(row)})


async def verify_email(db: Database, user_id: str, now: datetime) -> None:
    """Note that the user reads this mailbox."""
    await db.execute(
        """
        UPDATE accounts.users SET email_verified_at = $2, revision = revision + 1
        WHERE user_id = $1 AND email_verified_at IS NULL
        """,
        user_id,
        now,
    )


async def add_mail_token(
    db: Database, *, token_hash: KeyHash, user_id: str, purpose: str, expires_at: datetime
) -> None:
    """Keep what a mailed link will be known by. Earlier ones for the same purpose end."""
    await db.execute(
        "UPDATE accounts.mail_tokens SET used_at = now() WHERE user_id = $1 AND purpose = $2 AND used_at IS NULL",
        user_id,
        purpose,
    )
    await db.execute(
        "INSERT INTO accounts.mail_tokens (token_hash, user_id, purpose, expires_at) VALUES ($1, $2, $3, $4)",
        token_hash,
        user_id,
        purpose,
        expires_at,
    )


async def use_mail_token(db: Database, token_hash: KeyHash, purpose: str, now: datetime) -> str | None:
    """The user a mailed token is for, this once; None if it is unknown, used or too old."""
    user_id: str | None = await db.fetchval(
        """
        UPDATE accounts.mail_tokens SET used_at = $3
        WHERE token_hash = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > $3 RETURNING user_id
        """,
        token_hash,
        purpose,
        now,
    )
    return user_id
