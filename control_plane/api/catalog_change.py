"""What every change of the catalogue has in common: one at a time, meant for what is there, answered by an operation."""

from collections.abc import Sequence

from control_plane.api.operation import Call
from control_plane.catalog.postgres_operations import add_operation, begin_revision
from control_plane.catalog.resources import Operation
from control_plane.errors import ConflictError, InvalidField, InvalidFieldsError, StaleRevisionError
from control_plane.resource import Resource, Revised
from gateway_core.ids import new_id


async def begin(call: Call) -> None:
    """From here on nobody else changes the catalogue until the call's transaction ends."""
    await begin_revision(call.db)


def match(call: Call, before: Revised | None) -> None:
    """Pass only if a PUT is meant for what is there: the revision it names, or nothing if it names none.

    Raises:
        StaleRevisionError, RevisionRequiredError: it is meant for something else.
    """
    if before is not None:
        call.match(before.revision)
    elif call.has_precondition:
        raise StaleRevisionError


def pass_if_valid(faults: Sequence[InvalidField]) -> None:
    """Pass only what has no faults.

    Raises:
        InvalidFieldsError: all of them.
    """
    if faults:
        raise InvalidFieldsError(*faults)


def pass_if_unused(uses: Sequence[str]) -> None:
    """Pass only what nothing else names.

    Raises:
        ConflictError: what does.
    """
    if uses:
        raise ConflictError(f"It is still used by {', '.join(uses)}.")


async def finish(
    call: Call, action: str, target: str, *, before: Resource | None = None, after: Resource | None = None
) -> Operation:
    """Write the change down, in the audit log and as an operation."""
    await call.audit(action, target, before=before, after=after)
    operation_id = new_id("op", call.services.random_bytes)
    return await add_operation(call.db, operation_id=operation_id, action=action, target=target, actor=call.actor)
