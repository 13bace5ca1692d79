"""What all pages of an organisation have in common, and the first of them: what it has, what it spends, and its latest requests."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from aiohttp import web

from control_plane.accounts.permissions import Permission
from control_plane.console.changes import change_on, to
from control_plane.console.charts import Chart, Measured, chart
from control_plane.console.figures import NONE, count, usd
from control_plane.console.forms import Form
from control_plane.console.rendering import page
from control_plane.console.sessions import PATH
from control_plane.console.spending import RecentSpending
from control_plane.console.visitor import VISITOR, Visitor
from control_plane.errors import RefusedError

DAYS_SHOWN: Final = 14
_LATEST: Final = "8"
_USD_STEP: Final = Decimal("0.000001")


async def org_of(request: web.Request) -> Any:
    """The organisation that a page is about, with what the visitor is in it."""
    return await request[VISITOR].ask("get_org", org_id=request.match_info["org_id"])


def path_of(request: web.Request, page_name: str = "") -> str:
    """The path of a page of the organisation that a request is about."""
    return f"{PATH}/orgs/{request.match_info['org_id']}/{page_name}"


async def show_home(request: web.Request) -> web.Response:
    """GET /: to the only organisation, or the list of them; operators to the providers."""
    visitor = request[VISITOR]
    orgs = (await visitor.ask("list_orgs"))["data"]
    if len(orgs) == 1 and not visitor.may(Permission.CATALOG_READ):
        return to(f"{PATH}/orgs/{orgs[0]['id']}/")
    return await show_orgs(request)


async def show_orgs(
    request: web.Request, *, form: Form | None = None, refused: RefusedError | None = None
) -> web.Response:
    """GET /orgs: those of the visitor; for operators, all."""
    query = {"cursor": request.query["cursor"]} if "cursor" in request.query else {}
    orgs = await request[VISITOR].ask("list_orgs", query=query)
    return page(request, "organizations.html", orgs=orgs, form=form, refused=refused)


@change_on(show_orgs)
async def create_org(request: web.Request, form: Form) -> web.Response:
    """POST /orgs."""
    made = await request[VISITOR].ask("create_org", body={"name": form.get("name", "")})
    return to(f"{PATH}/orgs/{made['id']}/")


@dataclass(frozen=True, slots=True)
class Overview:
    """The first page of an organisation."""

    recent: RecentSpending

    async def show(self, request: web.Request) -> web.Response:
        """GET /orgs/{org_id}/."""
        org = await org_of(request)
        return page(request, "overview.html", org=org, **await self._figures(request[VISITOR], org))

    async def show_figures(self, request: web.Request) -> web.Response:
        """GET /orgs/{org_id}/figures: the part of it that changes by itself."""
        org = await org_of(request)
        return page(request, "_figures.html", org=org, **await self._figures(request[VISITOR], org))

    async def _figures(self, visitor: Visitor, org: Any) -> dict[str, Any]:
        requests = visitor.ask("list_requests", query={"limit": _LATEST}, org_id=org["id"])
        if not visitor.may(Permission.BILLING_READ, org["role"]):
            return {"balance": None, "spending": None, "requests": (await requests)["data"]}
        latest, balance, spending = await asyncio.gather(
            requests,
            visitor.ask("get_balance", org_id=org["id"]),
            self.recent.of(org["id"], lambda: spending_of(visitor, org, days=DAYS_SHOWN)),
        )
        return {"balance": balance, "spending": spending, "requests": latest["data"]}


async def spending_of(
    visitor: Visitor,
    org: Any,
    *,
    days: int,
    by: str = "model",
    mode: str = "live",
) -> dict[str, Any]:
    """What an organisation has spent in the last days of its time zone, today included: a chart, and its rows."""
    since, until = days_until_now(visitor.services.now(), org["time_zone"], days)
    query = {"since": since.isoformat(), "until": until.isoformat(), "by": f"day,{by}", "mode": mode}
    rows = (await visitor.ask("get_usage", query=query, org_id=org["id"]))["data"]
    name = {"model": "model", "project": "project_id", "key": "key_id"}[by]
    today = sum((Decimal(row["amount"]) for row in rows if row["day"] == f"{until:%Y-%m-%d}"), Decimal(0))
    return {
        "chart": _chart(rows, name, "amount", since, days, said=usd, least=_USD_STEP),
        "requests_chart": _chart(rows, name, "requests", since, days, said=count, least=Decimal(1)),
        "total": sum((Decimal(row["amount"]) for row in rows), Decimal(0)),
        "today": today,
        "requests": sum(row["requests"] for row in rows),
        "days": days,
        "rows": rows,
        "by": by,
    }


def days_until_now(now: datetime, time_zone: str, days: int) -> tuple[datetime, datetime]:
    """From the beginning of the first of so many days by somebody's clock until now; today is the last of them."""
    local = now.astimezone(ZoneInfo(time_zone))
    first = (local - timedelta(days=days - 1)).date()
    return datetime(first.year, first.month, first.day, tzinfo=local.tzinfo), local


def _chart(
    rows: Any,
    name: str,
    figure: str,
    since: datetime,
    days: int,
    *,
    said: Callable[[Decimal], str],
    least: Decimal,
) -> Chart:
    measured = [
        Measured(datetime.fromisoformat(row["day"]).date(), row[name] or NONE, Decimal(row[figure])) for row in rows
    ]
    return chart(measured, first=since.date(), days=days, said=said, least=least)
