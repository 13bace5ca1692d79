"""The books as a whole, in Postgres: sealing them, looking through them, and what was found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from billing_sink.hourly import Hours, Sums
from billing_sink.postgres_exports import Position
from gateway_core.contract import InspectionFailure
from gateway_core.mode import Mode

SEAL_TRANSACTIONS_MAX: Final = 100_000
ADDED_UP_AT_ONCE: Final = 20_000
_LOCK_TIMEOUT: Final = "2s"
_TIMEOUT_S: Final = 1800.0
"""It reads the whole ledger."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold, for how many it does not, and one of them."""

    name: str
    wrong: int
    example: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """What an inspection found."""

    inspected_at: datetime
    checks: Sequence[Check]


@dataclass(frozen=True, slots=True)
class Drift:
    """What the newest reconciliation with a provider has found.

    Attributes:
        drift_ppm: the largest difference between the totals of a measure, in millionths.
        beyond: how many lines were not within its threshold.
    """

    provider: str
    made_at: datetime
    drift_ppm: int
    beyond: int


@dataclass(frozen=True, slots=True)
class Balances:
    """All balances of a mode together; what is held of them is a part of what is posted."""

    posted_nano_usd: int
    held_nano_usd: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand.

    Attributes:
        balances: by mode; a mode that nobody has a balance in is missing.
        quarantined: lines, of batches too, that nobody has decided about.
    """

    balances: Mapping[Mode, Balances]
    quarantined: int


@dataclass(frozen=True, slots=True)
class Mended:
    """A balance of which something else was held than its open holds and slices hold."""

    org_id: str
    mode: str
    was_nano_usd: int
    is_nano_usd: int


async def mend_held(connection: asyncpg.Connection | PoolConnectionProxy) -> list[Mended]:
    """Set what is held of each balance to what its open holds and slices hold; which balances that changed.

    Raises:
        asyncpg.CheckViolationError: one does not cover what they hold. Nothing is changed.
    """
    rows = await connection.fetch("SELECT * FROM billing.mend_held()", timeout=_TIMEOUT_S)
    return [Mended(row["org_id"], row["mode"], row["was_nano_usd"], row["is_nano_usd"]) for row in rows]


class PostgresBooks:
    """Reads the whole ledger, and writes what is said of it: seals, sums by provider, inspections."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def seal(self) -> int:
        """Seal everything that is posted; how many seals that took.

        Raises:
            asyncpg.PostgresError, OSError: also where somebody posts for longer than it is waited for; the next one seals it.
        """
        async with self._pool.acquire() as connection:
            # Two transactions: the first keeps everybody from posting, so it does nothing else.
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                last = await connection.fetchval("SELECT billing.last_of_all()")
            seals = 0
            while await connection.fetchval(
                "SELECT billing.seal($1, $2)", last, SEAL_TRANSACTIONS_MAX, timeout=_TIMEOUT_S
            ):
                seals += 1
            return seals

    async def add_up_for_providers(self) -> int:
        """Add what has been finished to the sums by provider; how many requests that were."""
        total = 0
        while count := await self._pool.fetchval("SELECT billing.add_up_for_providers($1)", ADDED_UP_AT_ONCE):
            total += count
        return total

    async def drifts(self) -> list[Drift]:
        """What the newest reconciliation with each provider has found."""
        rows = await self._pool.fetch(
            """
            SELECT DISTINCT ON (provider) provider, made_at, drift_ppm, beyond FROM billing.reconciliations
            ORDER BY provider, reconciliation_id DESC
            """
        )
        return [Drift(row["provider"], row["made_at"], row["drift_ppm"], row["beyond"]) for row in rows]

    async def standing(self) -> Standing:
        """What balances have, and what waits for a person."""
        balances = await self._pool.fetch(
            """
            SELECT mode, sum(posted_nano_usd)::bigint AS posted, sum(held_nano_usd)::bigint AS held
            FROM billing.accounts WHERE kind = 'balance' GROUP BY mode
            """
        )
        quarantined = await self._pool.fetchval(
            """
            SELECT count(*) FROM billing.quarantine q
            WHERE NOT EXISTS (SELECT FROM billing.quarantine_decisions d WHERE d.quarantine_id = q.quarantine_id)
            """
        )
        return Standing({Mode(row["mode"]): Balances(row["posted"], row["held"]) for row in balances}, quarantined)

    async def check(self) -> list[Check]:
        """Everything that can be seen in Postgres alone."""
        rows = await self._pool.fetch("SELECT * FROM billing.check_books()", timeout=_TIMEOUT_S)
        return [Check(row["name"], row["wrong"], row["example"]) for row in rows]

    async def hours(self, copied: Position, *, before: datetime, since: datetime) -> Hours:
        """Of what has been copied to ClickHouse, and of what was recorded before a moment, copied or not; of it, what began since another one."""
        rows = await self._pool.fetch(
            """
            SELECT date_trunc('hour', started_at, 'UTC') AS hour, mode, count(*) AS requests, sum(cost_nano_usd)::bigint AS cost,
                   sum(price_nano_usd)::bigint AS price, sum(absorbed_nano_usd)::bigint AS absorbed
            FROM billing.requests
            WHERE ((written_by, seq) <= ($1, $2) OR recorded_at < $3) AND started_at >= $4 GROUP BY 1, 2
            """,
            *(copied.written_by, copied.seq, before, since),
            timeout=_TIMEOUT_S,
        )
        return {
            (row["hour"].astimezone(UTC), row["mode"]): Sums(
                row["requests"], row["cost"], row["price"], row["absorbed"]
            )
            for row in rows
        }

    async def last_inspection(self) -> Found | None:
        """The newest one; None before the first."""
        rows = await self._pool.fetch(
            """
            SELECT * FROM billing.inspections
            WHERE inspected_at = (SELECT max(inspected_at) FROM billing.inspections) ORDER BY name
            """
        )
        if not rows:
            return None
        checks = [Check(row["name"], row["wrong"], row["example"]) for row in rows]
        return Found(rows[0]["inspected_at"], checks)

    async def keep(self, at: datetime, checks: Sequence[Check]) -> None:
        """Write down what was found."""
        await self._pool.executemany(
            "INSERT INTO billing.inspections (inspected_at, name, wrong, example) VALUES ($1, $2, $3, $4)",
            [(at, check.name, check.wrong, check.example) for check in checks],
        )

    async def begin_asked(self) -> Sequence[int]:
        """The orders for an inspection that nobody is at; from here on the caller is."""
        return await self._pool.fetchval("SELECT billing.begin_inspection()") or ()

    async def answer(self, orders: Sequence[int], inspected_at: datetime) -> None:
        """Answer orders with an inspection that has been kept."""
        await self._pool.execute("SELECT billing.finish_inspection($1, $2, NULL)", orders, inspected_at)

    async def refuse(self, orders: Sequence[int], failure: InspectionFailure) -> None:
        """Answer orders with the reason why nobody knows."""
        await self._pool.execute("SELECT billing.finish_inspection($1, NULL, $2)", orders, failure)
