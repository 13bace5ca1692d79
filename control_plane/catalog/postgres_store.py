"""The catalogue in Postgres (schema `catalog`): read whole, in one snapshot."""

import asyncpg

from control_plane.catalog.credentials import CredentialCipher, UnreadableCredentialError
from control_plane.catalog.model import Catalog, Deployment, InvalidBaseUrlError, Model, Provider, check_base_url
from gateway_core.ids import ModelName, ProviderName
from gateway_core.logs import Logger
from gateway_core.providers import ProviderKind


async def read_catalog(pool: asyncpg.Pool, cipher: CredentialCipher, log: Logger) -> Catalog:
    """Read everything that can be used, as of one moment.

    A provider whose credential does not open or whose URL is none is left out with its deployments, and so is a deployment nobody priced:
    what cannot be reached or charged is not offered.
    """
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        revision = await connection.fetchval("SELECT coalesce(max(revision), 0) FROM catalog.revisions")
        providers = await connection.fetch("SELECT name, kind, base_url, credential FROM catalog.providers")
        models = await connection.fetch(
            "SELECT name, owned_by, extract(epoch FROM created_at)::bigint AS created FROM catalog.models"
        )
        deployments = await connection.fetch(
            """
            SELECT model, provider, upstream_model, priority, weight FROM catalog.deployments d
            WHERE EXISTS (SELECT FROM catalog.prices p WHERE p.model = d.model AND p.provider = d.provider)
            """
        )
    usable = {}
    for row in providers:
        try:
            usable[ProviderName(row["name"])] = _provider(row, cipher)
        except (UnreadableCredentialError, InvalidBaseUrlError) as error:
            log.error("provider_left_out", provider=row["name"], error=str(error))  # noqa: TRY400 - a traceback adds nothing
    return Catalog(
        revision=revision,
        providers=usable,
        models={row["name"]: Model(ModelName(row["name"]), row["owned_by"], row["created"]) for row in models},
        deployments=tuple(
            Deployment(
                ModelName(row["model"]),
                ProviderName(row["provider"]),
                row["upstream_model"],
                row["priority"],
                row["weight"],
            )
            for row in deployments
            if row["provider"] in usable
        ),
    )


def _provider(row: asyncpg.Record, cipher: CredentialCipher) -> Provider:
    name = ProviderName(row["name"])
    check_base_url(row["base_url"])
    return Provider(
        name=name,
        kind=ProviderKind(row["kind"]),
        base_url=row["base_url"],
        credential=cipher.open(name, row["credential"]) if row["credential"] is not None else None,
    )
