"""`/providers/{provider}/health`, `/pause`, `/resume` and `/models/{model}/availability`: who gets requests now, and why not."""

from typing import Annotated, Final

from pydantic import Field, StringConstraints

from control_plane.accounts.permissions import Permission
from control_plane.api import catalog_change
from control_plane.api.operation import Call, found, operation
from control_plane.catalog.postgres_models import find_model
from control_plane.catalog.postgres_providers import find_provider
from control_plane.catalog.postgres_states import lock_states, read_states, write_states
from control_plane.catalog.provider_state import Condition, ProviderState, Subject
from control_plane.catalog.resources import Operation
from control_plane.errors import ConflictError
from control_plane.fields import Body
from control_plane.health import postgres_health
from control_plane.health.model import Availability, Health
from gateway_core.ids import ProviderName

TAG: Final = "health"


class PauseReason(Body):
    """Why."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)] = Field(
        description="For other operators.", examples=["Its key has leaked."]
    )


@operation("GET", "/providers/{provider}/health", tag=TAG, access=Permission.CATALOG_READ)
async def get_provider_health(call: Call) -> Health:
    """Whether a provider gets requests, why not, what it has done lately and what it was before."""
    provider = found(await find_provider(call.db, call.param("provider")))
    return await postgres_health.health_of(call.db, provider.name, call.services.now())


@operation("GET", "/models/{model}/availability", tag=TAG, access=Permission.CATALOG_READ)
async def get_model_availability(call: Call) -> Availability:
    """At which providers a model is to be had, and for how much of each hour of the last day it was."""
    model = found(await find_model(call.db, call.param("model")))
    return await postgres_health.availability_of(call.db, model.name, call.services.now())


@operation("POST", "/providers/{provider}/pause", tag=TAG, access=Permission.CATALOG_WRITE, status=202)
async def pause_provider(call: Call, body: PauseReason) -> Operation:
    """Send a provider no more requests until it is resumed. Those that it is answering end as they would have."""
    return await _become(call, "provider.pause", Condition.PAUSED, body.reason)


@operation("POST", "/providers/{provider}/resume", tag=TAG, access=Permission.CATALOG_WRITE, status=202)
async def resume_provider(call: Call, body: PauseReason) -> Operation:
    """Send a provider requests again that is paused, or out for any other reason."""
    return await _become(call, "provider.resume", Condition.HEALTHY, body.reason)


async def _become(call: Call, action: str, condition: Condition, reason: str) -> Operation:
    await catalog_change.begin(call)
    # Whoever judges it by what it does has done so before this, or sees this.
    await lock_states(call.db)
    name = ProviderName(found(await find_provider(call.db, call.param("provider"))).name)
    before = await postgres_health.state_of(call.db, name)
    now = call.services.now()
    changed = {Subject(name): ProviderState(condition, now, why=reason)}
    if condition is Condition.HEALTHY:
        out = {
            subject
            for subject, state in (await read_states(call.db)).items()
            if subject.provider == name and state.is_out
        }
        if not out:
            raise ConflictError("It gets requests: it is neither paused nor out for another reason.")
        # Its models as well: whoever says that it is well again knows better than what was seen.
        changed |= {subject: ProviderState(condition, now, why=reason) for subject in out}
    await write_states(call.db, changed, actor=call.actor)
    after = await postgres_health.state_of(call.db, name)
    return await catalog_change.finish(call, action, name, before=before, after=after)
