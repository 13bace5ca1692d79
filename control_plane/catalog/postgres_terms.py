"""What single organisations pay, in Postgres: appended, never changed."""

import json
from typing import Final

from control_plane.catalog.percentages import percent_of, ppm_of
from control_plane.catalog.price_specs import TermsSpec, Unit, amount_per
from control_plane.catalog.resources import Terms
from control_plane.database import Database
from control_plane.errors import InvalidField

_NO_TERMS: Final = 0
"""The revision of terms that were never written."""


async def find_terms(db: Database, org_id: str) -> Terms:
    """The newest terms of an organisation; list prices, at revision 0, if there never were any."""
    row = await db.fetchrow(
        """
        SELECT t.revision, t.markup_ppm, (
            SELECT jsonb_agg(to_jsonb(p) ORDER BY p.model, p.provider NULLS FIRST, p.meter) FROM catalog.term_prices p
            WHERE p.org_id = t.org_id AND p.revision = t.revision) AS overrides
        FROM catalog.terms t WHERE t.org_id = $1 ORDER BY t.revision DESC LIMIT 1
        """,
        org_id,
    )
    if row is None:
        return Terms(revision=_NO_TERMS, org_id=org_id, markup_percent="0", overrides=[])
    return Terms.model_validate(
        {
            "revision": row["revision"],
            "org_id": org_id,
            "markup_percent": percent_of(row["markup_ppm"]),
            "overrides": [_override(each) for each in json.loads(row["overrides"] or "[]")],
        }
    )


async def faults_of_terms(db: Database, spec: TermsSpec) -> list[InvalidField]:
    """What terms name that is not there."""
    models = await db.fetch(
        "SELECT name FROM catalog.models WHERE name = ANY($1)", [each.model for each in spec.overrides]
    )
    providers = await db.fetch(
        "SELECT name FROM catalog.providers WHERE name = ANY($1)", [each.provider for each in spec.overrides]
    )
    known_models, known_providers = {row["name"] for row in models}, {None, *(row["name"] for row in providers)}
    faults = []
    for number, each in enumerate(spec.overrides):
        if each.model not in known_models:
            faults.append(InvalidField(f"/overrides/{number}/model", "no such model"))
        if each.provider not in known_providers:
            faults.append(InvalidField(f"/overrides/{number}/provider", "no such provider"))
    return faults


async def write_terms(db: Database, org_id: str, spec: TermsSpec) -> Terms:
    """Append terms that hold from the revision of this transaction on; once per organisation and transaction."""
    await db.execute(
        "INSERT INTO catalog.terms (org_id, markup_ppm) VALUES ($1, $2)", org_id, ppm_of(spec.markup_percent)
    )
    await db.execute(
        """
        INSERT INTO catalog.term_prices (org_id, model, provider, meter, unit, price_nano_usd_per_mtok)
        SELECT $1, r.model, r.provider, r.meter, r.unit, r.price_nano_usd_per_mtok FROM jsonb_to_recordset($2) AS r (
            model text, provider text, meter text, unit text, price_nano_usd_per_mtok bigint)
        """,
        org_id,
        json.dumps([each.row() for each in spec.overrides]),
    )
    return await find_terms(db, org_id)


def _override(row: dict[str, object]) -> dict[str, object]:
    named = {name: row[name] for name in ("model", "provider", "meter", "unit")}
    return {**named, "price": amount_per(int(str(row["price_nano_usd_per_mtok"])), Unit(str(row["unit"])))}
