"""Seals again, under the installation's current key, what is sealed under an older one; for a change of that key.

Safe while services run: a value is replaced only if it is still the one that was read, and both keys open it meanwhile.
Safe to stop: what is done is done, and the next run takes the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import asyncpg

from control_plane.sealing import (
    Purpose,
    Seal,
    UnreadableSealError,
    idempotent_answer,
    own_key,
    provider_credential,
    signing_key,
    webhook_secret,
)
from gateway_core.ids import OrgId, ProviderName
from gateway_core.logs import Logger

BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """Where sealed values are.

    Attributes:
        column: the table's column, for the log.
        read: gives the sealed value last, after what identifies it; takes how the values that are in order begin.
        replace: takes the same and the new value.
        purpose: of what identifies a value.
        batch: how many values are replaced in one transaction.
    """

    column: str
    read: str
    replace: str
    purpose: Callable[..., Purpose]
    batch: int = BATCH


COLUMNS: Final = (
    SealedColumn(
        "catalog.providers.credential",
        """
        SELECT name, credential FROM catalog.sealed_credentials WHERE substr(credential, 1, length($1::bytea)) <> $1
        """,
        "SELECT catalog.reseal_credential($1, $2, $3)",
        lambda name: provider_credential(ProviderName(name)),
        # Each one locks a provider that operators and undone changes want to write, and they lock several.
        batch=1,
    ),
    SealedColumn(
        "catalog.own_keys.credential",
        """
        SELECT org_id, provider, credential FROM catalog.sealed_own_keys WHERE substr(credential, 1, length($1::bytea)) <> $1
        """,
        "SELECT catalog.reseal_own_key($1, $2, $3, $4)",
        lambda org_id, provider: own_key(OrgId(org_id), ProviderName(provider)),
        batch=1,
    ),
    SealedColumn(
        "accounts.signing_keys.sealed_private",
        """
        SELECT kid, sealed_private FROM accounts.signing_keys WHERE substr(sealed_private, 1, length($1::bytea)) <> $1
        """,
        "UPDATE accounts.signing_keys SET sealed_private = $3 WHERE kid = $1 AND sealed_private = $2",
        signing_key,
    ),
    SealedColumn(
        "accounts.idempotency_keys.sealed_answer",
        """
        SELECT caller, idempotency_key, sealed_answer FROM accounts.idempotency_keys
        WHERE substr(sealed_answer, 1, length($1::bytea)) <> $1
        """,
        """
        UPDATE accounts.idempotency_keys SET sealed_answer = $4
        WHERE caller = $1 AND idempotency_key = $2 AND sealed_answer = $3
        """,
        idempotent_answer,
    ),
    SealedColumn(
        "payments.webhooks.sealed_secret",
        """
        SELECT webhook_id, sealed_secret FROM payments.webhooks WHERE substr(sealed_secret, 1, length($1::bytea)) <> $1
        """,
        "UPDATE payments.webhooks SET sealed_secret = $3 WHERE webhook_id = $1 AND sealed_secret = $2",
        webhook_secret,
    ),
    SealedColumn(
        "payments.webhooks.sealed_secret_before",
        """
        SELECT webhook_id, sealed_secret_before FROM payments.webhooks
        WHERE substr(sealed_secret_before, 1, length($1::bytea)) <> $1
        """,
        "UPDATE payments.webhooks SET sealed_secret_before = $3 WHERE webhook_id = $1 AND sealed_secret_before = $2",
        webhook_secret,
    ),
)


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass over all columns has done.

    Attributes:
        resealed: values now sealed under the current key.
        unreadable: values that no key opens, left as they were; the log names each.
    """

    resealed: int
    unreadable: int


async def reseal(dsn: str, seal: Seal, log: Logger) -> Pass:
    """One pass. Opens two connections: one reads a snapshot, the other writes batch by batch."""
    reader = await asyncpg.connect(dsn)
    try:
        writer = await asyncpg.connect(dsn)
        try:
            passes = [await _reseal_column(column, reader, writer, seal, log) for column in COLUMNS]
        finally:
            await writer.close()
    finally:
        await reader.close()
    return Pass(sum(each.resealed for each in passes), sum(each.unreadable for each in passes))


async def _reseal_column(
    column: SealedColumn, reader: asyncpg.Connection, writer: asyncpg.Connection, seal: Seal, log: Logger
) -> Pass:
    resealed = unreadable = 0
    async with reader.transaction(isolation="repeatable_read", readonly=True):
        cursor = await reader.cursor(column.read, seal.header)
        while rows := await cursor.fetch(BATCH):
            replacements = []
            for row in rows:
                *identity, sealed = row.values()
                purpose = column.purpose(*identity)
                try:
                    replacements.append((*identity, sealed, seal.reseal(purpose, sealed)))
                except UnreadableSealError as error:
                    unreadable += 1
                    log.warning("unreadable", column=column.column, error=str(error))
            for start in range(0, len(replacements), column.batch):
                await writer.executemany(column.replace, replacements[start : start + column.batch])
            resealed += len(replacements)
            log.info("resealed", column=column.column, values=resealed, unreadable=unreadable)
    return Pass(resealed, unreadable)
