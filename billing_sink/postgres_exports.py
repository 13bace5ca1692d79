"""What is copied from Postgres, in the order of its transactions, and how far it has been copied."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the order of transactions: after this row of this one."""

    written_by: int
    seq: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows, each one line of JSON, and where the cursor belongs once they have been copied. Never empty."""

    lines: Sequence[str]
    end: Position


class PostgresExports:
    """One cursor over one table."""

    def __init__(self, pool: asyncpg.Pool, name: str = "requests") -> None:
        self._pool = pool
        self._name = name

    @asynccontextmanager
    async def turn(self, silence_s: int) -> AsyncIterator[None]:
        """While it lasts nobody else copies: ClickHouse has what is before the cursor, and nothing moves either of them.

        Args:
            silence_s: after which whoever has it, and may be dead, loses it. What was copied until then stays copied.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                f"""
                SET LOCAL idle_in_transaction_session_timeout = '{silence_s}s';
                SELECT pg_advisory_xact_lock(hashtextextended('billing.exports.{self._name}', 0))
                """
            )
            yield

    async def position(self) -> Position:
        """Where the cursor is."""
        row = await self._pool.fetchrow(
            "SELECT written_by, seq FROM billing.export_cursors WHERE name = $1", self._name
        )
        return Position(0, 0) if row is None else Position(row["written_by"], row["seq"])

    async def begins_anew(self) -> bool:
        """Whether everything is to be copied once more, into what is then empty."""
        return bool(
            await self._pool.fetchval(
                "SELECT EXISTS (SELECT FROM billing.export_cursors WHERE name = $1 AND begins_anew)", self._name
            )
        )

    async def begin_anew(self) -> None:
        """Put the cursor before everything."""
        await self._pool.execute(
            "UPDATE billing.export_cursors SET written_by = '0', seq = 0, begins_anew = false WHERE name = $1",
            self._name,
        )

    async def next_rows(self, source: str, columns: Mapping[str, str], rows_max: int) -> Rows | None:
        """The rows behind the cursor, None when there are none yet.

        Args:
            source: the table of Postgres, with its schema.
            columns: what each is called, and its expression in SQL over a row `r`.
            rows_max: so many at the most.

        A sequence alone would skip the rows of a transaction that commits late, so the order is by transaction first, and
        ends before the oldest one still running.
        """
        expressions = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
        found = await self._pool.fetch(
            f"""
            WITH cursor AS (
                SELECT coalesce(max(written_by), '0'::xid8) AS written_by, coalesce(max(seq), 0) AS seq
                FROM billing.export_cursors WHERE name = $1
            )
            SELECT r.written_by, r.seq, row_to_json(copied)::text AS line
            FROM cursor, {source} r, LATERAL (SELECT {expressions}) copied
            WHERE (r.written_by, r.seq) > (cursor.written_by, cursor.seq)
              AND r.written_by < pg_snapshot_xmin(pg_current_snapshot())
            ORDER BY r.written_by, r.seq LIMIT $2
            """,  # noqa: S608 - names and expressions of ours
            self._name,
            rows_max,
        )
        if not found:
            return None
        return Rows([row["line"] for row in found], Position(found[-1]["written_by"], found[-1]["seq"]))

    async def move(self, to: Position) -> None:
        """Put the cursor where the rows that were copied end."""
        await self._pool.execute(
            """
            INSERT INTO billing.export_cursors (name, written_by, seq) VALUES ($1, $2, $3)
            ON CONFLICT (name) DO UPDATE SET written_by = excluded.written_by, seq = excluded.seq
            """,
            self._name,
            to.written_by,
            to.seq,
        )
