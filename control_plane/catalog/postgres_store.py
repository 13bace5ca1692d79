"""The catalogue in Postgres (schema `catalog`): what can be served, read whole, in one snapshot."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

import asyncpg

from control_plane.catalog.aws_keys import InvalidAwsKeyError
from control_plane.catalog.model import (
    Catalog,
    Deployment,
    InvalidBaseUrlError,
    MissingCredentialError,
    Model,
    OwnKey,
    Policy,
    Provider,
    check_base_url,
)
from control_plane.catalog.postgres_first_bytes import first_bytes
from control_plane.catalog.postgres_states import read_states
from control_plane.catalog.specs import OwnKeys
from control_plane.catalog.strategies import StickyBy, Strategy, nominal_cost
from control_plane.database import Connection
from control_plane.sealing import Seal, UnreadableSealError, own_key, provider_credential
from gateway_core.endpoints import SOLD, Endpoint
from gateway_core.ids import ModelName, OrgId, ProviderName
from gateway_core.logs import Logger
from gateway_core.postgres_prices import price_row
from gateway_core.providers import ProviderKind

_SERVED = """
    SELECT s.*, r.orgs_allowed, r.attempts_max, r.retry_statuses, r.first_byte_timeout_ms, r.idle_timeout_ms,
           r.strategy, r.sticky_by, r.cache_ttl_s
    FROM catalog.served s JOIN catalog.routes r ON r.name = s.route
"""
_PRICES = """
    SELECT s.model, s.provider, p.*
    FROM catalog.served s JOIN catalog.routes r ON r.name = s.route
    CROSS JOIN LATERAL (
        SELECT revision, array_agg(meter) AS meters, array_agg(condition) AS conditions,
               array_agg(cost_nano_usd_per_mtok) AS costs, array_agg(price_nano_usd_per_mtok) AS prices
        FROM catalog.prices WHERE model = s.model AND provider = s.provider
        GROUP BY revision ORDER BY revision DESC LIMIT 1
    ) p
    WHERE r.strategy = 'lowest_cost'
"""
"""Of the deployments on routes that go by cost."""
_ENDPOINTS: Final = frozenset(SOLD)
"""A name that a newer version has written is passed over: nothing here could serve it."""
_MODELS = "SELECT name, owned_by, endpoints, extract(epoch FROM created_at)::bigint AS created FROM catalog.models"
_ALIASES = "SELECT model, array_agg(alias ORDER BY alias) AS aliases FROM catalog.model_aliases GROUP BY model"


async def read_catalog(pool: asyncpg.Pool, seal: Seal, log: Logger) -> Catalog:
    """Read everything that can be used, as of one moment."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        return await read_catalog_within(connection, seal, log)


async def read_catalog_within(db: Connection, seal: Seal, log: Logger) -> Catalog:
    """The same inside a transaction, which sees what that has changed.

    A provider whose credential does not open, is none of its kind or is missing where there has to be one, or whose URL is none, is
    left out with its deployments, and so is an organisation's own key that does not open; a deployment without a published route or a price is not there: what cannot be reached or charged
    is not offered.
    """
    revision = await db.fetchval("SELECT coalesce(max(revision), 0) FROM catalog.revisions")
    usable = {}
    for row in await db.fetch("SELECT * FROM catalog.providers"):
        try:
            usable[ProviderName(row["name"])] = _provider(row, seal)
        except (UnreadableSealError, InvalidBaseUrlError, InvalidAwsKeyError, MissingCredentialError) as error:
            log.error("provider_left_out", provider=row["name"], error=str(error))  # noqa: TRY400 - a traceback adds nothing
    own_keys_as_of = await db.fetchval("SELECT coalesce(max(revision), 0) FROM catalog.own_key_changes")
    own_keys = []
    for row in await db.fetch("SELECT org_id, provider, credential FROM catalog.own_keys ORDER BY org_id, provider"):
        try:
            if row["provider"] in usable:
                own_keys.append(_own_key(row, usable[ProviderName(row["provider"])], seal))
        except (UnreadableSealError, InvalidAwsKeyError) as error:
            log.error("own_key_left_out", org_id=row["org_id"], provider=row["provider"], error=str(error))  # noqa: TRY400 - a traceback adds nothing
    served = await db.fetch(_SERVED)
    routes = {row["model"]: row for row in served}
    aliases = {row["model"]: row["aliases"] for row in await db.fetch(_ALIASES)}
    figures = await _figures(db, served)
    return Catalog(
        revision=revision,
        providers=usable,
        models={
            ModelName(row["name"]): _model(row, aliases.get(row["name"], ()), routes.get(row["name"]))
            for row in await db.fetch(_MODELS)
        },
        deployments=tuple(
            Deployment(
                ModelName(row["model"]),
                ProviderName(row["provider"]),
                row["upstream_model"],
                row["priority"],
                row["weight"],
                figures.get((row["model"], row["provider"])),
            )
            for row in served
            if row["provider"] in usable
        ),
        own_keys=tuple(own_keys),
        own_keys_as_of=own_keys_as_of,
        states={subject: state for subject, state in (await read_states(db)).items() if state.is_out},
    )


async def _figures(db: Connection, served: Iterable[asyncpg.Record]) -> Mapping[tuple[ModelName, ProviderName], int]:
    """By what a route orders its deployments, where it does and there is anything to go by; see `Deployment.figure`."""
    strategies = {Strategy(row["strategy"]) for row in served}
    found: dict[tuple[ModelName, ProviderName], int] = {}
    if Strategy.LOWEST_COST in strategies:
        costs = {(row["model"], row["provider"]): nominal_cost(price_row(row)) for row in await db.fetch(_PRICES)}
        found |= {names: cost for names, cost in costs.items() if cost is not None}
    if Strategy.LOWEST_LATENCY in strategies:
        found |= await first_bytes(db)
    return found


def _model(row: asyncpg.Record, aliases: Iterable[str], route: asyncpg.Record | None) -> Model:
    """A model, and what its route says, if it has one."""
    endpoints = tuple(Endpoint(each) for each in row["endpoints"] if each in _ENDPOINTS)
    model = Model(
        ModelName(row["name"]), row["owned_by"], row["created"], tuple(map(ModelName, aliases)), endpoints=endpoints
    )
    if route is None:
        return model
    statuses = route["retry_statuses"]
    policy = Policy(
        attempts_max=route["attempts_max"],
        retry_statuses=None if statuses is None else tuple(statuses),
        first_byte_timeout_ms=route["first_byte_timeout_ms"],
        idle_timeout_ms=route["idle_timeout_ms"],
        cache_ttl_s=route["cache_ttl_s"],
        strategy=Strategy(route["strategy"]),
        sticky_by=None if route["sticky_by"] is None else StickyBy(route["sticky_by"]),
    )
    return replace(model, policy=policy, orgs_allowed=tuple(map(OrgId, route["orgs_allowed"])))


def _provider(row: asyncpg.Record, seal: Seal) -> Provider:
    name = ProviderName(row["name"])
    check_base_url(row["base_url"])
    provider = Provider(
        name=name,
        kind=ProviderKind(row["kind"]),
        base_url=row["base_url"],
        region=row["region"],
        credential=seal.open_secret(provider_credential(name), row["credential"])
        if row["credential"] is not None
        else None,
        headers=json.loads(row["headers"]),
        connect_timeout_ms=row["connect_timeout_ms"],
        connections_max=row["connections_max"],
        requests_max=row["requests_max"],
        is_limited_by_minute=row["requests_per_minute_max"] is not None or row["tokens_per_minute_max"] is not None,
        own_keys_allowed=row["own_keys"] == OwnKeys.ALLOWED,
        probed=row["probed"],
    )
    provider.check_credential()
    return provider


def _own_key(row: asyncpg.Record, provider: Provider, seal: Seal) -> OwnKey:
    org_id = OrgId(row["org_id"])
    credential = seal.open_secret(own_key(org_id, provider.name), row["credential"])
    found = OwnKey(org_id, replace(provider, credential=credential))
    found.provider.check_credential()
    return found
