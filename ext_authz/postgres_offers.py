"""The offers from Postgres (schema `catalog`), which control_plane writes; read whole, in one snapshot."""

import asyncio
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, Self

import asyncpg

from ext_authz.offers import Offer, Offers, PricedDeployment
from ext_authz.own_keys import OwnKeyBook, OwnKeys
from gateway_core.clock import Now
from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, OrgId, PriceVersion, ProviderName
from gateway_core.limits import NO_LIMITS, Limits, Scope, scoped
from gateway_core.logs import Logger
from gateway_core.postgres_prices import org_terms, price_row
from gateway_core.providers import ProviderKind, served

_KINDS: Final = frozenset(ProviderKind)


class PostgresOffers:
    """Holds the newest reading. Postgres gone: the last one stays in force."""

    def __init__(self, pool: asyncpg.Pool, now: Now, log: Logger, offers: Offers, *, translated: bool) -> None:
        self._pool = pool
        self._now = now
        self._log = log
        self._read_again = asyncio.Event()
        self.offers = offers
        self._translated = translated

    @classmethod
    async def read(cls, pool: asyncpg.Pool, now: Now, log: Logger, *, translated: bool = False) -> Self:
        """Read them for the first time; with what a translator makes possible, if there is one.

        Raises:
            asyncpg.PostgresError, OSError: they cannot be read now.
        """
        return cls(pool, now, log, await _read(pool, log, translated=translated), translated=translated)

    async def refresh(self) -> None:
        """Read them again.

        Raises:
            asyncpg.PostgresError, OSError: the last reading stays.
        """
        newest = await _read(self._pool, self._log, translated=self._translated)
        self.offers = newest.after(self.offers, self._now())
        self._read_again.set()
        self._read_again = asyncio.Event()

    async def wait_for_next(self, timeout_s: float) -> bool:
        """Wait until they have been read again; False if they were not in time."""
        try:
            await asyncio.wait_for(self._read_again.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


async def _read(pool: asyncpg.Pool, log: Logger, *, translated: bool) -> Offers:
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        version = await connection.fetchval("SELECT coalesce(max(revision), 0) FROM catalog.revisions")
        aliases = await connection.fetch("SELECT alias, model FROM catalog.model_aliases")
        rows = await connection.fetch(
            """
            SELECT s.model, s.provider, s.upstream_model, m.context_tokens, m.max_output_tokens, m.endpoints, m.requests_per_minute_max, m.tokens_per_minute_max,
                   m.concurrency_max, r.orgs_allowed, v.kind, p.*
            FROM catalog.served s
            JOIN catalog.models m ON m.name = s.model
            JOIN catalog.routes r ON r.name = s.route
            JOIN catalog.providers v ON v.name = s.provider
            CROSS JOIN LATERAL (
                SELECT revision, array_agg(meter) AS meters, array_agg(condition) AS conditions,
                       array_agg(cost_nano_usd_per_mtok) AS costs, array_agg(price_nano_usd_per_mtok) AS prices
                FROM catalog.prices WHERE model = s.model AND provider = s.provider
                GROUP BY revision ORDER BY revision DESC LIMIT 1
            ) p
            ORDER BY s.priority, s.provider
            """
        )
        providers = await connection.fetch(
            "SELECT name, kind, requests_per_minute_max, tokens_per_minute_max, requests_max FROM catalog.providers"
        )
        terms = await connection.fetch(
            """
            SELECT t.org_id, t.revision, t.markup_ppm, array_agg(p.model) AS models, array_agg(p.provider) AS providers,
                   array_agg(p.meter) AS meters, array_agg(p.price_nano_usd_per_mtok) AS prices
            FROM (SELECT DISTINCT ON (org_id) * FROM catalog.terms ORDER BY org_id, revision DESC) t
            LEFT JOIN catalog.term_prices p USING (org_id, revision)
            GROUP BY t.org_id, t.revision, t.markup_ppm
            """
        )
        fees = await connection.fetch(
            "SELECT DISTINCT ON (provider) provider, fee_ppm FROM catalog.own_key_fees ORDER BY provider, revision DESC"
        )
        own_keys_as_of = await connection.fetchval("SELECT coalesce(max(revision), 0) FROM catalog.own_key_changes")
        own_keys = await connection.fetch("SELECT org_id, provider, fallback FROM catalog.own_keys ORDER BY org_id")
    offers: dict[ModelName, Offer] = {}
    for model, members in groupby(sorted(rows, key=itemgetter("model")), key=itemgetter("model")):
        found = list(members)
        deployments = [_deployment(row) for row in found]
        if unusable := [each.provider for each in deployments if not each.price.is_usable]:
            # Envoy may send a request to any of them, so to offer the others would be to guess what it costs.
            log.error("price_unusable", model=model, providers=unusable)
            continue
        offers[model] = _offer(found, deployments, translated=translated)
    offers |= {row["alias"]: offers[row["model"]] for row in aliases if row["model"] in offers}
    return Offers(
        PriceVersion(version),
        offers,
        {OrgId(row["org_id"]): org_terms(row) for row in terms},
        # One of a kind that a newer version has written keeps nothing that could be asked for here.
        {ProviderName(row["name"]): ProviderKind(row["kind"]) for row in providers if row["kind"] in _KINDS},
        provider_limits={
            ProviderName(row["name"]): limits
            for row in providers
            if (limits := Limits(row["requests_per_minute_max"], row["tokens_per_minute_max"], row["requests_max"]))
            != NO_LIMITS
        },
        own_key_fees_ppm={ProviderName(row["provider"]): row["fee_ppm"] for row in fees},
        own_keys=OwnKeyBook(
            own_keys_as_of,
            {
                OrgId(org_id): OwnKeys({ProviderName(row["provider"]): row["fallback"] for row in members})
                for org_id, members in groupby(own_keys, key=itemgetter("org_id"))
            },
        ),
    )


def _deployment(row: asyncpg.Record) -> PricedDeployment:
    return PricedDeployment(ProviderName(row["provider"]), row["upstream_model"], price_row(row))


def _offer(rows: Sequence[asyncpg.Record], deployments: Sequence[PricedDeployment], *, translated: bool) -> Offer:
    """A model from its rows, one per deployment."""
    prices: dict[Endpoint, tuple[PricedDeployment, ...]] = {}
    for row, deployment in zip(rows, deployments, strict=True):
        for endpoint in served(ProviderKind(row["kind"]), row["endpoints"], translated=translated):
            prices[endpoint] = (*prices.get(endpoint, ()), deployment)
    first = rows[0]
    return Offer(
        model=ModelName(first["model"]),
        context_tokens=first["context_tokens"],
        max_output_tokens=first["max_output_tokens"],
        orgs_allowed=frozenset(map(OrgId, first["orgs_allowed"])),
        prices=prices,
        limits=scoped(
            Scope.MODEL,
            first["model"],
            Limits(first["requests_per_minute_max"], first["tokens_per_minute_max"], first["concurrency_max"]),
        ),
    )
