"""`/orgs/{org_id}/usage`, `/invoices`, and `/receipts/{request_id}`: what was used, and what it cost."""

from control_plane.accounts import postgres_orgs
from control_plane.accounts.permissions import Open, Permission
from control_plane.api.balance import TAG
from control_plane.api.dispatch import standing_in
from control_plane.api.download import Csv, Pdf
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.errors import InvalidField, InvalidFieldsError, NotFoundError
from control_plane.statements import postgres_invoices, postgres_usage
from control_plane.statements.invoice_text import invoice_csv, invoice_pdf, usage_csv
from control_plane.statements.model import USAGE_ROWS_MAX, Invoice, InvoiceSummary, Receipt, Usage, UsageQuery
from control_plane.statements.postgres_usage import TooMuchUsageError
from gateway_core.ids import OrgId


@operation("GET", "/orgs/{org_id}/usage", tag=TAG, access=Permission.BILLING_READ)
async def get_usage(call: Call, query: UsageQuery) -> Usage:
    """What an organisation used, by day, model, project and key."""
    return await _usage(call, query)


@operation("GET", "/orgs/{org_id}/usage/csv", tag=TAG, access=Permission.BILLING_READ)
async def download_usage(call: Call, query: UsageQuery) -> Csv:
    """The same as a table for spreadsheets."""
    return Csv(filename=f"usage-{query.since:%Y-%m-%d}.csv", content=usage_csv(await _usage(call, query)).encode())


@operation("GET", "/orgs/{org_id}/invoices", tag=TAG, access=Permission.BILLING_READ)
async def list_invoices(call: Call, query: PageQuery) -> Page[InvoiceSummary]:
    """Invoices that are closed, the latest first. The month under way is the invoice `draft`."""
    return await page_of(
        call,
        query,
        Page[InvoiceSummary],
        lambda position, limit: postgres_invoices.list_invoices(call.db, call.org_id, before=position, limit=limit),
    )


@operation("GET", "/orgs/{org_id}/invoices/{invoice_id}", tag=TAG, access=Permission.BILLING_READ)
async def get_invoice(call: Call) -> Invoice:
    """One invoice with its lines; `draft` is the one that is not closed yet."""
    return await _invoice(call)


@operation("GET", "/orgs/{org_id}/invoices/{invoice_id}/csv", tag=TAG, access=Permission.BILLING_READ)
async def download_invoice_csv(call: Call) -> Csv:
    """The lines of an invoice as a table for spreadsheets."""
    invoice = await _invoice(call)
    return Csv(filename=f"invoice-{invoice.month:%Y-%m}.csv", content=invoice_csv(invoice).encode())


@operation("GET", "/orgs/{org_id}/invoices/{invoice_id}/pdf", tag=TAG, access=Permission.BILLING_READ)
async def download_invoice_pdf(call: Call) -> Pdf:
    """An invoice to print."""
    invoice = await _invoice(call)
    org = found(await postgres_orgs.find_org(call.db, call.org_id))
    content = await call.services.workbench.do(invoice_pdf, invoice, org_name=org.name)
    return Pdf(filename=f"invoice-{invoice.month:%Y-%m}.pdf", content=content)


@operation("GET", "/receipts/{request_id}", tag=TAG, access=Open.KNOWN)
async def get_receipt(call: Call) -> Receipt:
    """What a finished request used and cost, by its `x-request-id`; for those who may read the bills of its organisation."""
    receipt = found(await postgres_usage.find_receipt(call.db, call.param("request_id")))
    standing = await standing_in(OrgId(receipt.org_id), call.actor, call.db)
    if not call.actor.may(Permission.BILLING_READ, standing.role):
        raise NotFoundError
    return receipt


async def _usage(call: Call, query: UsageQuery) -> Usage:
    try:
        return found(await postgres_usage.read_usage(call.db, call.org_id, query))
    except TooMuchUsageError:
        detail = f"more than {USAGE_ROWS_MAX} rows; ask for a shorter time, or by less"
        raise InvalidFieldsError(InvalidField("?by", detail)) from None


async def _invoice(call: Call) -> Invoice:
    invoice_id = call.param("invoice_id")
    return found(await postgres_invoices.find_invoice(call.db, call.org_id, invoice_id, call.services.now()))
