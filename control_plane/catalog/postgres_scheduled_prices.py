"""Price versions that are not yet due, in Postgres."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from control_plane.accounts.actor import Actor, ActorKind
from control_plane.catalog.postgres_operations import lock_catalog
from control_plane.catalog.postgres_prices import shown_prices
from control_plane.catalog.price_specs import PriceSpec
from control_plane.catalog.resources import ScheduledPrice
from control_plane.database import Database, written
from gateway_core.ids import RequestId

_SCHEDULED: Final = "schedule_id AS id, model, provider, effective_from, price_rows, created_at"


@dataclass(frozen=True, slots=True)
class DuePrice:
    """A version whose time has come, and in whose name it was scheduled.

    Attributes:
        price_rows: what `append_price` takes.
    """

    schedule_id: str
    model: str
    provider: str
    price_rows: str
    actor: Actor
    request_id: RequestId


async def schedule_price(
    db: Database,
    *,
    schedule_id: str,
    model: str,
    provider: str,
    spec: PriceSpec,
    effective_from: datetime,
    actor: Actor,
    request_id: RequestId,
) -> ScheduledPrice:
    """Keep a version until it is due. It makes no revision before."""
    row = await db.fetchrow(
        f"""
        INSERT INTO catalog.scheduled_prices
            (schedule_id, model, provider, price_rows, effective_from, actor_kind, actor_id, request_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING {_SCHEDULED}
        """,  # noqa: S608 - a list of columns of ours
        schedule_id,
        model,
        provider,
        json.dumps(spec.rows()),
        effective_from,
        actor.kind,
        actor.actor_id,
        request_id,
    )
    return _scheduled(written(row))


async def list_scheduled(db: Database, *, after: int | None, limit: int) -> list[tuple[int, ScheduledPrice]]:
    """What is scheduled, in the order it was, each with its position."""
    rows = await db.fetch(
        f"SELECT seq, {_SCHEDULED} FROM catalog.scheduled_prices WHERE seq > coalesce($1, 0) ORDER BY seq LIMIT $2",  # noqa: S608 - columns
        after,
        limit,
    )
    return [(row["seq"], _scheduled(row)) for row in rows]


async def withdraw_scheduled(db: Database, schedule_id: str) -> ScheduledPrice | None:
    """Remove a version that is not yet published; returns what it was."""
    row = await db.fetchrow(
        f"DELETE FROM catalog.scheduled_prices WHERE schedule_id = $1 RETURNING {_SCHEDULED}",  # noqa: S608 - columns
        schedule_id,
    )
    return None if row is None else _scheduled(row)


async def is_any_due(db: Database, now: datetime) -> bool:
    """Whether there is anything to publish."""
    found: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM catalog.scheduled_prices WHERE effective_from <= $1)", now
    )
    return found


async def take_due(db: Database, now: datetime) -> DuePrice | None:
    """Remove the version that has been due longest, to publish it in this transaction.

    It waits until nobody else changes the catalogue. None if another control plane was faster, or it was withdrawn.
    """
    await lock_catalog(db)
    row = await db.fetchrow(
        """
        DELETE FROM catalog.scheduled_prices WHERE schedule_id = (
            SELECT schedule_id FROM catalog.scheduled_prices WHERE effective_from <= $1
            ORDER BY effective_from, seq LIMIT 1)
        RETURNING *
        """,
        now,
    )
    if row is None:
        return None
    return DuePrice(
        schedule_id=row["schedule_id"],
        model=row["model"],
        provider=row["provider"],
        price_rows=row["price_rows"],
        actor=Actor(ActorKind(row["actor_kind"]), row["actor_id"]),
        request_id=RequestId(row["request_id"]),
    )


def _scheduled(row: asyncpg.Record) -> ScheduledPrice:
    return ScheduledPrice.model_validate({**row, **shown_prices(row)})
