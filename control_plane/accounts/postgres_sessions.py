"""Sessions in Postgres: a user's sign-in, as a family of refresh tokens that are each good for one use."""

from dataclasses import dataclass
from datetime import datetime

from control_plane.accounts.actor import Actor, ActorKind
from control_plane.database import Connection, Database, Hold
from control_plane.errors import StolenSessionError, UnauthenticatedError
from gateway_core.api_keys import KeyHash


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in."""

    session_id: str
    user_id: str


async def find_actor(db: Database, session: Session, *, hold: Hold = Hold.NONE) -> Actor | None:
    """The user of a session that is neither over nor too old, or None. Held, it does not end before the transaction."""
    row = await db.fetchrow(
        f"""
        SELECT u.is_operator FROM accounts.sessions s JOIN accounts.users u USING (user_id)
        WHERE s.session_id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND u.disabled_at IS NULL
        {hold.of("s")}
        """,  # noqa: S608 - words of ours
        session.session_id,
        session.user_id,
    )
    if row is None:
        return None
    return Actor(ActorKind.USER, session.user_id, is_operator=bool(row["is_operator"]), session_id=session.session_id)


async def open_session(db: Database, session: Session, token_hash: KeyHash, expires_at: datetime) -> None:
    """Begin a session with its first refresh token."""
    await db.execute(
        "INSERT INTO accounts.sessions (session_id, user_id, expires_at) VALUES ($1, $2, $3)",
        session.session_id,
        session.user_id,
        expires_at,
    )
    await _add_token(db, session.session_id, token_hash)


async def exchange(connection: Connection, old: KeyHash, new: KeyHash, now: datetime) -> Session:
    """Use up a refresh token for the next one, in a transaction of its own.

    Raises:
        StolenSessionError: it was used before; the session is over now.
        UnauthenticatedError: it is unknown, or its session is over.
    """
    async with connection.transaction():
        session, is_replay = await _use(connection, old, now)
        if is_replay:
            await end_session(connection, session.session_id, "replay")
        else:
            await _add_token(connection, session.session_id, new)
    # After the commit: the refusal does not take the end of the session back.
    if is_replay:
        raise StolenSessionError("The refresh token was used before, so its session is over. Log in again.")
    return session


async def _use(db: Database, old: KeyHash, now: datetime) -> tuple[Session, bool]:
    """The session of a refresh token, and whether the token had been used before."""
    row = await db.fetchrow(
        """
        SELECT s.session_id, s.user_id, t.used_at, s.revoked_at, s.expires_at
        FROM accounts.refresh_tokens t JOIN accounts.sessions s USING (session_id)
        JOIN accounts.users u USING (user_id)
        WHERE t.token_hash = $1 AND u.disabled_at IS NULL FOR UPDATE OF s, t
        """,
        old,
    )
    if row is None or row["revoked_at"] is not None or row["expires_at"] <= now:
        raise UnauthenticatedError("The refresh token is not valid. Log in again.")
    await db.execute(
        "UPDATE accounts.refresh_tokens SET used_at = coalesce(used_at, $2) WHERE token_hash = $1", old, now
    )
    return Session(row["session_id"], row["user_id"]), row["used_at"] is not None


async def end_session(db: Database, session_id: str, reason: str) -> None:
    """End one session."""
    await db.execute(
        "UPDATE accounts.sessions SET revoked_at = now(), revoked_by = $2 WHERE session_id = $1 AND revoked_at IS NULL",
        session_id,
        reason,
    )


async def end_sessions_of(db: Database, user_id: str) -> None:
    """End every session of a user whose password has changed."""
    await db.execute(
        f"SELECT FROM accounts.sessions WHERE user_id = $1 AND revoked_at IS NULL ORDER BY session_id {Hold.TAKEN}",
        user_id,
    )
    await db.execute(
        """
        UPDATE accounts.sessions SET revoked_at = now(), revoked_by = 'password'
        WHERE user_id = $1 AND revoked_at IS NULL
        """,
        user_id,
    )


async def _add_token(db: Database, session_id: str, token_hash: KeyHash) -> None:
    await db.execute(
        "INSERT INTO accounts.refresh_tokens (token_hash, session_id) VALUES ($1, $2)", token_hash, session_id
    )
