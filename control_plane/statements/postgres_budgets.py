"""What is left of budgets, in Postgres: their limits beside what the ledger says of them."""

from datetime import datetime

import asyncpg

from control_plane.database import Database
from control_plane.statements.model import BudgetState
from gateway_core.mode import Mode
from gateway_core.money import NanoUsd, format_usd


async def list_budgets(
    db: Database, org_id: str, mode: Mode, now: datetime, *, after: int | None, limit: int
) -> list[tuple[int, BudgetState]]:
    """Budgets of an organisation's projects and then of its keys, oldest first, each with its position."""
    # A position is made of what never changes: the row's number, whether it is a key's, and whether it is by the month.
    rows = await db.fetch(
        """
        SELECT b.*, s.day_ends_at, s.month_ends_at, s.in_day_nano_usd, s.in_month_nano_usd, s.held_nano_usd
        FROM (
            SELECT owner.*, period.name AS period, period.limit_nano_usd, owner.place + period.place AS position
            FROM (
                SELECT 'project' AS kind, project_id AS id, project_id, NULL::text AS key_id, name,
                       budget_per_day_nano_usd AS per_day, budget_per_month_nano_usd AS per_month, seq * 2 AS place
                FROM accounts.projects WHERE org_id = $1
                UNION ALL
                SELECT 'key', key_id, project_id, key_id, name, budget_per_day_nano_usd, budget_per_month_nano_usd,
                       (1::bigint << 48) + seq * 2
                FROM accounts.api_keys WHERE org_id = $1 AND mode = $2 AND revoked_at IS NULL
            ) owner
            CROSS JOIN LATERAL (VALUES ('day', per_day, 0), ('month', per_month, 1)) AS period (name, limit_nano_usd, place)
            WHERE period.limit_nano_usd IS NOT NULL AND owner.place + period.place > coalesce($4::bigint, 0)
            ORDER BY position LIMIT $5
        ) b
        JOIN accounts.organizations o ON o.org_id = $1
        JOIN billing.accounts a ON a.kind = 'balance' AND a.org_id = $1 AND a.mode = $2
        CROSS JOIN LATERAL billing.spent(a.account_id, b.project_id, b.key_id, o.time_zone, $3) s
        ORDER BY b.position
        """,
        org_id,
        mode,
        now,
        after,
        limit,
    )
    return [(row["position"], _state(row)) for row in rows]


def _state(row: asyncpg.Record) -> BudgetState:
    limit, spent, held = row["limit_nano_usd"], row[f"in_{row['period']}_nano_usd"], row["held_nano_usd"]
    return BudgetState.model_validate(
        {
            **row,
            "limit": format_usd(limit),
            "spent": format_usd(spent),
            "held": format_usd(held),
            "left": format_usd(NanoUsd(max(limit - spent - held, 0))),
            "renews_at": row[f"{row['period']}_ends_at"],
        }
    )
