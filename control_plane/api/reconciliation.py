"""`/billing/reconciliation`: what providers say was used, against our books."""

import hashlib
import io
import re
from datetime import MAXYEAR, date
from typing import Final

from pydantic import Field

from control_plane.accounts.permissions import Permission
from control_plane.api.download import Csv
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.catalog.specs import ProviderNameText
from control_plane.errors import InvalidField, InvalidFieldsError, NotFoundError
from control_plane.reconciliation import postgres_reconciliations
from control_plane.reconciliation.comparison import compare
from control_plane.reconciliation.model import (
    ExportedFile,
    NewReconciliation,
    Period,
    Reconciliation,
    ReconciliationSummary,
    ppm_of,
)
from control_plane.reconciliation.report_csv import report_csv
from gateway_core.export_layouts import UnreadableExportError
from gateway_core.usage_exports import UsageExport, read_export

TAG: Final = "reconciliation"

DAYS_MAX: Final = 92
"""A quarter: who compares more compares it in parts."""
SLOTS_MAX: Final = 5000
"""Models times days or hours: a report that people read has some hundred, and it is one document."""

_ID: Final = re.compile(r"[0-9]{1,18}")


class ReconciliationQuery(PageQuery):
    """Which reconciliations."""

    provider: ProviderNameText | None = Field(default=None, description="Those of one provider.")


@operation("POST", "/billing/reconciliation", tag=TAG, access=Permission.PLATFORM_WRITE, status=201, is_heavy=True)
async def make_reconciliation(call: Call, body: NewReconciliation) -> Reconciliation:
    """Compare a provider's own account of what was used with ours, and keep what is found.

    The file is that of the provider's console, or one with the columns `day` (or `hour`), `model`, `requests`, `cost_usd` and the
    names of meters.
    """
    work = call.services.workbench.do
    faults = []
    if not await postgres_reconciliations.is_known(call.db, body.provider):
        faults.append(InvalidField("/provider", "there is no provider of this name"))
    try:
        theirs = await work(_read, body)
        first_day, last_day = _days(theirs)
    except InvalidFieldsError as error:
        raise InvalidFieldsError(*faults, *error.fields) from error
    if faults:
        raise InvalidFieldsError(*faults)
    ours = await postgres_reconciliations.read_ours(call.db, body.provider, first_day, last_day)
    unaccounted = await postgres_reconciliations.read_unaccounted(call.db, body.provider, first_day, last_day)
    threshold_ppm = ppm_of(body.threshold_percent)
    compared = await work(
        compare,
        theirs,
        ours,
        unaccounted,
        by=body.by,
        threshold_ppm=threshold_ppm,
        model_names=body.model_names,
    )
    file = body.file or ExportedFile(format=theirs.format, sha256=hashlib.sha256(body.content.encode()).hexdigest())
    kept = await postgres_reconciliations.keep(
        call.db,
        body.provider,
        file,
        (first_day, last_day),
        compared,
        threshold_ppm=threshold_ppm,
        actor=call.actor,
    )
    await call.audit("reconciliation.make", str(kept.id), after=ReconciliationSummary.model_validate(kept.model_dump()))
    return kept


@operation("GET", "/billing/reconciliation", tag=TAG, access=Permission.PLATFORM_READ)
async def list_reconciliations(call: Call, query: ReconciliationQuery) -> Page[ReconciliationSummary]:
    """What was found before, the latest first."""
    return await page_of(
        call,
        query,
        Page[ReconciliationSummary],
        lambda position, limit: postgres_reconciliations.list_reconciliations(
            call.db, provider=query.provider, before=position, limit=limit
        ),
    )


@operation("GET", "/billing/reconciliation/{reconciliation_id}", tag=TAG, access=Permission.PLATFORM_READ)
async def get_reconciliation(call: Call) -> Reconciliation:
    """One of them, whole."""
    return await _one(call)


@operation("GET", "/billing/reconciliation/{reconciliation_id}/csv", tag=TAG, access=Permission.PLATFORM_READ)
async def download_reconciliation(call: Call) -> Csv:
    """The lines of one of them as a table for spreadsheets."""
    one = await _one(call)
    return Csv(filename=f"reconciliation-{one.id}.csv", content=report_csv(one).encode())


async def _one(call: Call) -> Reconciliation:
    text = call.param("reconciliation_id")
    if not _ID.fullmatch(text):
        raise NotFoundError
    return found(await postgres_reconciliations.find_reconciliation(call.db, int(text)))


def _read(body: NewReconciliation) -> UsageExport:
    try:
        export = read_export(io.StringIO(body.content, newline=""), body.format)
    except UnreadableExportError as error:
        raise InvalidFieldsError(InvalidField("/content", str(error))) from error
    if body.by is Period.DAY:
        return export.by_day()
    if not export.is_hourly:
        raise InvalidFieldsError(InvalidField("/by", "the file tells days only"))
    return export


def _days(export: UsageExport) -> tuple[date, date]:
    days = [at.date() for at, _ in export.amounts]
    first, last = min(days), max(days)
    if len(export.amounts) > SLOTS_MAX:
        raise InvalidFieldsError(
            InvalidField("/content", f"it names more than {SLOTS_MAX} models and times; export fewer days")
        )
    if (last - first).days >= DAYS_MAX or last.year == MAXYEAR:
        raise InvalidFieldsError(InvalidField("/content", f"it is about more than {DAYS_MAX} days"))
    return first, last
