"""`/orgs/{org_id}/budgets`: what is left of each."""

from control_plane.accounts.permissions import Permission
from control_plane.api.balance import TAG
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.statements import postgres_budgets
from control_plane.statements.model import BudgetState
from gateway_core.mode import Mode


class BudgetQuery(PageQuery):
    """Which budgets."""

    mode: Mode = Mode.LIVE


@operation("GET", "/orgs/{org_id}/budgets", tag=TAG, access=Permission.BILLING_READ)
async def list_budgets(call: Call, query: BudgetQuery) -> Page[BudgetState]:
    """What is spent, held and left of every budget: of projects, then of keys that are not revoked."""
    return await page_of(
        call,
        query,
        Page[BudgetState],
        lambda position, limit: postgres_budgets.list_budgets(
            call.db, call.org_id, query.mode, call.services.now(), after=position, limit=limit
        ),
    )
