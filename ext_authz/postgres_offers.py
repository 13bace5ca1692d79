"""The offers from Postgres (schema `catalog`), which control_plane writes; read whole, in one snapshot."""

from typing import Self

import asyncpg

from ext_authz.offers import Offer, Offers
from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, PriceVersion, ProviderName
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
        # A deployment without a price is not in it, here and in Envoy's routes: what cannot be charged is not sold.
        rows = await connection.fetch(
            """
            SELECT d.model, d.provider, m.context_tokens, m.max_output_tokens, v.kind, p.revision, p.meters, p.costs, p.prices
            FROM catalog.deployments d
            JOIN catalog.models m ON m.name = d.model
            JOIN catalog.providers v ON v.name = d.provider
            CROSS JOIN LATERAL (
                SELECT revision, array_agg(meter) AS meters,
                       array_agg(cost_nano_usd_per_mtok) AS costs, array_agg(price_nano_usd_per_mtok) AS prices
                FROM catalog.prices WHERE model = d.model AND provider = d.provider
                GROUP BY revision ORDER BY revision DESC LIMIT 1
            ) p
            ORDER BY d.priority, d.provider
            """
        )
    prices: dict[ModelName, dict[Endpoint, tuple[PriceRow, ...]]] = {}
    first: dict[ModelName, dict[Endpoint, ProviderName]] = {}
    limits: dict[ModelName, tuple[int, int]] = {}
    for row in rows:
        model = ModelName(row["model"])
        limits[model] = (row["context_tokens"], row["max_output_tokens"])
        price = PriceRow.of(row["revision"], row["meters"], row["costs"], row["prices"])
        for endpoint in PATHS_BY_KIND[ProviderKind(row["kind"])]:
            by_endpoint = prices.setdefault(model, {})
            by_endpoint[endpoint] = (*by_endpoint.get(endpoint, ()), price)
            first.setdefault(model, {}).setdefault(endpoint, ProviderName(row["provider"]))
    return Offers(
        PriceVersion(version), {model: Offer(*limits[model], found, first[model]) for model, found in prices.items()}
    )
