"""The nightly look through the books. What it finds is kept in Postgres, and shown as metrics until the next one."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import CollectorRegistry, Gauge
from pydantic import SecretStr

from billing_sink import clickhouse
from billing_sink.hourly import Hours
from billing_sink.postgres_books import Check, PostgresBooks
from gateway_core.clock import Now
from gateway_core.logs import Logger

FRESH: Final = timedelta(minutes=10)
"""What was posted later than this may not be in ClickHouse yet."""
SAME: Final = "clickhouse_equals_postgres"


class Inspection:
    """Due once a day, at an hour in UTC. Missed, it is made up for."""

    def __init__(
        self,
        books: PostgresBooks,
        clickhouse_url: SecretStr,
        *,
        at_hour: int,
        now: Now,
        registry: CollectorRegistry,
        log: Logger,
    ) -> None:
        self._books = books
        self._clickhouse_url = clickhouse_url
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
            asyncpg.PostgresError, clickhouse_connect.driver.exceptions.Error, OSError: it stays due.
        """
        now = self._now()
        due = now.replace(hour=self._at_hour, minute=0, second=0, microsecond=0)
        if due > now:
            due -= timedelta(days=1)
        last = await self._books.last_inspection()
        if last is not None and last.inspected_at >= due:
            self._show(last.inspected_at, last.checks)
            return False
        checks = [*await self._books.check(), await self._compare(now)]
        await self._books.keep(now, checks)
        self._show(now, checks)
        for check in checks:
            if check.wrong:
                self._log.error("books_wrong", check=check.name, wrong=check.wrong, example=check.example)
        self._log.info("books_inspected", wrong=sum(check.wrong for check in checks))
        return True

    def _show(self, at: datetime, checks: Sequence[Check]) -> None:
        self._inspected_at.set(at.timestamp())
        for check in checks:
            self._wrong.labels(check.name).set(check.wrong)

    async def _compare(self, now: datetime) -> Check:
        before = (now - FRESH).replace(minute=0, second=0, microsecond=0)
        copied = await asyncio.to_thread(_copied, self._clickhouse_url, before)
        different = sorted(hour for hour, _ in _different(await self._books.hours(before), copied))
        return Check(SAME, len(different), f"{different[0]:%Y-%m-%dT%H:00Z}" if different else None)


def _copied(url: SecretStr, before: datetime) -> Hours:
    with clickhouse.connect(url) as client:
        return clickhouse.hours(client, before)


def _different(here: Hours, there: Hours) -> set[tuple[datetime, str]]:
    return {hour for hour in here.keys() | there.keys() if here.get(hour) != there.get(hour)}
