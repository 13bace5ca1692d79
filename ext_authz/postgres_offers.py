"""The offers from Postgres (schema `catalog`), which control_plane writes; read whole, in one snapshot."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Self

import asyncpg

from ext_authz.offers import Offer, Offers
from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, OrgId, PriceVersion
from gateway_core.pricing import PriceRow
from gateway_core.providers import PATHS_BY_KIND, ProviderKind


class PostgresOffers:
    """Holds the newest reading. Postgres gone: the last one stays in force."""

    def __init__(self, pool: asyncpg.Pool, offers: Offers) -> None:
        self._pool = pool
        self.offers = offers

    @classmethod
    async def read(cls, pool: asyncpg.Pool) -> Self:
        """Read them for the first time.

        Raises:
            asyncpg.PostgresError, OSError: they cannot be read now.
        """
        return cls(pool, await _read(pool))

    async def refresh(self) -> None:
        """Read them again.

        Raises:
            asyncpg.PostgresError, OSError: the last reading stays.
        """
        self.offers = await _read(self._pool)


async def _read(pool: asyncpg.Pool) -> Offers:
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        version = await connection.fetchval("SELECT coalesce(max(revision), 0) FROM catalog.revisions")
        aliases = await connection.fetch("SELECT alias, model FROM catalog.model_aliases")
        rows = await connection.fetch(
            """
            SELECT s.model, m.context_tokens, m.max_output_tokens, r.orgs_allowed, v.kind, p.revision, p.meters, p.costs, p.prices
            FROM catalog.served s
            JOIN catalog.models m ON m.name = s.model
            JOIN catalog.routes r ON r.name = s.route
            JOIN catalog.providers v ON v.name = s.provider
            CROSS JOIN LATERAL (
                SELECT revision, array_agg(meter) AS meters,
                       array_agg(cost_nano_usd_per_mtok) AS costs, array_agg(price_nano_usd_per_mtok) AS prices
                FROM catalog.prices WHERE model = s.model AND provider = s.provider
                GROUP BY revision ORDER BY revision DESC LIMIT 1
            ) p
            """
        )
    offers: dict[ModelName, Offer] = {}
    for model, members in groupby(sorted(rows, key=itemgetter("model")), key=itemgetter("model")):
        offers[model] = _offer(list(members))
    offers |= {row["alias"]: offers[row["model"]] for row in aliases if row["model"] in offers}
    return Offers(PriceVersion(version), offers)


def _offer(rows: Sequence[asyncpg.Record]) -> Offer:
    """A model from its rows, one per deployment."""
    prices: dict[Endpoint, tuple[PriceRow, ...]] = {}
    for row in rows:
        price = PriceRow.of(row["revision"], row["meters"], row["costs"], row["prices"])
        for endpoint in PATHS_BY_KIND[ProviderKind(row["kind"])]:
            prices[endpoint] = (*prices.get(endpoint, ()), price)
    first = rows[0]
    return Offer(
        model=ModelName(first["model"]),
        context_tokens=first["context_tokens"],
        max_output_tokens=first["max_output_tokens"],
        orgs_allowed=frozenset(map(OrgId, first["orgs_allowed"])),
        prices=prices,
    )
