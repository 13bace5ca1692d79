"""What providers keep for whom, in Postgres (schema `billing`): written with a batch of lines, or before a client is told of it."""

import json
from collections.abc import Sequence

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from billing_sink.kept import Forgotten, Kept


async def write_down(
    connection: PoolConnectionProxy | asyncpg.Connection, kept: Sequence[Kept], forgotten: Sequence[Forgotten]
) -> Sequence[str]:
    """Write it down; what is written already stays as it is. Returns the ids that are another organisation's."""
    conflicts: list[asyncpg.Record] = []
    if kept:
        conflicts = await connection.fetch(
            "SELECT billing.keep_objects($1::jsonb) AS object_id", json.dumps([_kept_row(each) for each in kept])
        )
    if forgotten:
        await connection.execute(
            "SELECT billing.forget_objects($1::jsonb)", json.dumps([_forgotten_row(each) for each in forgotten])
        )
    return [row["object_id"] for row in conflicts]


def _kept_row(kept: Kept) -> dict[str, str | int | None]:
    return {
        "mode": kept.mode,
        "object_id": kept.name.object_id,
        "kind": kept.name.kind,
        "org_id": kept.org_id,
        "project_id": kept.project_id,
        "key_id": kept.key_id,
        "provider": kept.provider,
        "created_at": kept.created_at.isoformat(),
        "expires_at": None if kept.expires_at is None else kept.expires_at.isoformat(),
        "about": kept.about,
        "file_bytes": kept.file_bytes,
    }


def _forgotten_row(forgotten: Forgotten) -> dict[str, str]:
    return {
        "mode": forgotten.mode,
        "object_id": forgotten.name.object_id,
        "org_id": forgotten.org_id,
        "forgotten_at": forgotten.at.isoformat(),
    }
