"""The catalogue from Postgres (schema `catalog`), which control_plane writes; read whole, in one snapshot."""

import asyncpg

from ext_authz.catalog import Catalog, Offer
from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, PriceVersion
from gateway_core.pricing import PriceRow, Rate
from gateway_core.providers import PATHS_BY_KIND, ProviderKind
from gateway_core.usage import Meter


class PostgresCatalog:
    """Holds the newest reading. Postgres gone: the last one stays in force."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.catalog: Catalog | None = None

    async def refresh(self) -> None:
        """Read it again.

        Raises:
            asyncpg.PostgresError, OSError: the last reading stays.
        """
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            version = await connection.fetchval("SELECT coalesce(max(revision), 0) FROM catalog.revisions")
            rows = await connection.fetch(
                """
                SELECT d.model, m.max_output_tokens, v.kind, p.revision, p.meters, p.costs, p.prices
                FROM catalog.deployments d
                JOIN catalog.models m ON m.name = d.model
                JOIN catalog.providers v ON v.name = d.provider
                LEFT JOIN LATERAL (
                    SELECT revision, array_agg(meter) AS meters,
                           array_agg(cost_nano_usd_per_mtok) AS costs, array_agg(price_nano_usd_per_mtok) AS prices
                    FROM catalog.prices WHERE model = d.model AND provider = d.provider
                    GROUP BY revision ORDER BY revision DESC LIMIT 1
                ) p ON true
                """
            )
        self.catalog = Catalog(PriceVersion(version), _offers(rows))


def _offers(rows: list[asyncpg.Record]) -> dict[ModelName, Offer]:
    prices: dict[ModelName, dict[Endpoint, list[PriceRow | None]]] = {}
    max_output: dict[ModelName, int] = {}
    for row in rows:
        model = ModelName(row["model"])
        max_output[model] = row["max_output_tokens"]
        for endpoint in PATHS_BY_KIND[ProviderKind(row["kind"])]:
            prices.setdefault(model, {}).setdefault(endpoint, []).append(_price_row(row))
    return {
        model: Offer(
            max_output[model],
            {
                endpoint: tuple(price for price in found if price is not None)
                for endpoint, found in by_endpoint.items()
                if None not in found
            },
        )
        for model, by_endpoint in prices.items()
    }


def _price_row(row: asyncpg.Record) -> PriceRow | None:
    if row["revision"] is None:
        return None
    rates = {
        Meter(meter): Rate(cost_nano_usd_per_mtok=cost, price_nano_usd_per_mtok=price)
        for meter, cost, price in zip(row["meters"], row["costs"], row["prices"], strict=True)
    }
    return PriceRow(PriceVersion(row["revision"]), rates)
