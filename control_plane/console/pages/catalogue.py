"""Models with what they cost us and what tenants pay."""

import asyncio

from aiohttp import web

from control_plane.console.rendering import page
from control_plane.console.visitor import VISITOR


async def show_models(request: web.Request) -> web.Response:
    """GET /models."""
    query = {"limit": "100", **({"cursor": request.query["cursor"]} if "cursor" in request.query else {})}
    return page(request, "models.html", models=await request[VISITOR].ask("list_models", query=query))


async def show_model(request: web.Request) -> web.Response:
    """GET /models/{model}: with its prices in force, where it is to be had, and where a request for it would go."""
    visitor, name = request[VISITOR], request.match_info["model"]
    model, prices, availability = await asyncio.gather(
        visitor.ask("get_model", model=name),
        visitor.ask("list_prices", query={"model": name, "limit": "200"}),
        visitor.ask("get_model_availability", model=name),
    )
    explanation = await visitor.ask("explain_route", body={"endpoint": model["endpoints"][0], "model": name})
    return page(
        request,
        "model.html",
        model=model,
        prices=prices["data"],
        availability=availability,
        explanation=explanation,
    )
