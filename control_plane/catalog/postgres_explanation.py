"""What there is about a name that a request could have, in Postgres, as of the transaction it is read in."""

from collections.abc import Sequence
from dataclasses import replace

import asyncpg

from control_plane.catalog.explanation import MatchedRoute, Member, OwnKeyThere, Surroundings
from control_plane.database import Connection
from gateway_core.ids import ModelName, OrgId, ProviderName
from gateway_core.postgres_prices import org_terms, price_row
from gateway_core.pricing import OrgTerms
from gateway_core.providers import ProviderKind

_MODEL = """
    SELECT name, context_tokens, max_output_tokens, endpoints FROM catalog.models
    WHERE name = $1 OR name = (SELECT model FROM catalog.model_aliases WHERE alias = $1)
"""

_ROUTES = r"""
    SELECT name, match, published, orgs_allowed FROM catalog.routes
    WHERE match = $1 OR (match LIKE '%*%' AND $1 LIKE replace(replace(match, '_', '\_'), '*', '%'))
    ORDER BY match LIKE '%*%', length(match) DESC, match
"""
"""In the order in which one is preferred, which is that of the view `catalog.served`."""

_MEMBERS = """
    SELECT m.provider, m.priority, m.weight, v.kind, d.upstream_model, k.fallback, v.own_key_fee_ppm, p.*
    FROM catalog.route_members m
    JOIN catalog.providers v ON v.name = m.provider
    LEFT JOIN catalog.deployments d ON d.model = $2 AND d.provider = m.provider
    LEFT JOIN catalog.own_keys k ON k.org_id = $3 AND k.provider = m.provider
    LEFT JOIN LATERAL (
        SELECT revision, array_agg(meter) AS meters, array_agg(condition) AS conditions,
               array_agg(cost_nano_usd_per_mtok) AS costs, array_agg(price_nano_usd_per_mtok) AS prices
        FROM catalog.prices WHERE model = $2 AND provider = m.provider
        GROUP BY revision ORDER BY revision DESC LIMIT 1
    ) p ON true
    WHERE m.route = $1 ORDER BY m.priority, m.provider
"""

_TERMS = """
    SELECT t.org_id, t.revision, t.markup_ppm, array_agg(p.model) AS models, array_agg(p.provider) AS providers,
           array_agg(p.meter) AS meters, array_agg(p.price_nano_usd_per_mtok) AS prices
    FROM (SELECT * FROM catalog.terms WHERE org_id = $1 ORDER BY revision DESC LIMIT 1) t
    LEFT JOIN catalog.term_prices p USING (org_id, revision)
    GROUP BY t.org_id, t.revision, t.markup_ppm
"""


async def surroundings(db: Connection, name: str, org_id: str | None) -> Surroundings:
    """What there is about a name, for an organisation."""
    model = await db.fetchrow(_MODEL, name)
    if model is None:
        return Surroundings(None)
    found = Surroundings(
        model=ModelName(model["name"]),
        context_tokens=model["context_tokens"],
        max_output_tokens=model["max_output_tokens"],
        endpoints=tuple(model["endpoints"]),
        routes=tuple(_route(row) for row in await db.fetch(_ROUTES, model["name"])),
    )
    if found.taken is None:
        return found
    members = await db.fetch(_MEMBERS, found.taken.name, model["name"], org_id)
    return replace(found, members=tuple(map(_member, members)), terms=_terms(await db.fetch(_TERMS, org_id)))


def _route(row: asyncpg.Record) -> MatchedRoute:
    return MatchedRoute(row["name"], row["match"], row["published"], tuple(map(OrgId, row["orgs_allowed"])))


def _member(row: asyncpg.Record) -> Member:
    return Member(
        provider=ProviderName(row["provider"]),
        kind=ProviderKind(row["kind"]),
        priority=row["priority"],
        weight=row["weight"],
        upstream_model=row["upstream_model"],
        price=None if row["revision"] is None else price_row(row),
        own_key=None if row["fallback"] is None else OwnKeyThere(row["fallback"], row["own_key_fee_ppm"]),
    )


def _terms(rows: Sequence[asyncpg.Record]) -> OrgTerms | None:
    return org_terms(rows[0]) if rows else None
