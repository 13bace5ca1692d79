"""Requests in Postgres, from the rows that were charged and those of their failed attempts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

import asyncpg

from control_plane.database import Database
from control_plane.requests.attempts import FailedAttempt, Last, attempts_of, in_words
from control_plane.requests.model import Outcome, Request, RequestSummary
from gateway_core.ids import OrgId
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd, format_usd

_TIMEOUT_S: Final = 30.0
_ATTEMPT: Final = ", ".join(field.name for field in fields(FailedAttempt))

_ONE: Final = """
    SELECT (request).* FROM billing.receipt($1)
    UNION ALL SELECT * FROM billing.requests WHERE request_id = $1 AND org_id IS NULL
"""

_SEQ_BITS: Final = 22
_SEQ_MASK: Final = (1 << _SEQ_BITS) - 1
"""A position in a list is the millisecond a request began in, which is what Envoy writes, and the end of its number for those of one."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The organisation that made a request; None where nobody found out."""

    org_id: OrgId | None


async def find_owner(db: Database, request_id: str) -> Owner | None:
    """Whose request it is."""
    row = await db.fetchrow(f"SELECT org_id FROM ({_ONE}) r", request_id)  # noqa: S608 - a statement of ours
    return None if row is None else Owner(row["org_id"])


async def find_request(db: Database, request_id: str, *, for_operator: bool) -> Request | None:
    """One request that is over, with its attempts; also one in quarantine, for whoever's money is held for it."""
    row = await db.fetchrow(_ONE, request_id)
    if row is None:
        return None
    failed = await db.fetch(
        f"SELECT {_ATTEMPT} FROM billing.attempts WHERE request_id = $1",  # noqa: S608 - columns of ours
        request_id,
    )
    summary = _summary(row)
    is_priced = summary.outcome is not Outcome.QUARANTINED
    cost = NanoUsd(row["cost_nano_usd"]) if is_priced else None
    last = Last(
        attempts=summary.attempts_made,
        started_at=summary.started_at,
        duration_ms=summary.duration_ms,
        # A test key's provider is the one it is charged as; none was asked.
        provider=None if summary.mode is Mode.TEST else summary.provider,
        upstream_model=row["upstream_model"],
        status=summary.status,
        response_flags=row["response_flags"],
        cost_nano_usd=cost,
    )
    return Request(
        **dict(summary),
        client_request_id=row["client_request_id"],
        choice=row["choice"],
        usage_source=row["usage_source"] or "none",
        upstream_model=row["upstream_model"],
        flags=in_words(row["response_flags"]),
        cost=format_usd(cost) if for_operator and cost is not None else None,
        attempts=attempts_of(last, [FailedAttempt(**each) for each in failed], for_operator=for_operator)
        if last.attempts
        else [],
    )


async def list_requests(
    db: Database,
    org_id: str,
    *,
    since: datetime | None,
    until: datetime | None,
    status: int | None,
    outcome: str | None,
    key_id: str | None,
    model: str | None,
    before: int | None,
    limit: int,
) -> list[tuple[int, RequestSummary]]:
    """Requests of an organisation, the latest first, each with its position."""
    began_ms, seq = (None, None) if before is None else (before >> _SEQ_BITS, before & _SEQ_MASK)
    rows = await db.fetch(
        """
        SELECT * FROM (
            SELECT *, floor(extract(epoch FROM started_at) * 1000)::bigint AS began_ms, seq & $10::bigint AS seq_end
            FROM billing.requests
            WHERE org_id = $1 AND started_at >= coalesce($2::timestamptz, '-infinity') AND started_at < coalesce($3::timestamptz, 'infinity')
              AND started_at < coalesce(to_timestamp(($8::bigint + 1) / 1000.0), 'infinity'::timestamptz)
              AND ($4::integer IS NULL OR status = $4) AND ($5::text IS NULL OR outcome = $5)
              AND ($6::text IS NULL OR key_id = $6) AND ($7::text IS NULL OR model = $7 OR asked_model = $7)
        ) r
        WHERE $8::bigint IS NULL OR (began_ms, seq_end) < ($8, $9::bigint)
        ORDER BY started_at DESC, seq_end DESC LIMIT $11
        """,
        *(org_id, since, until, status, outcome, key_id, model, began_ms, seq, _SEQ_MASK, limit),
        timeout=_TIMEOUT_S,
    )
    return [(row["began_ms"] << _SEQ_BITS | row["seq_end"], _summary(row)) for row in rows]


def _summary(row: asyncpg.Record) -> RequestSummary:
    found: Mapping[str, Any] = dict(row)
    price = found["price_nano_usd"]
    return RequestSummary.model_validate(
        {
            **found,
            "asked_model": found["asked_model"] or found["model"],
            "attempts_made": found["attempts"] or 0,
            "duration_ms": found["duration_ms"] or 0,
            "stream": bool(found["stream"]),
            "cached": bool(found["cached"]),
            "meters": json.loads(found["meters"] or "{}"),
            "price": None if price is None else format_usd(NanoUsd(price)),
        }
    )
