"""`GET /v1/models` and `GET /v1/models/{model}`: what the caller's key may use, in OpenAI's form."""

from collections.abc import Sequence

from aiohttp import web

from control_plane.api.context import SERVICES
from control_plane.catalog.model import Model
from control_plane.errors import NoTestModeError, UnknownModelError
from gateway_core.ids import ModelName
from gateway_core.mode import Mode


async def list_models(request: web.Request) -> web.Response:
    """Every model that has a route and that the key's patterns admit."""
    models = await _usable_models(request)
    return web.json_response({"object": "list", "data": [_shown(model, model.name) for model in models]})


async def show_model(request: web.Request) -> web.Response:
    """One of them, by its name or an alias; whatever is not among them is not found."""
    name = ModelName(request.match_info["model"])
    for model in await _usable_models(request):
        if name in {model.name, *model.aliases}:
            return web.json_response(_shown(model, name))
    raise UnknownModelError(name)


async def _usable_models(request: web.Request) -> Sequence[Model]:
    services = request.app[SERVICES]
    key = await services.authenticator.api_key(request)
    if key.mode is Mode.TEST and not services.has_simulator:
        raise NoTestModeError
    return [model for model in services.current_catalog().offered_to(key.org_id) if key.may_use(model.name)]


def _shown(model: Model, name: ModelName) -> dict[str, object]:
    return {"id": name, "object": "model", "created": model.created, "owned_by": model.owned_by}
