"""The wiring of the billing sink: spool to ledger to ClickHouse, holds nobody came back for, looks at the books, and what Envoy asks."""

import asyncio
import math
import secrets
from functools import partial
from pathlib import Path

import asyncpg
from aiohttp import web
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from prometheus_client import CollectorRegistry, Counter, Gauge

from billing_sink import clickhouse
from billing_sink.batches.api import BatchesApi
from billing_sink.batches.cancellation import Cancellation
from billing_sink.batches.creation import Creation
from billing_sink.batches.keepers import Keepers, connected_keepers
from billing_sink.batches.postgres_assortment import PostgresAssortment
from billing_sink.batches.postgres_batches import PostgresBatches
from billing_sink.batches.sent_inputs import SentInputs
from billing_sink.batches.settling import Settling
from billing_sink.current_prices import CurrentPrices
from billing_sink.drift import DriftMetrics
from billing_sink.envoy_api import for_envoy
from billing_sink.exporter import TABLES, Exporter
from billing_sink.inspection import Inspection, NotComparedError
from billing_sink.keeping import Keeping
from billing_sink.postgres_books import PostgresBooks
from billing_sink.postgres_claim import SpoolClaim, connect
from billing_sink.postgres_exports import PostgresExports
from billing_sink.postgres_ledger import PostgresLedger
from billing_sink.postgres_prices import PostgresPrices
from billing_sink.postgres_roll_ups import ROLL_UPS, PostgresRollUps
from billing_sink.quotes import Quotes
from billing_sink.roll_ups import Adding
from billing_sink.settings import Settings
from billing_sink.sink import Sink
from billing_sink.standing import StandingMetrics
from gateway_core.clock import monotonic, utc_now
from gateway_core.contract import Service
from gateway_core.health import always_ready, serving, serving_health
from gateway_core.logs import Logger
from gateway_core.mutual_tls import client_context, server_context
from gateway_core.postgres import Trouble, connect_pool
from gateway_core.spool_fields import SPOOL_FILE

POOL_SIZE_MAX = 12
"""Two for the exporter, two each for looking after the books and for looking through them, for reading prices, and for settling batches and for
beginning them."""
RETRY_S = 1.0
BOOKS_S = 60.0
KEPT_S = 60.0
"""How often what is posted is sealed and added up by provider, and asked whether the nightly inspection is due."""
ASKED_S = 2.0
"""How often is asked whether somebody wants the books inspected."""
DRAIN_S = 1.5
"""How long a stopping sink goes on posting what Envoy has written."""


async def serve(settings: Settings, log: Logger) -> None:
    """Run until cancelled; then post what is left in the spool, for at most `DRAIN_S`."""
    registry = CollectorRegistry()
    claim = SpoolClaim(partial(connect, settings.postgres_dsn), monotonic)
    ledger = PostgresLedger(claim)
    sink = Sink(
        Path(settings.spool_dir) / SPOOL_FILE,
        claim,
        ledger,
        CurrentPrices(PostgresPrices(claim)),
        batch_lines=settings.spool_batch_lines,
        registry=registry,
        log=log,
    )
    async with (
        await connect_pool(settings.postgres_dsn, service=Service.BILLING_SINK, size_max=POOL_SIZE_MAX) as pool,
        connected_keepers(settings.keepers, client_context(settings.tls)) as keepers,
    ):
        batches = PostgresBatches(pool)
        prices = CurrentPrices(PostgresPrices(pool))
        app = envoy_api(pool, batches, keepers, prices, registry, log)
        inputs = SentInputs(batches, keepers, now=utc_now, log=log)
        settling = Settling(batches, keepers, inputs, prices, now=utc_now, registry=registry, log=log)
        books = PostgresBooks(pool)
        inspection = Inspection(
            books,
            PostgresExports(pool),
            settings.clickhouse_url,
            days=settings.clickhouse_requests_days,
            at_hour=settings.books_inspected_at_hour,
            now=utc_now,
            registry=registry,
            log=log,
        )
        try:
            async with (
                serving_health(
                    settings.billing_sink_metrics_host,
                    settings.billing_sink_metrics_port,
                    always_ready,
                    registry,
                    role=lambda: "active" if claim.is_held else "standing by",
                ),
                serving(
                    app,
                    settings.billing_sink_host,
                    settings.billing_sink_port,
                    tls=server_context(settings.tls),
                ),
                asyncio.TaskGroup() as group,
            ):
                group.create_task(sink.run(settings.spool_poll_ms / 1000), name="sink")
                group.create_task(_expire(sink, ledger, settings, registry, log), name="expire_holds")
                group.create_task(_look_after_books(claim, books, inspection, registry, log), name="books")
                group.create_task(_answer(inspection, log), name="inspections_asked_for")
                group.create_task(_export(claim, pool, settings, registry, log), name="exporter")
                group.create_task(_settle_batches(settling, settings.batches_poll_ms / 1000, log), name="batches")
        finally:
            try:
                async with asyncio.timeout(DRAIN_S):
                    await sink.drain()
                    await claim.close()
            except (*Trouble, TimeoutError) as error:
                log.warning("drain_unfinished", error=type(error).__name__)


def envoy_api(
    pool: asyncpg.Pool,
    batches: PostgresBatches,
    keepers: Keepers,
    prices: CurrentPrices,
    registry: CollectorRegistry,
    log: Logger,
) -> web.Application:
    """What Envoy asks of this service, wired."""
    creation = Creation(
        batches, keepers, PostgresAssortment(pool), prices, now=utc_now, random_bytes=secrets.token_bytes, log=log
    )
    return for_envoy(
        Quotes(prices, registry, log),
        Keeping(pool, registry, log),
        BatchesApi(batches, creation, Cancellation(batches, keepers)),
        log,
    )


async def _expire(
    sink: Sink, ledger: PostgresLedger, settings: Settings, registry: CollectorRegistry, log: Logger
) -> None:
    """Only in the sink that works, and not while there is a backlog: the lines of the oldest holds may be in it."""
    expired = Counter(
        "tollgate_billing_sink_holds_expired_total", "Holds of requests never heard of again", registry=registry
    )
    closed = Counter("tollgate_billing_sink_slices_closed_total", "Slices whose time was over", registry=registry)
    unknown = Counter(
        "tollgate_billing_sink_slices_unknown_nano_usd_total",
        "What was set aside for requests never heard of again, or died with its holder, and went back",
        registry=registry,
    )
    while True:
        try:
            if sink.is_caught_up:
                count = await ledger.expire_holds(utc_now())
                expired.inc(count)
                if count:
                    log.warning("holds_expired", count=count)
                strays = await ledger.end_stray_holds(utc_now())
                if strays.ended:
                    log.warning("stray_holds_ended", count=strays.ended, nano_usd=strays.freed_nano_usd)
                slices = await ledger.close_slices(utc_now())
                closed.inc(slices.closed)
                unknown.inc(slices.unknown_nano_usd)
                if slices.unknown_nano_usd:
                    log.warning("slices_unknown", count=slices.closed, nano_usd=slices.unknown_nano_usd)
        except Trouble as error:
            log.warning("expiry_unavailable", error=type(error).__name__)
        await asyncio.sleep(settings.hold_sweep_ms / 1000)


async def _settle_batches(settling: Settling, poll_s: float, log: Logger) -> None:
    """In every sink; Postgres gives the turn to one of them."""
    while True:
        await asyncio.sleep(poll_s)
        try:
            await settling.look()
        except Trouble as error:
            log.warning("batches_unavailable", error=type(error).__name__)


async def _look_after_books(
    claim: SpoolClaim, books: PostgresBooks, inspection: Inspection, registry: CollectorRegistry, log: Logger
) -> None:
    """Only with the claim, so that it is done once."""
    drift, standing = DriftMetrics(registry), StandingMetrics(registry)
    while True:
        await asyncio.sleep(BOOKS_S)
        if not claim.is_held:
            continue
        try:
            await books.seal()
            await books.add_up_for_providers()
            drift.show(await books.drifts())
            standing.show(await books.standing())
            await inspection.look()
        except (*Trouble, NotComparedError) as error:
            log.warning("books_unavailable", error=type(error).__name__)


async def _answer(inspection: Inspection, log: Logger) -> None:
    """In every sink: before the first line of a spool none has the claim. Postgres gives each order to one of them."""
    while True:
        await asyncio.sleep(ASKED_S)
        try:
            await inspection.answer()
        except Trouble as error:
            log.warning("inspection_unavailable", error=type(error).__name__)


async def _export(
    claim: SpoolClaim, pool: asyncpg.Pool, settings: Settings, registry: CollectorRegistry, log: Logger
) -> None:
    """ClickHouse gone: the ledger goes on; the cursor waits and nothing is skipped.

    Only with the claim. A batch during which it is lost is copied twice at the worst, and rows of one request collapse.
    """
    rows = Counter("tollgate_billing_sink_exported_rows_total", "Rows copied to ClickHouse", registry=registry)
    caught_up = Gauge(
        "tollgate_billing_sink_export_caught_up_timestamp_seconds",
        "When everything in the ledger was in ClickHouse the last time; stands still in a sink that stands by",
        registry=registry,
    )
    while True:
        if not claim.is_held:
            await asyncio.sleep(settings.export_poll_ms / 1000)
            continue
        try:
            client = await asyncio.to_thread(clickhouse.connect, settings.clickhouse_url)
            await _copy(claim, pool, client, settings, rows, caught_up)
        except (*Trouble, ClickHouseError) as error:
            log.warning("export_unavailable", error=type(error).__name__)
            await asyncio.sleep(RETRY_S)


async def _copy(
    claim: SpoolClaim, pool: asyncpg.Pool, client: Client, settings: Settings, rows: Counter, caught_up: Gauge
) -> None:
    """Copy and add up until something is in the way, or the claim is lost."""
    exporters = [
        Exporter(PostgresExports(pool, table.name), client, table, batch_rows=settings.export_batch_rows)
        for table in TABLES
    ]
    adding = Adding(PostgresExports(pool), PostgresExports(pool, ROLL_UPS), PostgresRollUps(pool), client, utc_now)
    added_up_at = kept_at = -math.inf
    while claim.is_held:
        copied = [await each.export_batch() for each in exporters]
        rows.inc(sum(copied))
        is_behind = max(copied) == settings.export_batch_rows
        if is_behind or monotonic() - added_up_at >= settings.roll_up_ms / 1000:
            if await adding.add_up():
                continue
            added_up_at = monotonic()
            # What is older may go again only once it has been added up; whoever empties a table has it kept for ever at first.
            if not is_behind and added_up_at - kept_at >= KEPT_S:
                for table, days in settings.kept_in_clickhouse.items():
                    await asyncio.to_thread(clickhouse.keep, client, table, days)
                kept_at = added_up_at
        if not is_behind:
            caught_up.set(utc_now().timestamp())
            await asyncio.sleep(settings.export_poll_ms / 1000)
