"""Looks through the books: every night, and whenever somebody asks for one.

What is found is kept in Postgres, and shown as metrics until the next one.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from prometheus_client import CollectorRegistry, Gauge
from pydantic import SecretStr

from billing_sink import clickhouse
from billing_sink.hourly import Hours
from billing_sink.postgres_books import Check, PostgresBooks
from billing_sink.postgres_exports import PostgresExports
from gateway_core.clock import Now
from gateway_core.contract import InspectionFailure
from gateway_core.logs import Logger

FRESH: Final = timedelta(minutes=10)
"""What was posted later than this may not be in ClickHouse yet: it is compared if it is."""
READ_S: Final = 300
"""As long as ClickHouse is waited for."""
_EVER: Final = datetime(2000, 1, 1, tzinfo=UTC)
SAME: Final = "clickhouse_equals_postgres"


class NotComparedError(RuntimeError):
    """ClickHouse could not be asked, so nobody knows whether it has what Postgres has."""


class Inspection:
    """Due once a day, at an hour in UTC, and made up for if it was missed; and when it is asked for."""

    def __init__(
        self,
        books: PostgresBooks,
        exports: PostgresExports,
        clickhouse_url: SecretStr,
        *,
        days: int | None,
        at_hour: int,
        now: Now,
        registry: CollectorRegistry,
        log: Logger,
    ) -> None:
        self._books = books
        self._exports = exports
        self._clickhouse_url = clickhouse_url
        self._days = days
        self._at_hour = at_hour
        self._now = now
        self._log = log
        self._wrong = Gauge(
            "tollgate_billing_sink_books_wrong",
            "What the last inspection of the books found wrong",
            ["check"],
            registry=registry,
        )
        self._inspected_at = Gauge(
            "tollgate_billing_sink_books_inspected_timestamp_seconds",
            "When the books were inspected last",
            registry=registry,
        )

    async def look(self) -> bool:
        """Inspect if it is time; whether it was.

        Raises:
            asyncpg.PostgresError, OSError, NotComparedError: it stays due.
        """
        now = self._now()
        due = now.replace(hour=self._at_hour, minute=0, second=0, microsecond=0)
        if due > now:
            due -= timedelta(days=1)
        last = await self._books.last_inspection()
        if last is not None and last.inspected_at >= due:
            self._show(last.inspected_at, last.checks)
            return False
        self._show(now, await self._inspect(now))
        return True

    async def answer(self) -> bool:
        """Inspect if somebody has asked for it; whether somebody had. The metrics show it with the next `look`.

        Raises:
            asyncpg.PostgresError, OSError: the order is taken on again once it has waited for long; who asks anew need not.
        """
        orders = await self._books.begin_asked()
        if not orders:
            return False
        now = self._now()
        try:
            await self._inspect(now)
        except NotComparedError:
            self._log.warning("books_not_compared")
            await self._books.refuse(orders, InspectionFailure.CLICKHOUSE_UNREACHABLE)
        else:
            await self._books.answer(orders, now)
        return True

    async def _inspect(self, now: datetime) -> Sequence[Check]:
        # ClickHouse first: where it is away, the ledger is not read for nothing.
        compared = await self._compare(now)
        checks = [*await self._books.check(), compared]
        await self._books.keep(now, checks)
        for check in checks:
            if check.wrong:
                self._log.error("books_wrong", check=check.name, wrong=check.wrong, example=check.example)
        self._log.info("books_inspected", wrong=sum(check.wrong for check in checks))
        return checks

    def _show(self, at: datetime, checks: Sequence[Check]) -> None:
        self._inspected_at.set(at.timestamp())
        for check in checks:
            self._wrong.labels(check.name).set(check.wrong)

    async def _compare(self, now: datetime) -> Check:
        async with self._exports.turn(READ_S):
            position = await self._exports.position()
            since = _EVER if self._days is None else _whole_hour(now - timedelta(days=self._days))
            try:
                there = await asyncio.to_thread(_copied, self._clickhouse_url, since)
            except (ClickHouseError, OSError) as error:
                raise NotComparedError from error
        # What is before a position never changes: copying goes on while it is added up.
        here = await self._books.hours(position, before=now - FRESH, since=since)
        different = sorted(hour for hour, _ in _different(here, there))
        return Check(SAME, len(different), f"{different[0]:%Y-%m-%dT%H:00Z}" if different else None)


def _copied(url: SecretStr, since: datetime) -> Hours:
    with clickhouse.connect(url) as client:
        return clickhouse.hours(client, since)


def _whole_hour(moment: datetime) -> datetime:
    """When the first hour begins that begins later than this."""
    return moment.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)


def _different(here: Hours, there: Hours) -> set[tuple[datetime, str]]:
    return {hour for hour in here.keys() | there.keys() if here.get(hour) != there.get(hour)}
