"""Usage and receipts in Postgres, from the rows that were charged."""

import json
from typing import Final

import asyncpg

from control_plane.database import Database
from control_plane.statements.model import USAGE_ROWS_MAX, Grouping, Receipt, Usage, UsageQuery, UsageRow
from gateway_core.money import NanoUsd, format_usd
from gateway_core.usage import STANDARD

_COLUMNS: Final = {
    Grouping.DAY: "(r.started_at AT TIME ZONE o.time_zone)::date AS day",
    Grouping.MODEL: "r.model",
    Grouping.PROJECT: "r.project_id",
    Grouping.KEY: "r.key_id",
}
_NOTHING: Final = {
    Grouping.DAY: "NULL::date AS day",
    Grouping.MODEL: "NULL::text AS model",
    Grouping.PROJECT: "NULL::text AS project_id",
    Grouping.KEY: "NULL::text AS key_id",
}
_TIMEOUT_S: Final = 60.0


class TooMuchUsageError(LookupError):
    """It would have more rows than anybody reads."""


async def read_usage(db: Database, org_id: str, query: UsageQuery) -> Usage | None:
    """What an organisation used in a time; None if there is no such organisation.

    Raises:
        TooMuchUsageError: more than `USAGE_ROWS_MAX` rows.
    """
    time_zone = await db.fetchval("SELECT time_zone FROM accounts.organizations WHERE org_id = $1", org_id)
    if time_zone is None:
        return None
    columns = ", ".join(_COLUMNS[each] if each in query.groupings else _NOTHING[each] for each in Grouping)
    rows = await db.fetch(
        f"""
        WITH used AS (
            SELECT {columns}, r.price_nano_usd - r.absorbed_nano_usd AS paid, r.meters
            FROM billing.requests r JOIN accounts.organizations o USING (org_id)
            WHERE r.org_id = $1 AND r.started_at >= $2 AND r.started_at < $3 AND r.mode = $4 AND r.outcome <> 'refused'
        ), counted AS (
            SELECT day, model, project_id, key_id, jsonb_object_agg(meter, amount) AS meters FROM (
                SELECT day, model, project_id, key_id, meter, sum(value::bigint) AS amount
                FROM used CROSS JOIN LATERAL jsonb_each_text(used.meters) AS each (meter, value)
                GROUP BY day, model, project_id, key_id, meter
            ) by_meter GROUP BY day, model, project_id, key_id
        ), summed AS (
            SELECT day, model, project_id, key_id, count(*) AS requests, sum(paid)::bigint AS paid
            FROM used GROUP BY day, model, project_id, key_id
        )
        SELECT s.*, c.meters FROM summed s LEFT JOIN counted c
            ON (s.day, s.model, s.project_id, s.key_id) IS NOT DISTINCT FROM (c.day, c.model, c.project_id, c.key_id)
        ORDER BY s.day, s.model, s.project_id, s.key_id LIMIT $5
        """,  # noqa: S608 - columns of ours
        *(org_id, query.since, query.until, query.mode, USAGE_ROWS_MAX + 1),
        timeout=_TIMEOUT_S,
    )
    if len(rows) > USAGE_ROWS_MAX:
        raise TooMuchUsageError
    return Usage(time_zone=time_zone, data=[_row(row) for row in rows])


def _row(row: asyncpg.Record) -> UsageRow:
    meters = {} if row["meters"] is None else json.loads(row["meters"])
    return UsageRow.model_validate({**row, "meters": meters, "amount": format_usd(row["paid"])})


async def find_receipt(db: Database, request_id: str) -> Receipt | None:
    """One request that was admitted and is over, whoever made it; also one in quarantine, for whoever's money is held for it."""
    row = await db.fetchrow(
        """
        SELECT (r.request).*, r.by_decision, t.transaction_id, (r.request).price_version AS catalog_revision,
               (SELECT max(p.revision) FROM catalog.prices p
                WHERE p.model = (r.request).model AND p.provider = (r.request).provider
                  AND p.revision <= (r.request).price_version) AS version
        FROM billing.receipt($1) r LEFT JOIN billing.transactions t ON t.request_id = (r.request).request_id
        """,
        request_id,
    )
    if row is None:
        return None
    return Receipt.model_validate(
        {
            **row,
            "price_version": row["version"],
            "cached": bool(row["cached"]),
            "meters": json.loads(row["meters"]),
            "service_tier": row["service_tier"] or STANDARD,
            "price": _usd(row["price_nano_usd"]),
            "absorbed": _usd(row["absorbed_nano_usd"]),
        }
    )


def _usd(amount_nano_usd: int | None) -> str | None:
    return None if amount_nano_usd is None else format_usd(NanoUsd(amount_nano_usd))
