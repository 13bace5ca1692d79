"""Operations in Postgres: changes of the catalogue, and whether every connected Envoy and every ext_authz has them.

What Envoys and processes of ext_authz say meets in schema `catalog`, whichever control plane they are connected to
(`xds/postgres_nodes.py`); `catalog.report_nodes` decides.
"""

import json
from typing import Final

import asyncpg

from control_plane.accounts.actor import Actor
from control_plane.catalog.resources import CatalogReader, Node, Operation
from control_plane.database import Database, written

_COLUMNS: Final = """operation_id AS id, revision, action, target, actor_kind, actor_id, state, nodes, authorizers,
    CASE state WHEN 'pending' THEN catalog.waiting_for(revision) ELSE '{}' END AS waiting_for,
    error, undone_by, created_at, finished_at"""


async def begin_revision(db: Database) -> int:
    """The revision this transaction makes. From here on nobody else changes the catalogue until it ends."""
    revision: int = await db.fetchval("SELECT catalog.current_revision()")
    return revision


async def lock_catalog(db: Database) -> None:
    """The same, for a transaction that may turn out to change nothing, and then makes no revision."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtext('tollgate.catalog'))")


async def add_operation(db: Database, *, operation_id: str, action: str, target: str, actor: Actor) -> Operation:
    """Write down what this transaction changes."""
    row = await db.fetchrow(
        f"""
        INSERT INTO catalog.operations (operation_id, revision, action, target, actor_kind, actor_id)
        VALUES ($1, catalog.current_revision(), $2, $3, $4, $5) RETURNING {_COLUMNS}
        """,  # noqa: S608 - a list of columns of ours
        operation_id,
        action,
        target,
        actor.kind,
        actor.actor_id,
    )
    return _operation(written(row))


async def find_operation(db: Database, operation_id: str) -> Operation | None:
    """One operation."""
    row = await db.fetchrow(
        f"SELECT {_COLUMNS} FROM catalog.operations WHERE operation_id = $1",  # noqa: S608 - columns of ours
        operation_id,
    )
    return None if row is None else _operation(row)


async def list_operations(db: Database, *, before_seq: int | None, limit: int) -> list[tuple[int, Operation]]:
    """Operations, newest first, each with its position."""
    rows = await db.fetch(
        f"""
        SELECT seq, {_COLUMNS} FROM catalog.operations
        WHERE $1::bigint IS NULL OR seq < $1 ORDER BY seq DESC LIMIT $2
        """,  # noqa: S608 - a list of columns of ours
        before_seq,
        limit,
    )
    return [(row["seq"], _operation(row)) for row in rows]


async def list_nodes(db: Database) -> list[Node]:
    """Every connected Envoy, of all control planes."""
    rows = await db.fetch(
        """
        SELECT node_id AS id, control_plane, connected_at, accepted_revision, refused_revision, refusal, types,
               is_silent AS silent
        FROM catalog.connected_nodes ORDER BY node_id, control_plane, stream
        """
    )
    return [Node.model_validate({**row, "types": json.loads(row["types"])}) for row in rows]


async def list_catalog_readers(db: Database) -> list[CatalogReader]:
    """Every running process of ext_authz that says which catalogue it serves."""
    rows = await db.fetch(
        """
        SELECT instance_id AS id, started_at, heard_at, catalog_revision,
               catalog_revision < (SELECT coalesce(max(revision), 0) FROM catalog.revisions) AS lags
        FROM accounts.live_authorizers WHERE catalog_revision IS NOT NULL ORDER BY started_at, instance_id
        """
    )
    return [CatalogReader.model_validate(dict(row)) for row in rows]


def _operation(row: asyncpg.Record) -> Operation:
    return Operation.model_validate(dict(row))
