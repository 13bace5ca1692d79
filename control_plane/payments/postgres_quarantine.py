"""The quarantine of the ledger: read here, and decided about through its one function."""

import json
from typing import Final

import asyncpg

from control_plane.accounts.actor import Actor
from control_plane.database import Database
from control_plane.payments.quarantine import Decision, NewDecision, QuarantinedLine, QuarantinedLineWhole
from gateway_core.money import format_usd, parse_usd

_LINES: Final = """
    SELECT q.quarantine_id AS id, q.quarantined_at, q.reason, q.request_id, q.request, q.line,
           coalesce(a.org_id, q.request ->> 'org_id') AS org_id, coalesce(a.mode, q.request ->> 'mode') AS mode,
           q.request ->> 'model' AS model, q.request ->> 'provider' AS provider,
           CASE WHEN d.quarantine_id IS NOT NULL THEN 0
                WHEN h.state = 'held' THEN h.amount_nano_usd
                ELSE coalesce(least(q.share_nano_usd, s.open_nano_usd), 0) END AS held_nano_usd,
           d.decision, d.amount_nano_usd AS decided_nano_usd, d.charged_nano_usd, d.held_nano_usd AS freed_nano_usd,
           d.reason AS decided_because, d.actor_kind, d.actor_id, d.decided_at
    FROM billing.quarantine q
    LEFT JOIN billing.quarantine_decisions d USING (quarantine_id)
    LEFT JOIN billing.holds h ON h.request_id = q.request_id
    LEFT JOIN billing.slices s ON s.slice_id = q.slice_id AND h.request_id IS NULL
    LEFT JOIN billing.accounts a ON a.account_id = coalesce(h.account_id, s.account_id)
"""


async def list_lines(
    db: Database, *, reason: str | None, is_open: bool | None, before: int | None, limit: int
) -> list[tuple[int, QuarantinedLine]]:
    """Lines whose reason begins so, decided about or not; the latest first, each with its position."""
    rows = await db.fetch(
        f"""
        {_LINES}
        WHERE ($1::text IS NULL OR starts_with(q.reason, $1))
          AND ($2::boolean IS NULL OR (d.quarantine_id IS NULL) = $2)
          AND ($3::bigint IS NULL OR q.quarantine_id < $3)
        ORDER BY q.quarantine_id DESC LIMIT $4
        """,
        reason,
        is_open,
        before,
        limit,
    )
    return [(row["id"], QuarantinedLine.model_validate(_shown(row))) for row in rows]


async def find_line(db: Database, quarantine_id: int) -> QuarantinedLineWhole | None:
    """One of them."""
    row = await db.fetchrow(f"{_LINES} WHERE q.quarantine_id = $1", quarantine_id)
    if row is None:
        return None
    request = None if row["request"] is None else json.loads(row["request"])
    return QuarantinedLineWhole.model_validate(
        _shown(row)
        | {"usage": request and request["usage_raw"], "line": bytes(row["line"]).decode(errors="backslashreplace")}
    )


async def decide(db: Database, quarantine_id: int, wanted: NewDecision, actor: Actor) -> bool:
    """Decide about a line that there is; False, and nothing changed, if there is nothing to charge.

    A decision that was made before stays, whatever is wanted now.
    """
    made = await db.fetchval(
        "SELECT quarantine_id FROM billing.decide_quarantine($1, $2, $3, $4, $5, $6)",
        quarantine_id,
        wanted.decision,
        None if wanted.amount is None else parse_usd(wanted.amount),
        wanted.reason,
        actor.kind,
        actor.actor_id,
    )
    return made is not None


def _shown(row: asyncpg.Record) -> dict[str, object]:
    return {**row, "held": format_usd(row["held_nano_usd"]), "decision": _decision(row)}


def _decision(row: asyncpg.Record) -> Decision | None:
    if row["decision"] is None:
        return None
    stated = row["decided_nano_usd"]
    return Decision.model_validate(
        {
            **row,
            "amount": None if stated is None else format_usd(stated),
            "charged": format_usd(row["charged_nano_usd"]),
            "held": format_usd(row["freed_nano_usd"]),
            "reason": row["decided_because"],
        }
    )
