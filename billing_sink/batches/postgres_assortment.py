"""What can be had at a provider, from Postgres (schema `catalog`), which control_plane writes."""

import asyncpg

from billing_sink.batches.admission import Assortment, Sold
from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, OrgId, ProviderName
from gateway_core.providers import ProviderKind, served

_KINDS = frozenset(ProviderKind)
_ENDPOINTS = frozenset(Endpoint)


class PostgresAssortment:
    """What is sold now."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def read(self, provider: ProviderName | None) -> Assortment:
        """Of one provider; of all of them for the simulator, in the order of their routes."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            aliases = await connection.fetch("SELECT alias, model FROM catalog.model_aliases")
            rows = await connection.fetch(
                """
                SELECT s.model, s.provider, s.upstream_model, m.context_tokens, m.max_output_tokens, m.endpoints, r.orgs_allowed, v.kind
                FROM catalog.served s
                JOIN catalog.models m ON m.name = s.model
                JOIN catalog.routes r ON r.name = s.route
                JOIN catalog.providers v ON v.name = s.provider
                WHERE $1::text IS NULL OR s.provider = $1
                ORDER BY s.priority, s.provider
                """,
                provider,
            )
        found: dict[ModelName, tuple[Sold, ...]] = {}
        for row in rows:
            # Of a kind that a newer version has written, nothing is known.
            if row["kind"] in _KINDS:
                model = ModelName(row["model"])
                found[model] = (*found.get(model, ()), _sold(row))
        return found | {ModelName(row["alias"]): found[row["model"]] for row in aliases if row["model"] in found}


def _sold(row: asyncpg.Record) -> Sold:
    endpoints = [Endpoint(each) for each in row["endpoints"] if each in _ENDPOINTS]
    return Sold(
        ModelName(row["model"]),
        ProviderName(row["provider"]),
        row["upstream_model"],
        row["context_tokens"],
        row["max_output_tokens"],
        frozenset(map(OrgId, row["orgs_allowed"])),
        frozenset(served(ProviderKind(row["kind"]), endpoints, translated=False)),
    )
