"""`/prices`: what each deployment costs, now and from a later moment; `/orgs/{org_id}/terms`: who pays something else."""

from dataclasses import replace
from typing import Annotated, Final

from pydantic import Field, RootModel

from control_plane.accounts.permissions import Permission
from control_plane.api import catalog_change
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.catalog import postgres_prices, postgres_scheduled_prices, postgres_terms, rules
from control_plane.catalog.postgres_around import around_deployment
from control_plane.catalog.price_specs import PriceChange, TermsSpec
from control_plane.catalog.resources import Operation, Price, ScheduledPrice, Terms
from gateway_core.ids import new_id

TAG: Final = "prices"

Name = Annotated[str, Field(max_length=200)]


class PriceQuery(PageQuery):
    """Which prices."""

    model: Name | None = None
    provider: Name | None = None
    history: bool = Field(default=False, description="Every version there was, not only the newest of each deployment.")


class OperationOrSchedule(RootModel[Operation | ScheduledPrice]):
    """A change on its way; or, for a later moment, what was kept for it. `state` tells which."""


@operation("GET", "/prices", tag=TAG, access=Permission.CATALOG_READ)
async def list_prices(call: Call, query: PriceQuery) -> Page[Price]:
    """The newest price version of every deployment there was, or all versions; the latest first."""
    return await page_of(
        call,
        query,
        Page[Price],
        lambda position, limit: postgres_prices.list_prices(
            call.db,
            model=query.model,
            provider=query.provider,
            history=query.history,
            before_seq=position,
            limit=limit,
        ),
    )


@operation("POST", "/prices", tag=TAG, access=Permission.CATALOG_WRITE, status=202)
async def add_price(call: Call, body: PriceChange) -> OperationOrSchedule:
    """A new price version of a deployment, from now on or from a later moment."""
    now = call.services.now()
    if body.effective_from is None or body.effective_from <= now:
        await catalog_change.begin(call)
    around = await around_deployment(call.db, body.model, body.provider)
    catalog_change.pass_if_valid(
        [
            # Here the model is a field.
            replace(fault, pointer="/model") if fault.pointer == rules.MODEL else fault
            for fault in rules.price_faults(body.model, body.provider, body, around)
        ]
    )
    if body.effective_from is not None and body.effective_from > now:
        scheduled = await postgres_scheduled_prices.schedule_price(
            call.db,
            schedule_id=new_id("sch", call.services.random_bytes),
            model=body.model,
            provider=body.provider,
            spec=body,
            effective_from=body.effective_from,
            actor=call.actor,
            request_id=call.request_id,
        )
        await call.audit("price.schedule", scheduled.id, after=scheduled)
        return OperationOrSchedule(scheduled)
    before = await postgres_prices.find_price(call.db, body.model, body.provider)
    after = await postgres_prices.write_price(call.db, body.model, body.provider, body, now=now)
    target = f"{body.model} at {body.provider}"
    return OperationOrSchedule(await catalog_change.finish(call, "price.add", target, before=before, after=after))


@operation("GET", "/prices/scheduled", tag=TAG, access=Permission.CATALOG_READ)
async def list_scheduled_prices(call: Call, query: PageQuery) -> Page[ScheduledPrice]:
    """Price versions that are not yet due."""
    return await page_of(
        call,
        query,
        Page[ScheduledPrice],
        lambda position, limit: postgres_scheduled_prices.list_scheduled(call.db, after=position, limit=limit),
    )


@operation("DELETE", "/prices/scheduled/{schedule_id}", tag=TAG, access=Permission.CATALOG_WRITE)
async def withdraw_scheduled_price(call: Call) -> None:
    """Withdraw a price version that is not yet due."""
    withdrawn = found(await postgres_scheduled_prices.withdraw_scheduled(call.db, call.param("schedule_id")))
    await call.audit("price.withdraw", withdrawn.id, before=withdrawn)


@operation("GET", "/orgs/{org_id}/terms", tag=TAG, access=Permission.BILLING_READ)
async def get_terms(call: Call) -> Terms:
    """What an organisation pays in the place of list prices."""
    return await postgres_terms.find_terms(call.db, call.org_id)


@operation("PUT", "/orgs/{org_id}/terms", tag=TAG, access=Permission.CATALOG_WRITE, status=202, needs_revision=True)
async def put_terms(call: Call, body: TermsSpec) -> Operation:
    """Replace an organisation's terms, for requests admitted from now on."""
    await catalog_change.begin(call)
    before = await postgres_terms.find_terms(call.db, call.org_id)
    if before.revision or call.has_precondition:
        call.match(before.revision)
    catalog_change.pass_if_valid(await postgres_terms.faults_of_terms(call.db, body))
    after = await postgres_terms.write_terms(call.db, call.org_id, body)
    return await catalog_change.finish(call, "terms.put", call.org_id, before=before, after=after)
