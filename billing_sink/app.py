"""The wiring of the billing sink: spool to ledger, ledger to ClickHouse, and holds nobody came back for."""

import asyncio
from pathlib import Path

import asyncpg
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from prometheus_client import CollectorRegistry, Counter

from billing_sink.clickhouse import connect
from billing_sink.exporter import Exporter
from billing_sink.postgres_exports import PostgresExports
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.settings import Settings
from billing_sink.sink import Sink
from gateway_core.clock import utc_now
from gateway_core.contract import SPOOL_FILE
from gateway_core.health import always_ready, serving_health
from gateway_core.logs import Logger
from gateway_core.postgres import Trouble, connect_pool

POOL_SIZE_MAX = 6
RETRY_S = 1.0
DRAIN_S = 1.5
"""How long a stopping sink goes on posting what Envoy has written."""


async def serve(settings: Settings, log: Logger) -> None:
    """Run until cancelled; then post what is left in the spool, for at most `DRAIN_S`."""
    registry = CollectorRegistry()
    async with await connect_pool(settings.postgres_dsn, service="billing_sink", size_max=POOL_SIZE_MAX) as pool:
        ledger = PostgresLedger(pool)
        sink = Sink(
            Path(settings.spool_dir) / SPOOL_FILE,
            ledger,
            batch_lines=settings.spool_batch_lines,
            registry=registry,
            log=log,
        )
        try:
            async with (
                serving_health(
                    settings.billing_sink_metrics_host, settings.billing_sink_metrics_port, always_ready, registry
                ),
                asyncio.TaskGroup() as group,
            ):
                group.create_task(sink.run(settings.spool_poll_ms / 1000), name="sink")
                group.create_task(_expire(sink, ledger, settings, registry, log), name="expire_holds")
                group.create_task(_export(pool, settings, registry, log), name="exporter")
        finally:
            try:
                async with asyncio.timeout(DRAIN_S):
                    await sink.drain()
            except (*Trouble, TimeoutError) as error:
                log.warning("drain_unfinished", error=type(error).__name__)


async def _expire(
    sink: Sink, ledger: PostgresLedger, settings: Settings, registry: CollectorRegistry, log: Logger
) -> None:
    """Not while there is a backlog: the lines of the oldest holds may be in it."""
    expired = Counter(
        "tollgate_billing_sink_holds_expired_total", "Holds of requests never heard of again", registry=registry
    )
    while True:
        try:
            count = await ledger.expire_holds(utc_now()) if sink.is_caught_up else 0
        except Trouble as error:
            log.warning("expiry_unavailable", error=type(error).__name__)
        else:
            expired.inc(count)
            if count:
                log.warning("holds_expired", count=count)
        await asyncio.sleep(settings.hold_sweep_ms / 1000)


async def _export(pool: asyncpg.Pool, settings: Settings, registry: CollectorRegistry, log: Logger) -> None:
    """ClickHouse gone: the ledger goes on; the cursor waits and nothing is skipped."""
    rows = Counter("tollgate_billing_sink_exported_rows_total", "Rows copied to ClickHouse", registry=registry)
    exporter: Exporter | None = None
    while True:
        try:
            if exporter is None:
                client = await asyncio.to_thread(connect, settings.clickhouse_url)
                exporter = Exporter(PostgresExports(pool), client, batch_rows=settings.export_batch_rows)
            copied = await exporter.export_batch()
        except (*Trouble, ClickHouseError) as error:
            log.warning("export_unavailable", error=type(error).__name__)
            exporter = None
            await asyncio.sleep(RETRY_S)
            continue
        rows.inc(copied)
        if copied < settings.export_batch_rows:
            await asyncio.sleep(settings.export_poll_ms / 1000)
