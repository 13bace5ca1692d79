"""Batches in Postgres (schema `billing`). Every method is one transaction."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from billing_sink.batches.model import Batch, RememberedLine, parse_said
from billing_sink.kept import Kept
from billing_sink.postgres_kept import write_down
from billing_sink.postgres_ledger import encode, quarantine
from billing_sink.postings import Posting, Quarantined, conflict
from billing_sink.spool import SpoolId
from gateway_core.api_keys import ApiKey
from gateway_core.budgets import AllHeld, Exhausted
from gateway_core.endpoints import Endpoint
from gateway_core.ids import KeyId, OrgId, ProjectId, ProviderName, RequestId
from gateway_core.kept import KeptKind, KeptName, ObjectId
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd
from gateway_core.postgres_holds import place_hold
from gateway_core.postgres_keys import api_key


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file is: at a provider, or at the simulator."""

    provider: ProviderName | None


class NotHeldError(Exception):
    """The money for a batch is not there; by the budget that is in the way, where one is."""

    def __init__(self, budget: Exhausted | AllHeld | None) -> None:
        super().__init__("not held")
        self.budget = budget


class PostgresBatches:
    """What is remembered of batches, and how they move money."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def find_key(self, key_id: KeyId) -> ApiKey | None:
        """The key that a request was admitted with."""
        row = await self._pool.fetchrow("SELECT * FROM accounts.find_key_by_id($1)", key_id)
        return None if row is None else api_key(row)

    async def find_input(self, org_id: OrgId, mode: Mode, file_id: ObjectId) -> Place | None:
        """Where an organisation's file is kept; None if it has none of that id."""
        row = await self._pool.fetchrow(
            """
            SELECT provider FROM billing.kept_objects
            WHERE mode = $1 AND object_id = $2 AND org_id = $3 AND kind = $4 AND forgotten_at IS NULL
            """,
            *(mode, file_id, org_id, KeptKind.FILE),
        )
        return None if row is None else Place(None if row["provider"] is None else ProviderName(row["provider"]))

    async def begin(
        self, batch: Batch, key: ApiKey, amount: NanoUsd, lines: Iterable[RememberedLine], *, expires_at: datetime
    ) -> None:
        """Hold the money for a batch, write it down and whose it is.

        Raises:
            NotHeldError: nothing was written.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            held = await place_hold(
                connection, batch.request_id, key, amount=amount, least=amount, expires_at=expires_at
            )
            if held is None or isinstance(held, Exhausted | AllHeld):
                raise NotHeldError(held)
            await connection.execute(
                """
                INSERT INTO billing.batches (
                    batch_id, mode, org_id, project_id, key_id, provider, endpoint, input_file_id, metadata, created_at)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                """,
                *(batch.batch_id, batch.mode, batch.org_id, batch.project_id, batch.key_id, batch.provider),
                *(batch.endpoint, batch.input_file_id, json.dumps(dict(batch.metadata)), batch.created_at),
            )
            await connection.executemany(
                "INSERT INTO billing.batch_lines VALUES ($1, $2, $3, $4, $5)",
                [(batch.batch_id, each.custom_id, each.request_id, each.amount, each.told) for each in lines],
            )
            name = KeptName(KeptKind.BATCH, batch.batch_id)
            kept = Kept(
                name, batch.mode, batch.org_id, batch.project_id, batch.key_id, batch.provider, batch.created_at
            )
            await write_down(connection, [kept], ())

    async def sent(self, batch_id: ObjectId, file_id: ObjectId) -> bool:
        """Remember what the provider was sent; whether the batch is still to be begun. One that took too long may have been ended meanwhile."""
        is_open: bool = await self._pool.fetchval(
            """
            UPDATE billing.batches SET sent_file_id = $2, input_removed_at = NULL WHERE batch_id = $1
            RETURNING ended_at IS NULL
            """,
            *(batch_id, file_id),
        )
        return is_open

    async def heard(self, batch_id: ObjectId, upstream_id: str, said: Mapping[str, object]) -> None:
        """Remember what the provider calls it, and says of it."""
        await self._pool.execute(
            "UPDATE billing.batches SET upstream_id = $2, said = $3 WHERE batch_id = $1 AND ended_at IS NULL",
            *(batch_id, upstream_id, json.dumps(said)),
        )

    async def find(self, org_id: OrgId, mode: Mode, batch_id: ObjectId) -> Batch | None:
        """One batch of an organisation."""
        row = await self._pool.fetchrow(
            "SELECT * FROM billing.batches WHERE batch_id = $1 AND org_id = $2 AND mode = $3", batch_id, org_id, mode
        )
        return None if row is None else _batch(row)

    async def list(self, org_id: OrgId, mode: Mode, *, after: Batch | None, limit: int) -> Sequence[Batch]:
        """Those of an organisation, the newest first, behind one of them."""
        rows = await self._pool.fetch(
            """
            SELECT * FROM billing.batches
            WHERE org_id = $1 AND mode = $2 AND ($3::timestamptz IS NULL OR (created_at, batch_id) < ($3, $4::text))
            ORDER BY created_at DESC, batch_id DESC LIMIT $5
            """,
            *(org_id, mode, after and after.created_at, after and after.batch_id, limit),
        )
        return [_batch(row) for row in rows]

    async def count_open(self, org_id: OrgId, mode: Mode) -> int:
        """How many of an organisation are not settled."""
        count: int = await self._pool.fetchval(
            "SELECT count(*) FROM billing.batches WHERE org_id = $1 AND mode = $2 AND ended_at IS NULL", org_id, mode
        )
        return count

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Whether it is this process that looks after all batches while the block runs; one of several does."""
        async with self._pool.acquire() as connection:
            has_turn: bool = await connection.fetchval("SELECT pg_try_advisory_lock(hashtext('billing.batches'))")
            try:
                yield has_turn
            finally:
                if has_turn:
                    await _end_turn(connection)

    async def open(self) -> Sequence[Batch]:
        """Those that are not settled, the oldest first."""
        rows = await self._pool.fetch("SELECT * FROM billing.batches WHERE ended_at IS NULL ORDER BY created_at")
        return [_batch(row) for row in rows]

    async def with_input(self, ended_after: datetime, *, limit: int) -> Sequence[Batch]:
        """Those that have ended since, and whose providers may still have what they were sent; the last that has ended first."""
        rows = await self._pool.fetch(
            """
            SELECT * FROM billing.batches WHERE ended_at > $1 AND input_removed_at IS NULL ORDER BY ended_at DESC LIMIT $2
            """,
            *(ended_after, limit),
        )
        return [_batch(row) for row in rows]

    async def input_removed(self, batch_id: ObjectId, at: datetime) -> None:
        """Remember that the provider has nothing of ours any more."""
        await self._pool.execute("UPDATE billing.batches SET input_removed_at = $2 WHERE batch_id = $1", batch_id, at)

    async def lines(self, batch_id: ObjectId, custom_ids: Sequence[str]) -> Mapping[str, RememberedLine]:
        """What is remembered of some lines, by the client's names."""
        rows = await self._pool.fetch(
            "SELECT * FROM billing.batch_lines WHERE batch_id = $1 AND custom_id = ANY($2)", batch_id, custom_ids
        )
        return {
            row["custom_id"]: RememberedLine(
                row["custom_id"], RequestId(row["request_id"]), NanoUsd(row["amount_nano_usd"]), row["told"]
            )
            for row in rows
        }

    async def settle(
        self,
        batch: Batch,
        parts: Sequence[RememberedLine],
        postings: Sequence[Posting],
        quarantined: Sequence[Quarantined],
    ) -> Sequence[Quarantined]:
        """Post answered lines, each from its part of the batch's hold. Said again, nothing changes. Returns what was quarantined."""
        by_id = {posting.request_id: posting for posting in postings}
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "SELECT billing.divide_hold($1, $2::jsonb)",
                batch.request_id,
                json.dumps([{"request_id": each.request_id, "amount_nano_usd": each.amount} for each in parts]),
            )
            conflicts = await connection.fetch("SELECT billing.settle($1::jsonb) AS request_id", encode(postings))
            all_quarantined = [*quarantined, *(conflict(by_id[row["request_id"]]) for row in conflicts)]
            await quarantine(connection, SpoolId(batch.batch_id), all_quarantined)
        return all_quarantined

    async def end(self, batch: Batch, itself: Posting, files: Sequence[Kept], at: datetime) -> Sequence[str]:
        """End what is still held for a batch, and make its files its owner's. Returns the ids that are another organisation's."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT billing.settle($1::jsonb)", encode([itself]))
            conflicts = await write_down(connection, files, ())
            await connection.execute(
                "UPDATE billing.batches SET ended_at = $2 WHERE batch_id = $1 AND ended_at IS NULL", batch.batch_id, at
            )
            await connection.execute("DELETE FROM billing.batch_lines WHERE batch_id = $1", batch.batch_id)
        return conflicts


async def _end_turn(connection: PoolConnectionProxy) -> None:
    """The lock goes with the turn, or with the connection: the pool would hand it on with the lock."""
    try:
        await connection.execute("SELECT pg_advisory_unlock(hashtext('billing.batches'))")
    except BaseException:
        connection.terminate()
        raise


def _batch(row: asyncpg.Record) -> Batch:
    return Batch(
        ObjectId(row["batch_id"]),
        Mode(row["mode"]),
        OrgId(row["org_id"]),
        ProjectId(row["project_id"]),
        KeyId(row["key_id"]),
        None if row["provider"] is None else ProviderName(row["provider"]),
        Endpoint(row["endpoint"]),
        ObjectId(row["input_file_id"]),
        json.loads(row["metadata"]),
        row["created_at"],
        None if row["sent_file_id"] is None else ObjectId(row["sent_file_id"]),
        row["upstream_id"],
        None if row["said"] is None else parse_said(row["said"]),
        row["ended_at"],
    )
