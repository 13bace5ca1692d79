"""`GET /v1/models`: what the caller's key may use, in OpenAI's form."""

from aiohttp import web

from control_plane.api.context import SERVICES
from control_plane.errors import NoTestModeError
from gateway_core.mode import Mode


async def list_models(request: web.Request) -> web.Response:
    """Every model that has a route and that the key's patterns admit."""
    services = request.app[SERVICES]
    key = await services.authenticator.api_key(request)
    if key.mode is Mode.TEST and not services.has_simulator:
        raise NoTestModeError
    catalog = services.current_catalog()
    servable = {deployment.model for deployment in catalog.deployments}
    return web.json_response(
        {
            "object": "list",
            "data": [
                {"id": model.name, "object": "model", "created": model.created, "owned_by": model.owned_by}
                for model in sorted(catalog.models.values(), key=lambda model: model.name)
                if model.name in servable and model.is_visible_to(key.org_id) and key.may_use(model.name)
            ],
        }
    )
