"""`/orgs/{org_id}/cache`: the answers that are cached for an organisation."""

from control_plane.accounts.permissions import Permission
from control_plane.api.operation import Call, operation
from control_plane.api.orgs import TAG


@operation("DELETE", "/orgs/{org_id}/cache", tag=TAG, access=Permission.ORG_WRITE)
async def clear_cache(call: Call) -> None:
    """Forget every answer that is cached for an organisation: from now on providers are asked again."""
    await call.audit("org.clear_cache", call.org_id)
    await call.services.cached_answers.forget(call.org_id)
