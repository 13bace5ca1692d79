"""What users and machine tokens have made that acts for them, in Postgres: other tokens, and invitations. And its end."""

from collections.abc import Collection
from datetime import datetime

from control_plane.accounts.model import MachineToken
from control_plane.accounts.permissions import Permission, Role
from control_plane.accounts.postgres_tokens import token_of
from control_plane.database import Database, Hold, locked


async def with_what_they_made(db: Database, makers: Collection[str], *, org_id: str | None = None) -> list[str]:
    """Some users or tokens, and every token that those have made, and these, and so on.

    None of the tokens makes another one until the transaction ends: whatever is made with one keeps it.

    Args:
        db: a transaction, in which the makers are locked.
        makers: their ids.
        org_id: of which organisation the tokens are; None: of all, and of the platform.
    """
    found = made = list(makers)
    while made:
        # Level by level: what a token that is being locked has just made can be seen by the statement after this one.
        rows = await db.fetch(
            f"""
            SELECT token_id FROM accounts.machine_tokens
            WHERE created_by = ANY($1) AND ($2::text IS NULL OR org_id = $2) ORDER BY token_id {Hold.TAKEN}
            """,  # noqa: S608 - words of ours
            made,
            org_id,
        )
        made = [row["token_id"] for row in rows]
        found = found + made
    return found


async def tokens_beyond(db: Database, org_id: str, user_id: str, held: Collection[Permission]) -> list[str]:
    """The tokens of an organisation that a user has made and that may more than this."""
    rows = await db.fetch(
        f"""
        SELECT token_id FROM accounts.machine_tokens
        WHERE org_id = $1 AND created_by = $2 AND NOT scopes <@ $3::text[] ORDER BY token_id {Hold.TAKEN}
        """,  # noqa: S608 - words of ours
        org_id,
        user_id,
        list(held),
    )
    return [row["token_id"] for row in rows]


async def end_tokens(db: Database, token_ids: Collection[str], now: datetime) -> list[MachineToken]:
    """End tokens that have been taken, for good; those that had not ended before."""
    rows = await db.fetch(
        """
        UPDATE accounts.machine_tokens SET disabled_at = $2
        WHERE token_id = ANY($1) AND disabled_at IS NULL RETURNING *
        """,
        token_ids,
        now,
    )
    return [token_of(row) for row in rows]


async def take_back_invitations(
    db: Database,
    makers: Collection[str],
    now: datetime,
    *,
    org_id: str | None = None,
    but_to: Collection[Role] = (),
) -> None:
    """Take open invitations back, but those to be one of certain roles."""
    await db.execute(
        """
        UPDATE accounts.invitations SET revoked_at = $2
        WHERE invited_by = ANY($1) AND accepted_at IS NULL AND revoked_at IS NULL
          AND ($3::text IS NULL OR org_id = $3) AND role <> ALL($4::text[])
        """,
        makers,
        now,
        org_id,
        list(but_to),
    )


async def disable_keys(db: Database, makers: Collection[str], now: datetime) -> None:
    """Disable the keys that they have made, which can be undone."""
    # All rows before the first number: who has a row and waits for a number is never waited for by who has the number.
    await db.execute(
        f"""
        WITH due AS MATERIALIZED (
            SELECT key_id FROM accounts.api_keys
            WHERE created_by = ANY($1) AND disabled_at IS NULL AND revoked_at IS NULL ORDER BY key_id {locked()}
        ), all_due AS MATERIALIZED (SELECT array_agg(key_id) AS key_ids FROM due)
        UPDATE accounts.api_keys SET disabled_at = $2, revision = revision + 1
        WHERE key_id = ANY((SELECT key_ids FROM all_due)::text[])
        """,  # noqa: S608 - words of ours
        makers,
        now,
    )
