"""A catalogue and its document say the same: whatever is applied is what is exported, on a real Postgres."""

import asyncio

import asyncpg
from hypothesis import HealthCheck, given, settings

from control_plane.catalog.document import CatalogDocument, canonical
from control_plane.catalog.document_changes import Verb, changes
from control_plane.catalog.document_faults import faults
from control_plane.catalog.postgres_document import read_document, read_priced, write_changes
from control_plane.database import Connection
from control_plane.threads import threads
from control_plane.workbench import PLACES, Workbench
from gateway_core.clock import utc_now
from tests.support.catalog_documents import documents


async def apply(db: Connection, document: CatalogDocument, bench: Workbench) -> set[Verb]:
    """Apply with `prune`; what that took."""
    current, wanted = await read_document(db, bench), canonical(document)
    assert faults(current, document, priced=await read_priced(db), orgs=set(), with_credential=(), prune=True) == []
    found = changes(current, wanted, has_credential=set(), prune=True)
    await write_changes(db, current, wanted, found, sealed={}, now=utc_now())
    return {change.change for change in found.values()}


async def one_after_the_other(
    pool: asyncpg.Pool, bench: Workbench, first: CatalogDocument, second: CatalogDocument
) -> None:
    async with pool.acquire() as db:
        transaction = db.transaction()
        await transaction.start()
        try:
            assert await apply(db, first, bench) <= {Verb.CREATE}
            exported = await read_document(db, bench)
            assert exported == canonical(first)
            written = exported.model_dump_json(exclude_defaults=True)
            assert CatalogDocument.model_validate_json(written, strict=True) == exported
            assert await apply(db, exported, bench) == set()
        finally:
            await transaction.rollback()
        # A price holds from a revision on, and a revision is a transaction: the second document has to have its own.
        for document in (first, second):
            async with db.transaction():
                await apply(db, document, bench)
        assert await read_document(db, bench) == canonical(second)
        async with db.transaction():
            await apply(db, CatalogDocument(), bench)


async def test_what_is_applied_is_what_is_exported_and_applying_that_changes_nothing(pool: asyncpg.Pool) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(documents(), documents())
    def check(first: CatalogDocument, second: CatalogDocument) -> None:
        asyncio.run_coroutine_threadsafe(one_after_the_other(pool, bench, first, second), loop).result()

    async with threads(PLACES, "workbench") as workbench_threads:
        bench = Workbench(workbench_threads)
        await asyncio.to_thread(check)
