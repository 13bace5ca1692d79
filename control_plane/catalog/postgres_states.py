"""States of providers in Postgres, and what they were before. Whoever writes one has read the last one under the same lock."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from control_plane.accounts.actor import Actor
from control_plane.catalog.provider_state import Condition, ProviderState, Subject
from control_plane.database import Database
from gateway_core.ids import ProviderName

KEPT: Final = timedelta(days=30)
"""How long is remembered what a provider was."""

_LOCK: Final = "hashtext('tollgate.provider_states')"


async def lock_states(db: Database) -> None:
    """From here on nobody else writes states until the transaction ends."""
    await db.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")


async def try_lock_states(db: Database) -> bool:
    """The same, unless somebody else does."""
    has_it: bool = await db.fetchval(f"SELECT pg_try_advisory_xact_lock({_LOCK})")
    return has_it


async def read_states(db: Database) -> dict[Subject, ProviderState]:
    """What each is now. Who is not among them is healthy, and always was."""
    return {_subject(row): _state(row) for row in await db.fetch("SELECT * FROM catalog.current_states")}


async def write_states(db: Database, states: Mapping[Subject, ProviderState], *, actor: Actor | None = None) -> None:
    """What each is from now on; whose doing it is, where it is somebody's."""
    await db.executemany(
        """
        INSERT INTO catalog.provider_states
            (provider, upstream_model, condition, since, until, why, times, by_probe, actor_kind, actor_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        [
            (
                *(subject.provider, subject.upstream_model, state.condition, state.since, state.until),
                *(state.why, state.times, state.by_probe, actor and actor.kind, actor and actor.actor_id),
            )
            for subject, state in states.items()
        ],
    )


async def forget_old_states(db: Database, now: datetime) -> None:
    """Remove what is older than is remembered, but never what something is now."""
    await db.execute(
        """
        DELETE FROM catalog.provider_states s
        WHERE since < $1 AND seq NOT IN (SELECT seq FROM catalog.current_states)
        """,
        now - KEPT,
    )


def _subject(row: asyncpg.Record) -> Subject:
    return Subject(ProviderName(row["provider"]), row["upstream_model"])


def _state(row: asyncpg.Record) -> ProviderState:
    return ProviderState(
        Condition(row["condition"]), row["since"], row["until"], row["why"], row["times"], row["by_probe"]
    )
