"""`/operations`: changes of the catalogue, and whether they are in force; `/nodes`: those they have to reach."""

import asyncio
import itertools
from typing import Final

from pydantic import Field

from control_plane.accounts.permissions import Permission
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.catalog import postgres_operations
from control_plane.catalog.resources import CatalogReader, Node, Operation, OperationState
from control_plane.fields import Body
from control_plane.resource import Resource

TAG: Final = "operations"

WAIT_MS_MAX: Final = 20_000
_POLLS_S: Final = (0.02,) * 50
_POLL_S: Final = 0.2
"""Most changes are in force within a second; who waits longer is in no hurry."""


class WaitQuery(Body):
    """How long to wait for a change."""

    wait_ms: int = Field(
        default=0, ge=0, le=WAIT_MS_MAX, description="Answer when it is no longer pending, or after this time."
    )


class Nodes(Resource):
    """Every connected Envoy, and every running process of ext_authz."""

    data: list[Node]
    authorizers: list[CatalogReader]


@operation("GET", "/operations", tag=TAG, access=Permission.CATALOG_READ)
async def list_operations(call: Call, query: PageQuery) -> Page[Operation]:
    """Changes of the catalogue, newest first."""
    return await page_of(
        call,
        query,
        Page[Operation],
        lambda position, limit: postgres_operations.list_operations(call.db, before_seq=position, limit=limit),
    )


@operation("GET", "/operations/{operation_id}", tag=TAG, access=Permission.CATALOG_READ)
async def get_operation(call: Call, query: WaitQuery) -> Operation:
    """One change of the catalogue; waits for its end if asked to."""
    operation_id = call.param("operation_id")
    one = found(await postgres_operations.find_operation(call.db, operation_id))
    waiters = call.services.operation_waiters
    if one.state is not OperationState.PENDING or not query.wait_ms or waiters.locked():
        return one  # of more waiters than there are places for, some ask again by themselves
    polls = itertools.chain(_POLLS_S, itertools.repeat(_POLL_S))
    try:
        async with waiters, asyncio.timeout(query.wait_ms / 1000):
            while one.state is OperationState.PENDING:
                await asyncio.sleep(next(polls))
                one = found(await postgres_operations.find_operation(call.db, operation_id))
    except TimeoutError:
        pass  # still pending, and the answer says so
    return one


@operation("GET", "/nodes", tag="platform", access=Permission.NODES_READ)
async def list_nodes(call: Call) -> Nodes:
    """Connected Envoys, of all control planes: what each has accepted, and what it last refused. And who lags in ext_authz."""
    return Nodes(
        data=await postgres_operations.list_nodes(call.db),
        authorizers=await postgres_operations.list_catalog_readers(call.db),
    )
