"""Price versions in Postgres: appended, never changed."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg

from control_plane.catalog.price_specs import MeterPrice, PriceSpec, Unit, amount_per
from control_plane.catalog.resources import Price
from control_plane.database import Database
from gateway_core.pricing import FREE


async def write_price(db: Database, model: str, provider: str, spec: PriceSpec, *, now: datetime) -> Price:
    """Append a version that holds from the revision of this transaction on; one per deployment and transaction.

    Scheduled versions of the deployment that are due but not yet published are overtaken: this one is newer.
    """
    await write_prices(db, {(model, provider): spec}, now=now)
    return await _written_price(db, model, provider)


async def write_prices(db: Database, specs: Mapping[tuple[str, str], PriceSpec], *, now: datetime) -> None:
    """`write_price` for many deployments, each named by its model and its provider."""
    await db.execute(
        """
        DELETE FROM catalog.scheduled_prices
        WHERE (model, provider) IN (SELECT * FROM unnest($1::text[], $2::text[])) AND effective_from <= $3
        """,
        [model for model, _ in specs],
        [provider for _, provider in specs],
        now,
    )
    await _append(db, [row | _of(*names) for names, spec in specs.items() for row in spec.rows()])


async def append_price(db: Database, model: str, provider: str, price_rows: str) -> Price:
    """Append a version from its rows as JSON."""
    await _append(db, [row | _of(model, provider) for row in json.loads(price_rows)])
    return await _written_price(db, model, provider)


async def _append(db: Database, rows: Sequence[Mapping[str, object]]) -> None:
    await db.execute(
        """
        INSERT INTO catalog.prices
            (model, provider, meter, unit, condition, cost_nano_usd_per_mtok, price_nano_usd_per_mtok)
        SELECT * FROM jsonb_to_recordset($1) AS r (
            model text, provider text, meter text, unit text, condition jsonb, cost_nano_usd_per_mtok bigint,
            price_nano_usd_per_mtok bigint)
        """,
        json.dumps(rows),
    )


def _of(model: str, provider: str) -> dict[str, object]:
    return {"model": model, "provider": provider}


async def _written_price(db: Database, model: str, provider: str) -> Price:
    price = await find_price(db, model, provider)
    if price is None:
        raise LookupError("a price that was just written is not there")
    return price


async def find_price(db: Database, model: str, provider: str) -> Price | None:
    """The newest version of a deployment's price."""
    found = await list_prices(db, model=model, provider=provider, history=False, before_seq=None, limit=1)
    return found[0][1] if found else None


async def list_prices(
    db: Database, *, model: str | None, provider: str | None, history: bool, before_seq: int | None, limit: int | None
) -> list[tuple[int, Price]]:
    """Newest versions of every deployment, or all versions; the latest first, each with its position.

    All of them if there is no limit.
    """
    rows = await db.fetch(
        """
        SELECT max(p.seq) AS seq, p.model, p.provider, p.revision AS version, r.created_at AS effective_from,
               jsonb_agg(to_jsonb(p) ORDER BY p.seq) AS price_rows
        FROM catalog.prices p JOIN catalog.revisions r USING (revision)
        WHERE p.model = coalesce($1, p.model) AND p.provider = coalesce($2, p.provider)
          AND ($3 OR NOT EXISTS (SELECT FROM catalog.prices newer WHERE newer.model = p.model
                                 AND newer.provider = p.provider AND newer.revision > p.revision))
        GROUP BY p.model, p.provider, p.revision, r.created_at
        HAVING $4::bigint IS NULL OR max(p.seq) < $4
        ORDER BY seq DESC LIMIT $5
        """,
        model,
        provider,
        history,
        before_seq,
        limit,
    )
    return [(row["seq"], Price.model_validate({**row, **shown_prices(row)})) for row in rows]


def shown_prices(row: asyncpg.Record) -> dict[str, object]:
    """The rows of a version, as the API shows them."""
    rows = json.loads(row["price_rows"])
    is_free = any(each["meter"] == FREE for each in rows)
    return {"free": is_free, "prices": [] if is_free else [_meter_price(each) for each in rows]}


def _meter_price(row: dict[str, object]) -> MeterPrice:
    unit = Unit(str(row["unit"]))
    return MeterPrice.model_validate(
        {
            "meter": row["meter"],
            "unit": unit,
            "condition": row["condition"],
            "cost": amount_per(int(str(row["cost_nano_usd_per_mtok"])), unit),
            "price": amount_per(int(str(row["price_nano_usd_per_mtok"])), unit),
        }
    )
