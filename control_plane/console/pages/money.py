"""What an organisation used, has, pays in and is invoiced."""

import asyncio
from typing import Final

from aiohttp import web

from control_plane.accounts.permissions import Permission
from control_plane.console import forms
from control_plane.console.changes import change_on, to
from control_plane.console.forms import Form
from control_plane.console.pages.organizations import org_of, path_of, spending_of
from control_plane.console.rendering import page
from control_plane.console.visitor import VISITOR
from control_plane.errors import InvalidField, InvalidFieldsError, RefusedError

MONEY: Final = "money"
RANGES: Final = (7, 30, 90)
BY: Final = ("model", "project", "key")
MODES: Final = ("live", "test")
_DOWNLOADS: Final = {"pdf": "download_invoice_pdf", "csv": "download_invoice_csv"}


async def show_usage(request: web.Request) -> web.Response:
    """GET /orgs/{org_id}/usage."""
    org = await org_of(request)
    days = int(_one_of(request, "days", [str(each) for each in RANGES], str(RANGES[1])))
    by, mode = _one_of(request, "by", BY, BY[0]), _one_of(request, "mode", MODES, MODES[0])
    spending = await spending_of(request[VISITOR], org, days=days, by=by, mode=mode)
    return page(request, "usage.html", org=org, spending=spending, mode=mode, ranges=RANGES, groupings=BY, modes=MODES)


def _one_of(request: web.Request, name: str, known: tuple[str, ...] | list[str], default: str) -> str:
    value = request.query.get(name, default)
    if value not in known:
        raise InvalidFieldsError(InvalidField(f"?{name}", f"must be one of {', '.join(known)}"))
    return value


async def show_money(
    request: web.Request, *, form: Form | None = None, refused: RefusedError | None = None
) -> web.Response:
    """GET /orgs/{org_id}/money."""
    visitor, org = request[VISITOR], await org_of(request)
    balance, topups, invoices, transactions = await asyncio.gather(
        visitor.ask("get_balance", org_id=org["id"]),
        visitor.ask("list_topups", query={"limit": "10"}, org_id=org["id"]),
        visitor.ask("list_invoices", query={"limit": "12"}, org_id=org["id"]),
        visitor.ask("list_transactions", query={"limit": "20"}, org_id=org["id"]),
    )
    return page(
        request,
        "money.html",
        org=org,
        balance=balance,
        topups=topups["data"],
        invoices=invoices["data"],
        transactions=transactions["data"],
        pays=visitor.may(Permission.BILLING_WRITE, org["role"]),
        credits=visitor.may(Permission.PLATFORM_WRITE, org["role"]),
        form=form,
        refused=refused,
    )


@change_on(show_money)
async def top_up(request: web.Request, form: Form) -> web.Response:
    """POST /orgs/{org_id}/topups: on to the page that is paid at, by a link, since a form may lead to this server only."""
    org = await org_of(request)
    made = await request[VISITOR].ask(
        "create_topup",
        body={
            "amount": form.get("amount", ""),
            "currency": "USD",
            "save_payment_method": forms.ticked(form, "save_payment_method"),
        },
        org_id=org["id"],
    )
    return page(request, "topup.html", org=org, topup=made, status=201)


@change_on(show_money)
async def redeem(request: web.Request, form: Form) -> web.Response:
    """POST /orgs/{org_id}/redemptions."""
    await request[VISITOR].ask(
        "create_redemption", body={"code": form.get("code", "").strip()}, org_id=request.match_info["org_id"]
    )
    return to(path_of(request, MONEY))


@change_on(show_money)
async def credit(request: web.Request, form: Form) -> web.Response:
    """POST /orgs/{org_id}/credits."""
    await request[VISITOR].ask(
        "create_credit",
        body={"amount": form.get("amount", ""), "currency": "USD", "reason": form.get("reason", "")},
        org_id=request.match_info["org_id"],
    )
    return to(path_of(request, MONEY))


async def download_invoice(request: web.Request) -> web.Response:
    """GET /orgs/{org_id}/invoices/{invoice_id}/{form}: as a file."""
    answer = await request[VISITOR].fetch(
        _DOWNLOADS[request.match_info["form"]],
        org_id=request.match_info["org_id"],
        invoice_id=request.match_info["invoice_id"],
    )
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
