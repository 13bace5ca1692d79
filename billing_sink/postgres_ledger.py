"""The ledger in Postgres (schema `billing`): batches go in, the spool's offset moves with them or not at all."""

import json
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from datetime import datetime
from typing import NamedTuple, Protocol

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from billing_sink.access_log import SpoolLine
from billing_sink.limits import ToldLimits
from billing_sink.postgres_kept import write_down
from billing_sink.postings import Attempt, Posting, Quarantined, SpoolBatch, attempt_conflict, conflict, hash_of
from billing_sink.rating import Rated, unrated
from billing_sink.spool import SpoolId
from billing_sink.tags import tags_of
from gateway_core.clusters import is_own_key_cluster, provider_of_cluster
from gateway_core.contract import Choice
from gateway_core.ids import ProviderName
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd
from gateway_core.usage import STANDARD

EXPIRE_AT_ONCE = 1000


class ClosedSlices(NamedTuple):
    """How many slices were closed, and what of them nobody had accounted for."""

    closed: int
    unknown_nano_usd: NanoUsd


class StrayHolds(NamedTuple):
    """How many open holds of recorded requests were ended, and what they held."""

    ended: int
    freed_nano_usd: NanoUsd


class BeyondHold(NamedTuple):
    """How many requests of a mode cost more than was held for them then, and what of that no balance covered."""

    mode: Mode
    requests: int
    absorbed_nano_usd: NanoUsd


class Posted(NamedTuple):
    """What became of a batch.

    Attributes:
        quarantined: the batch's own, and postings in conflict with what is recorded.
    """

    quarantined: Sequence[Quarantined]
    beyond_hold: Sequence[BeyondHold]


_BEYOND_HOLD = """
    SELECT mode, count(*) AS requests, sum(absorbed_nano_usd)::bigint AS absorbed_nano_usd FROM billing.requests
    WHERE written_by = pg_current_xact_id() AND (price_nano_usd > coalesce(hold_nano_usd, 0) OR absorbed_nano_usd > 0)
    GROUP BY mode
"""
"""Of what this transaction has written. A late request may be covered by its hold and all the same not be paid by it."""


Unacceptable = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError)
"""What Postgres or its driver raises for values that will never fit, such as a NUL in a text. Trying again is no use."""


class SpoolMovedError(RuntimeError):
    """Somebody has moved the offset of the spool whose claim this sink holds; a person has to look, and it stops."""


class Connections(Protocol):
    """Where a connection to the ledger comes from: a claim, or a pool."""

    def acquire(self) -> AbstractAsyncContextManager[PoolConnectionProxy | asyncpg.Connection]:
        """A connection, while the block runs.

        Raises:
            asyncpg.PostgresError, OSError: there is none now.
        """


class PostgresLedger:
    """What the sink writes. Every method is one transaction."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def offset(self, spool_id: SpoolId) -> int:
        """How far a spool has been committed, in bytes."""
        async with self._connections.acquire() as connection:
            found = await connection.fetchval(
                "SELECT byte_offset FROM billing.spool_offsets WHERE spool_id = $1", spool_id
            )
        return found or 0

    async def post(self, batch: SpoolBatch, rows: str | None = None) -> Posted:
        """Write a batch and move the offset from its begin to its end.

        Args:
            batch: what is written.
            rows: what `encode` makes of its postings, where that was done ahead.

        Returns:
            What became of it.

        Raises:
            SpoolMovedError: the offset is not at the batch's begin.
        """
        by_id = {posting.request_id: posting for posting in batch.postings}
        async with self._connections.acquire() as connection, connection.transaction():
            moved = await connection.fetchval(
                "SELECT billing.move_offset($1, $2, $3)", batch.spool_id, batch.begin, batch.end
            )
            if not moved:
                raise SpoolMovedError(f"spool {batch.spool_id} is no longer at byte {batch.begin}")
            conflicts = await connection.fetch(
                "SELECT billing.settle($1::jsonb) AS request_id", encode(batch.postings) if rows is None else rows
            )
            quarantined = [*batch.quarantined, *(conflict(by_id[row["request_id"]]) for row in conflicts)]
            if batch.attempts:
                others = await connection.fetch(
                    "SELECT billing.record_attempts($1::jsonb) AS position", _encode_attempts(batch.attempts)
                )
                quarantined += [attempt_conflict(batch.attempts[row["position"]]) for row in others]
            await write_down(connection, batch.kept, batch.forgotten)
            if batch.limits:
                await connection.execute("SELECT billing.record_limits($1::jsonb)", _encode_limits(batch.limits))
            await quarantine(connection, batch.spool_id, quarantined)
            beyond_hold = await connection.fetch(_BEYOND_HOLD)
        return Posted(
            quarantined,
            [BeyondHold(Mode(row["mode"]), row["requests"], row["absorbed_nano_usd"]) for row in beyond_hold],
        )

    async def expire_holds(self, now: datetime) -> int:
        """End holds whose time is over; returns how many."""
        async with self._connections.acquire() as connection:
            count: int = await connection.fetchval("SELECT billing.expire_holds($1, $2)", now, EXPIRE_AT_ONCE)
        return count

    async def end_stray_holds(self, now: datetime) -> StrayHolds:
        """End open holds of requests that are recorded: whose they are was not known when those were settled."""
        async with self._connections.acquire() as connection:
            [row] = await connection.fetch("SELECT * FROM billing.end_stray_holds($1, $2)", now, EXPIRE_AT_ONCE)
        return StrayHolds(row["ended"], NanoUsd(row["freed_nano_usd"]))

    async def close_slices(self, now: datetime) -> ClosedSlices:
        """Close slices whose time is over."""
        async with self._connections.acquire() as connection:
            [row] = await connection.fetch("SELECT * FROM billing.close_slices($1, $2)", now, EXPIRE_AT_ONCE)
        return ClosedSlices(row["closed"], NanoUsd(row["unknown_nano_usd"]))


async def quarantine(
    connection: PoolConnectionProxy | asyncpg.Connection, spool_id: SpoolId, items: Iterable[Quarantined]
) -> None:
    """Set lines aside for a person, in the transaction of what was posted; what is there already stays as it is."""
    await connection.executemany(
        """
        INSERT INTO billing.quarantine
            (spool_id, byte_offset, request_id, reason, line, slice_id, share_nano_usd, request)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING
        """,
        [_quarantine_row(spool_id, item) for item in items],
    )


def encode(postings: Sequence[Posting]) -> str:
    """The postings as `billing.settle` takes them: an array of objects, as JSON text."""
    return json.dumps([_row(posting) for posting in postings])


def _row(posting: Posting) -> dict[str, object]:
    rated, line = posting.rated, posting.rated.line
    asked, grant = line.request, line.granted
    return {
        "request_id": posting.request_id,
        "input_hash": posting.input_hash.hex(),
        "mode": rated.mode,
        "outcome": rated.outcome,
        "usage_source": rated.source,
        "org_id": grant and grant.org_id,
        "project_id": grant and grant.project_id,
        "key_id": grant and grant.key_id,
        "endpoint": asked and asked.endpoint,
        "model": line.model,
        "provider": rated.provider,
        "upstream_model": _upstream_model(rated),
        "price_version": grant and grant.price_version,
        "stream": asked is not None and asked.stream,
        "status": line.status,
        "error_code": _error_code(rated),
        "response_flags": line.response_flags,
        "response_details": line.response_details,
        "attempts": line.attempts or 0,
        "client_request_id": asked and asked.client_request_id,
        "user_agent": line.user_agent,
        "started_at": line.start_time.isoformat(),
        "duration_ms": line.duration_ms or 0,
        "first_byte_ms": line.first_byte_ms,
        "bytes_received": line.bytes_received,
        "bytes_sent": line.bytes_sent,
        "sse_events": line.sse_events or 0,
        "meters": rated.meters or {},
        "cost_nano_usd": rated.charge.cost_nano_usd,
        "price_nano_usd": rated.charge.price_nano_usd,
        "hold_nano_usd": grant and grant.hold_nano_usd,
        "slice_id": grant and grant.slice_id,
        "usage_raw": _evidence(rated),
        "choice": _choice(line),
        **_alias(line),
        "cached": line.is_cached,
        # Only where it is so: rows are many.
        **({"own_key": True} if rated.has_own_key else {}),
        **({"tags": tags} if (tags := tags_of(asked.tags, asked.user) if asked else {}) else {}),
        **_overhead(line),
    }


def _encode_attempts(attempts: Sequence[Attempt]) -> str:
    """The same for `billing.record_attempts`."""
    return json.dumps([_attempt_row(attempt) for attempt in attempts])


def _attempt_row(attempt: Attempt) -> dict[str, object]:
    line = attempt.line
    provider = provider_of_cluster(line.cluster or "")
    return {
        "request_id": line.request_id,
        "started_at": line.start_time.isoformat(),
        "input_hash": attempt.input_hash.hex(),
        "provider": provider,
        "upstream_model": line.offering.deployments.get(ProviderName(provider)) if line.offering and provider else None,
        "host": line.host,
        "status": line.answered,
        "response_flags": line.flags,
        "response_details": line.response_details,
        "duration_ms": line.duration_ms or 0,
        "bytes_received": line.bytes_received,
        "bytes_sent": line.bytes_sent,
        "org_id": line.org_id or None,
        "own_reply": line.is_own_reply,
        **({"own_key": True} if is_own_key_cluster(line.cluster or "") else {}),
    }


def _encode_limits(limits: Sequence[ToldLimits]) -> str:
    """The same for `billing.record_limits`."""
    return json.dumps(
        [
            {
                "provider": told.provider,
                "upstream_model": told.upstream_model,
                "told_at": told.told_at,
                "status": told.status,
                **asdict(told.limits),
                "free_at": told.limits.free_at,
            }
            for told in limits
        ],
        default=datetime.isoformat,
    )


def _quarantine_row(spool_id: SpoolId, item: Quarantined) -> tuple[object, ...]:
    """A row of `billing.quarantine`; what could be read of the line is kept as `billing.settle` takes it."""
    grant = item.line and item.line.granted
    slice_id = grant and grant.slice_id
    request = None
    if item.line is not None and item.request_id is not None:
        request = json.dumps(_row(Posting(item.request_id, hash_of(item.raw), item.raw, unrated(item.line))))
    share = grant.hold_nano_usd if grant and slice_id else None
    return (spool_id, item.raw.byte_offset, item.request_id, item.reason, item.raw.content, slice_id, share, request)


def _alias(line: SpoolLine) -> dict[str, object]:
    """What the client called its model, where that is not the model's own name."""
    asked = line.request and line.request.model
    return {"asked_model": asked} if asked and asked != line.model else {}


def _overhead(line: SpoolLine) -> dict[str, object]:
    """How long the gateway itself took. Only of a request with one attempt: what failed before it was a provider's time."""
    if line.attempts != 1 or line.before_us is None or line.after_us is None:
        return {}
    return {"overhead_us": max(line.before_us, 0) + max(line.after_us, 0)}


def _choice(line: SpoolLine) -> str | None:
    """Why it tried the provider first that it did: drawn by weight where the line says nothing else; None where it tried none."""
    asked = line.request
    if not line.attempts or asked is None or asked.offering is None:
        return None
    return asked.choice or Choice.WEIGHTED


def _evidence(rated: Rated) -> Sequence[object] | None:
    """The provider's words; behind them what a session has delivered besides; and the service tier, unless it is the standard one."""
    words = [text for text in (rated.line.usage_first, rated.line.usage_last) if text]
    unfinished = rated.line.unfinished
    besides = [{"unfinished": asdict(unfinished)}] if unfinished is not None and unfinished.tokens else []
    tier = [] if rated.service_tier == STANDARD else [{"service_tier": rated.service_tier}]
    return [*words, *besides, *tier] or None


def _upstream_model(rated: Rated) -> str | None:
    """The provider's own name of the model, as the route had it that was taken."""
    offering = rated.line.request and rated.line.request.offering
    return offering.deployments.get(rated.provider) if offering and rated.provider else None


def _error_code(rated: Rated) -> str | None:
    grant, asked = rated.line.granted, rated.line.request
    if grant is not None and grant.error_code is not None:
        return grant.error_code
    return asked.error_code if asked is not None else None
