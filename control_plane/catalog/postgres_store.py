"""The catalogue in Postgres (schema `catalog`): read whole, in one snapshot."""

import asyncpg

from control_plane.catalog.credentials import CredentialCipher
from control_plane.catalog.model import Catalog, Deployment, Model, Provider
from gateway_core.ids import ModelName, ProviderName
from gateway_core.providers import ProviderKind


async def read_catalog(pool: asyncpg.Pool, cipher: CredentialCipher) -> Catalog:
    """Read everything as of one moment.

    Raises:
        UnreadableCredentialError: a credential was sealed with another key.
    """
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        revision = await connection.fetchval("SELECT coalesce(max(revision), 0) FROM catalog.revisions")
        providers = await connection.fetch("SELECT name, kind, base_url, credential FROM catalog.providers")
        models = await connection.fetch(
            "SELECT name, owned_by, extract(epoch FROM created_at)::bigint AS created FROM catalog.models"
        )
        deployments = await connection.fetch(
            "SELECT model, provider, upstream_model, priority, weight FROM catalog.deployments"
        )
    return Catalog(
        revision=revision,
        providers={
            row["name"]: Provider(
                name=ProviderName(row["name"]),
                kind=ProviderKind(row["kind"]),
                base_url=row["base_url"],
                credential=cipher.open(row["name"], row["credential"]) if row["credential"] is not None else None,
            )
            for row in providers
        },
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
        ),
    )
