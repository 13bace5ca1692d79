"""`/routes`: which providers serve a model, in which order, and for whom."""

from typing import Final

from control_plane.accounts.permissions import Permission
from control_plane.api import catalog_change
from control_plane.api.listing import page_of
from control_plane.api.operation import Audit, Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.catalog import postgres_routes, rules
from control_plane.catalog.explanation import Explanation, RouteQuestion, explain
from control_plane.catalog.postgres_around import around_route
from control_plane.catalog.postgres_explanation import surroundings
from control_plane.catalog.postgres_store import read_catalog_within
from control_plane.catalog.resources import Operation, Route
from control_plane.catalog.specs import ROUTE_NAME, RouteChange
from control_plane.errors import InvalidField

TAG: Final = "routes"


@operation("GET", "/routes", tag=TAG, access=Permission.CATALOG_READ)
async def list_routes(call: Call, query: PageQuery) -> Page[Route]:
    """Every route."""
    return await page_of(
        call,
        query,
        Page[Route],
        lambda position, limit: postgres_routes.list_routes(call.db, after=position, limit=limit),
    )


@operation("GET", "/routes/{route}", tag=TAG, access=Permission.CATALOG_READ)
async def get_route(call: Call) -> Route:
    """One route."""
    return found(await postgres_routes.find_route(call.db, call.param("route")))


@operation("PUT", "/routes/{route}", tag=TAG, access=Permission.CATALOG_WRITE, status=202, needs_revision=True)
async def put_route(call: Call, body: RouteChange) -> Operation:
    """Create or replace a route. It serves as soon as it is published."""
    name = call.param("route")
    await catalog_change.begin(call)
    before = await postgres_routes.find_route(call.db, name)
    catalog_change.match(call, before)
    is_name = ROUTE_NAME.fullmatch(name)
    catalog_change.pass_if_valid(
        [*rules.route_faults(name, body, await around_route(call.db, name, body))]
        if is_name
        else [InvalidField("{route}", "letters, digits and . _ / : @ -, at most 200")]
    )
    after = await postgres_routes.put_route(call.db, name, body)
    return await catalog_change.finish(call, "route.put", name, before=before, after=after)


@operation("DELETE", "/routes/{route}", tag=TAG, access=Permission.CATALOG_WRITE, status=202, needs_revision=True)
async def delete_route(call: Call) -> Operation:
    """Remove a route; what it served is not served any more, unless a pattern has it."""
    await catalog_change.begin(call)
    before = found(await postgres_routes.find_route(call.db, call.param("route")))
    call.match(before.revision)
    await postgres_routes.delete_routes(call.db, [before.name])
    return await catalog_change.finish(call, "route.delete", before.name, before=before)


@operation("POST", "/routes/explain", tag=TAG, access=Permission.CATALOG_READ, in_transaction=False, audit=Audit.NONE)
async def explain_route(call: Call, body: RouteQuestion) -> Explanation:
    """Where a request would go and why, and what would be held for it. Nothing is sent."""
    async with call.pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        about = await surroundings(connection, body.model, body.org_id)
        catalog = await read_catalog_within(connection, call.services.seal, call.services.log)
    return explain(body, about, catalog, translated=call.services.has_translator)
