"""Who is signed in to the console, in Postgres: what a browser holds is a secret, and only its keyed hash is here."""

from datetime import datetime

from control_plane.accounts.postgres_sessions import Session
from control_plane.database import Database
from gateway_core.api_keys import KeyHash


async def open_console_session(
    db: Database, cookie_hash: KeyHash, credential: Session | KeyHash, expires_at: datetime
) -> None:
    """Begin one for whoever has shown a session or a machine token."""
    session_id, token_hash = (credential.session_id, None) if isinstance(credential, Session) else (None, credential)
    await db.execute(
        "INSERT INTO accounts.console_sessions (cookie_hash, session_id, token_hash, expires_at) VALUES ($1, $2, $3, $4)",
        cookie_hash,
        session_id,
        token_hash,
        expires_at,
    )


async def find_console_session(db: Database, cookie_hash: KeyHash, now: datetime) -> Session | KeyHash | None:
    """What it was opened with, which may be over meanwhile; None if it is itself."""
    row = await db.fetchrow(
        """
        SELECT c.session_id, s.user_id, c.token_hash
        FROM accounts.console_sessions c LEFT JOIN accounts.sessions s USING (session_id)
        WHERE c.cookie_hash = $1 AND c.expires_at > $2
        """,
        cookie_hash,
        now,
    )
    if row is None:
        return None
    return KeyHash(row["token_hash"]) if row["session_id"] is None else Session(row["session_id"], row["user_id"])


async def end_console_session(db: Database, cookie_hash: KeyHash) -> None:
    """End one."""
    await db.execute("DELETE FROM accounts.console_sessions WHERE cookie_hash = $1", cookie_hash)


async def forget_old_console_sessions(db: Database, now: datetime) -> None:
    """Remove what is over."""
    await db.execute("DELETE FROM accounts.console_sessions WHERE expires_at <= $1", now)
