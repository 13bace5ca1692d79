"""The wiring of ext_authz, top to bottom: keys and catalogue in memory, holds in Postgres, one gRPC method.

Beside it, what it tells of itself: how far it has followed the changes of keys and of the catalogue, and which keys were used.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter
from pydantic import SecretStr

from ext_authz.announcement import KeyChanged, OrgChanged, ProjectChanged, read_announcement
from ext_authz.attempt_limiter import AttemptLimiter
from ext_authz.kept import Files
from ext_authz.keys import KeyCache
from ext_authz.leases import LeaseId, parse_unspent
from ext_authz.lender import Lender
from ext_authz.limiter import Limiter
from ext_authz.own_attempts import OwnAttempts
from ext_authz.own_limits import OwnLimits
from ext_authz.postgres_authorizers import PostgresAuthorizers
from ext_authz.postgres_holds import PostgresHolds, PostgresSlices
from ext_authz.postgres_kept import PostgresKept
from ext_authz.postgres_offers import PostgresOffers
from ext_authz.provider_limits import ProviderLimits
from ext_authz.redis_attempts import RedisAttempts
from ext_authz.redis_limits import RedisLimits
from ext_authz.reservation_notes import WORKERS, ReservationNotes
from ext_authz.running_requests import RunningRequests
from ext_authz.servicer import Authorization, start_server
from ext_authz.session_uses import SessionUses
from ext_authz.settings import Settings
from ext_authz.shared_counts import SharedCounts
from ext_authz.slices import Slices
from ext_authz.strays import Strays
from ext_authz.uptake import TakenUp, Uptake
from ext_authz.uses import KeyUses
from gateway_core.clock import monotonic, utc_now
from gateway_core.contract import Channel, Service
from gateway_core.health import always_ready, serving_health
from gateway_core.ids import SliceId, new_id
from gateway_core.logs import Logger
from gateway_core.postgres import Listener, Notification, Trouble, connect_pool
from gateway_core.postgres_keys import PostgresKeys

POOL_SIZE_MAX = 16
STATEMENT_TIMEOUT_S = 1.5
"""Shorter than Envoy waits for an answer (`EXT_AUTHZ_ATTEMPT_TIMEOUT` in control_plane/xds/listener_filters.py)."""
RETRY_S = 0.5
HEARTBEAT_S = 1.0
"""A process that is not heard from for some of these is taken for gone (`accounts.live_authorizers`)."""
SILENCE_S = 4.0
"""Less than until then: from here on what is remembered of keys is doubted."""
REPORT_GAP_S = 0.01
USES_S = 5.0
PUT_AWAY_S = 5.0


async def serve(settings: Settings, log: Logger) -> None:
    """Run until cancelled."""
    registry = CollectorRegistry()
    lender = Lender(
        ttl_ms=settings.lease_ttl_ms,
        new_lease_id=lambda: LeaseId(new_id("lease", secrets.token_bytes)),
        monotonic=monotonic,
    )
    uptake = Uptake(monotonic, leases_end_s=lambda: lender.end_s)
    instance = new_id("authz", secrets.token_bytes)
    async with (
        await connect_pool(
            settings.postgres_dsn, service=Service.EXT_AUTHZ, size_max=POOL_SIZE_MAX, timeout_s=STATEMENT_TIMEOUT_S
        ) as pool,
        _registered(PostgresAuthorizers(pool, instance), uptake, log) as authorizers,
    ):
        offers = await PostgresOffers.read(pool, utc_now, log, translated=bool(settings.translator_endpoints))
        uptake.read_catalog(offers.offers.version)
        keys = KeyCache(
            PostgresKeys(pool),
            entries_max=settings.key_cache_entries,
            ttl_ms=settings.key_cache_ttl_ms,
            stale_ms=settings.key_cache_stale_ms,
            silence_s=SILENCE_S,
            trouble=Trouble,
            monotonic=monotonic,
        )
        listener = Listener(
            settings.postgres_dsn,
            [Channel.API_KEY, Channel.CATALOG, Channel.UNSPENT],
            service=Service.EXT_AUTHZ,
            registry=registry,
            log=log,
        )
        uses = KeyUses(keys_max=settings.key_cache_entries)
        foreign = Counter(
            "tollgate_ext_authz_foreign_announcements",
            "Announcements of keys that are none of Postgres's own: somebody else has used the channel",
            registry=registry,
        )
        hold_ttl = timedelta(milliseconds=settings.hold_ttl_ms)
        slices = Slices(
            PostgresSlices(pool, instance, share_ppm=settings.slice_share_ppm, request_ttl=hold_ttl, now=utc_now),
            new_slice_id=lambda: SliceId(new_id("slice", secrets.token_bytes)),
            monotonic=monotonic,
            log=log,
        )
        shared, shared_attempts = _shared(settings.redis_url)
        counts = SharedCounts(is_there=shared is not None, monotonic=monotonic, registry=registry, log=log)
        limiter = Limiter(shared, OwnLimits(monotonic), counts, registry=registry)
        attempts = AttemptLimiter(shared_attempts, OwnAttempts(monotonic), counts, registry=registry)
        notes = ReservationNotes(limiter, attempts, monotonic=monotonic, registry=registry)
        strays = Strays(authorizers, registry=registry, log=log)
        service = Authorization(
            keys=keys,
            offers=offers,
            slices=slices,
            lender=lender,
            strays=strays,
            holds=PostgresHolds(pool, utc_now),
            kept=PostgresKept(pool),
            files_max=Files(settings.files_max, settings.file_bytes_max),
            limiter=limiter,
            notes=notes,
            uses=uses,
            pepper=settings.api_key_pepper,
            hold_ttl=hold_ttl,
            session_responses=settings.session_responses_held,
            checks_max=settings.checks_max,
            now=utc_now,
            monotonic=monotonic,
            registry=registry,
            log=log,
        )
        running = RunningRequests(notes)
        address = f"{settings.ext_authz_host}:{settings.ext_authz_port}"
        providers = ProviderLimits(attempts, lambda: offers.offers.provider_limits)
        server = await start_server(
            service, providers, running, SessionUses(limiter), address, settings.tls, checks_max=settings.checks_max
        )
        stale = asyncio.Event()
        try:
            async with (
                serving_health(
                    settings.ext_authz_metrics_host, settings.ext_authz_metrics_port, always_ready, registry
                ),
                asyncio.TaskGroup() as group,
            ):
                group.create_task(
                    _follow_changes(listener, keys, service, uptake, stale, foreign), name="follow_changes"
                )
                group.create_task(_refresh_offers(offers, uptake, stale, log), name="refresh_offers")
                group.create_task(_report(keys, uptake, authorizers, limiter, attempts, foreign, log), name="report")
                group.create_task(_write_uses(uses, authorizers, log), name="write_uses")
                group.create_task(slices.give_back(), name="give_back")
                group.create_task(strays.tell(), name="tell_strays")
                for _ in range(WORKERS):
                    group.create_task(notes.work(), name="note_reservations")
                group.create_task(_put_away(slices), name="put_away")
        finally:
            await server.stop(grace=1.0)
            await _close(slices, log)
            for each in (shared, shared_attempts):
                if each is not None:
                    await each.close()


def _shared(url: SecretStr | None) -> tuple[RedisLimits, RedisAttempts] | tuple[None, None]:
    """Where all processes count together, if anywhere."""
    if url is None:
        return None, None
    return RedisLimits(url), RedisAttempts(url, new_id=lambda: new_id("attempt", secrets.token_bytes))


async def _follow_changes(
    listener: Listener,
    keys: KeyCache,
    service: Authorization,
    uptake: Uptake,
    stale: asyncio.Event,
    foreign: Counter,
) -> None:
    async for change in listener.notifications():
        match change:
            case Notification(channel=Channel.API_KEY, payload=payload):
                match read_announcement(payload):
                    case KeyChanged(number, hashes):
                        for key_hash in hashes:
                            keys.forget(key_hash)
                        uptake.take_up(number)
                    case OrgChanged(number, org_id):
                        keys.forget_org(org_id)
                        uptake.take_up(number)
                    case ProjectChanged(number, project_id):
                        keys.forget_project(project_id)
                        uptake.take_up(number)
                    case None:
                        foreign.inc()
                        uptake.lose_track()
            case Notification(channel=Channel.CATALOG):
                stale.set()
            case Notification(channel=Channel.UNSPENT, payload=payload):
                service.take_back(parse_unspent(payload))
            case _:
                # Something was missed.
                keys.doubt_all()
                uptake.lose_track()
                stale.set()


async def _report(
    keys: KeyCache,
    uptake: Uptake,
    authorizers: PostgresAuthorizers,
    limiter: Limiter,
    attempts: AttemptLimiter,
    foreign: Counter,
    log: Logger,
) -> None:
    """Tell how far this process is, soon after it got further and at least every `HEARTBEAT_S`."""
    while True:
        uptake.news.clear()
        try:
            if uptake.has_gap:
                newest = await authorizers.newest_change()
                if not uptake.has_taken_up(newest):
                    # What was read meanwhile may be older than that.
                    keys.doubt_all()
                uptake.close_gap(newest)
            if (taken_up := uptake.taken_up) is not None:
                if await authorizers.report(taken_up):
                    keys.hears()
                else:
                    foreign.inc()
                    uptake.distrust()
            processes = await authorizers.count()
            limiter.share_among(processes)
            attempts.share_among(processes)
        except Trouble as error:
            log.warning("report_failed", error=type(error).__name__)
        # Many changes at once are one report.
        await asyncio.sleep(REPORT_GAP_S)
        with suppress(TimeoutError):
            next_s = uptake.next_s
            await asyncio.wait_for(uptake.news.wait(), HEARTBEAT_S if next_s is None else min(HEARTBEAT_S, next_s))


async def _write_uses(uses: KeyUses, authorizers: PostgresAuthorizers, log: Logger) -> None:
    while True:
        await asyncio.sleep(USES_S)
        if not (due := uses.due(utc_now())):
            continue
        try:
            await authorizers.touch_keys(due)
        except Trouble as error:
            log.warning("uses_not_written", error=type(error).__name__)
        else:
            uses.written(due, utc_now())


async def _put_away(slices: Slices) -> None:
    while True:
        await asyncio.sleep(PUT_AWAY_S)
        slices.put_away()


async def _close(slices: Slices, log: Logger) -> None:
    try:
        await slices.close()
    except Trouble as error:
        # They go back by themselves when their time is over.
        log.warning("slices_not_returned", error=type(error).__name__)


@asynccontextmanager
async def _registered(
    authorizers: PostgresAuthorizers, uptake: Uptake, log: Logger
) -> AsyncIterator[PostgresAuthorizers]:
    """Known to be there from before the catalogue is read, so that a change of it waits for this process, until it has stopped."""
    newest = await authorizers.newest_change()
    # Nothing is remembered yet, so nothing older can be.
    uptake.close_gap(newest)
    try:
        await authorizers.report(TakenUp(newest, age_s=0.0, catalog_revision=0))
        yield authorizers
    finally:
        await _say_goodbye(authorizers, log)


async def _say_goodbye(authorizers: PostgresAuthorizers, log: Logger) -> None:
    try:
        await authorizers.dismiss()
    except Trouble as error:
        # Nobody waits long for one that is not heard from.
        log.warning("dismissal_failed", error=type(error).__name__)


async def _refresh_offers(offers: PostgresOffers, uptake: Uptake, stale: asyncio.Event, log: Logger) -> None:
    while True:
        await stale.wait()
        stale.clear()
        try:
            await offers.refresh()
        except Trouble as error:
            log.warning("offers_unreadable", error=type(error).__name__)
            stale.set()
            await asyncio.sleep(RETRY_S)
        else:
            uptake.read_catalog(offers.offers.version)
