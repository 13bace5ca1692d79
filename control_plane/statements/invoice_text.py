"""An invoice as CSV, for spreadsheets, and as PDF, for people. Pure."""

from collections.abc import Iterator
from typing import Final

import fontpkg_noto_sans
from fpdf import FPDF, FontFace

from control_plane.spreadsheet import csv_text
from control_plane.statements.model import Invoice, InvoiceLine, InvoiceState, Usage
from gateway_core.usage import Meter

_FONT: Final = fontpkg_noto_sans.ROOT / "files" / "NotoSans[wdth,wght].ttf"
_MARGIN_MM: Final = 18
_COLUMNS_MM: Final = (96, 26, 52)
_LINE_MM: Final = 6
_GREY: Final = (110, 110, 110)

_TITLES: Final = {
    "usage": "Usage",
    "credit": "Credit",
    "voucher": "Vouchers",
    "topup": "Payments",
    "refund": "Refunds",
    "dispute": "Disputed payments",
    "dispute_won": "Disputes won",
}


def invoice_csv(invoice: Invoice) -> str:
    """One row for each line; the meters have columns of their own."""
    meters = [meter for meter in Meter if any(line.meters and meter in line.meters for line in invoice.lines)]
    rows = [["kind", "project_id", "model", "count", *meters, "amount", "currency"]]
    rows += [
        [
            *(line.kind, line.project_id or "", line.model or "", str(line.count)),
            *(str((line.meters or {}).get(meter, 0)) for meter in meters),
            *(line.amount, invoice.currency),
        ]
        for line in invoice.lines
    ]
    return csv_text(rows)


def usage_csv(usage: Usage) -> str:
    """One row for each row; the meters have columns of their own."""
    meters = [meter for meter in Meter if any(meter in row.meters for row in usage.data)]
    rows = [["day", "model", "project_id", "key_id", "requests", *meters, "amount", "currency"]]
    rows += [
        [
            *(str(row.day or ""), row.model or "", row.project_id or "", row.key_id or "", str(row.requests)),
            *(str(row.meters.get(meter, 0)) for meter in meters),
            *(row.amount, usage.currency),
        ]
        for row in usage.data
    ]
    return csv_text(rows)


def invoice_pdf(invoice: Invoice, *, org_name: str) -> bytes:
    """An A4 document. Takes some tenths of a second of CPU."""
    pdf = FPDF(format="A4")
    pdf.set_margin(_MARGIN_MM)
    pdf.add_font("sans", fname=_FONT)
    pdf.set_creation_date(invoice.closed_at or invoice.ends_at)
    pdf.set_title(_title(invoice))
    pdf.add_page()
    pdf.set_font("sans", "", 18)
    pdf.cell(0, 12, _title(invoice), new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("sans", "", 10)
    for label, value in _facts(invoice, org_name):
        pdf.set_text_color(*_GREY)
        pdf.cell(40, _LINE_MM, label)
        pdf.set_text_color(0)
        pdf.multi_cell(0, _LINE_MM, value, new_x="LMARGIN", new_y="NEXT")
    pdf.ln(_LINE_MM)
    with pdf.table(
        headings_style=FontFace(),
        col_widths=_COLUMNS_MM,
        text_align=("LEFT", "RIGHT", "RIGHT"),
        borders_layout="SINGLE_TOP_LINE",
        line_height=_LINE_MM,
    ) as table:
        for row in _rows(invoice):
            table.row(row)
    return bytes(pdf.output())


def _title(invoice: Invoice) -> str:
    if invoice.state is InvoiceState.DRAFT:
        return f"Draft, {invoice.month:%B %Y}"
    return f"Invoice {invoice.number}, {invoice.month:%B %Y}"


def _facts(invoice: Invoice, org_name: str) -> Iterator[tuple[str, str]]:
    yield "Organisation", org_name
    yield "Id", invoice.id
    yield "Month ends", f"{invoice.ends_at:%Y-%m-%d %H:%M} UTC ({invoice.time_zone})"
    if invoice.closed_at is not None:
        yield "Closed", f"{invoice.closed_at:%Y-%m-%d %H:%M} UTC"


def _rows(invoice: Invoice) -> Iterator[tuple[str, str, str]]:
    yield "", "Count", f"Amount in {invoice.currency}"
    yield "Opening balance", "", invoice.opening_balance
    for line in invoice.lines:
        yield _label(line), str(line.count), line.amount
    yield "Closing balance", "", invoice.closing_balance


def _label(line: InvoiceLine) -> str:
    title = _TITLES[line.kind]
    if line.model is None:
        return title
    counted = ", ".join(f"{meter} {count:,}" for meter, count in sorted((line.meters or {}).items()))
    return f"{title}: {line.model} ({counted})"
