"""The price book from Postgres (schema `catalog`), which control_plane writes."""

from billing_sink.postgres_ledger import Connections
from billing_sink.prices import PriceBook
from gateway_core.ids import ModelName, OrgId, PriceVersion, ProviderName
from gateway_core.postgres_prices import org_terms, price_row
from gateway_core.pricing import OwnKeyFee

_PRICES_BETWEEN = """
    SELECT model, provider, revision,
           array_agg(meter) AS meters,
           array_agg(condition) AS conditions,
           array_agg(cost_nano_usd_per_mtok) AS costs,
           array_agg(price_nano_usd_per_mtok) AS prices
    FROM catalog.prices WHERE revision > $1 AND revision <= $2 GROUP BY model, provider, revision
"""
_TERMS_BETWEEN = """
    SELECT t.org_id, t.revision, t.markup_ppm,
           array_agg(p.model) AS models,
           array_agg(p.provider) AS providers,
           array_agg(p.meter) AS meters,
           array_agg(p.price_nano_usd_per_mtok) AS prices
    FROM catalog.terms t LEFT JOIN catalog.term_prices p USING (org_id, revision)
    WHERE t.revision > $1 AND t.revision <= $2 GROUP BY t.org_id, t.revision
"""
_FEES_BETWEEN = "SELECT provider, revision, fee_ppm FROM catalog.own_key_fees WHERE revision > $1 AND revision <= $2"


class PostgresPrices:
    """Reads what has been published since the last reading."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def read(self, known: PriceBook) -> PriceBook:
        """Every price and all terms ever published: those that are known, and what came after.

        Raises:
            asyncpg.PostgresError, OSError: they cannot be read now.
        """
        async with self._connections.acquire() as connection:
            # Revisions are committed in the order of their numbers, so nothing below the newest one comes later.
            as_of = await connection.fetchval("SELECT coalesce(max(revision), 0) FROM catalog.revisions")
            prices = await connection.fetch(_PRICES_BETWEEN, known.as_of, as_of)
            terms = await connection.fetch(_TERMS_BETWEEN, known.as_of, as_of)
            fees = await connection.fetch(_FEES_BETWEEN, known.as_of, as_of)
        return known.with_newer(
            PriceVersion(as_of),
            (((ModelName(row["model"]), ProviderName(row["provider"])), price_row(row)) for row in prices),
            ((OrgId(row["org_id"]), org_terms(row)) for row in terms),
            ((ProviderName(row["provider"]), OwnKeyFee(PriceVersion(row["revision"]), row["fee_ppm"])) for row in fees),
        )
