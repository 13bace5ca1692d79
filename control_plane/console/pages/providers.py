"""Providers with their health, as it is now; paused and resumed here."""

import asyncio
from typing import Any

from aiohttp import web

from control_plane.accounts.permissions import Permission
from control_plane.console.changes import change_on
from control_plane.console.forms import Form
from control_plane.console.pages.operations import to_operation
from control_plane.console.rendering import page
from control_plane.console.visitor import VISITOR, Visitor
from control_plane.errors import RefusedError


async def show_providers(request: web.Request) -> web.Response:
    """GET /providers."""
    return page(request, "providers.html", providers=await _providers(request[VISITOR]))


async def show_states(request: web.Request) -> web.Response:
    """GET /provider-states: the part of it that changes by itself."""
    return page(request, "_providers.html", providers=await _providers(request[VISITOR]))


async def _providers(visitor: Visitor) -> list[tuple[Any, Any]]:
    providers = (await visitor.ask("list_providers", query={"limit": "200"}))["data"]
    # One after the other: a page of many providers leaves connections to others.
    return [(each, await visitor.ask("get_provider_health", provider=each["name"])) for each in providers]


async def show_provider(
    request: web.Request, *, form: Form | None = None, refused: RefusedError | None = None
) -> web.Response:
    """GET /providers/{provider}."""
    visitor, name = request[VISITOR], request.match_info["provider"]
    provider, health = await asyncio.gather(
        visitor.ask("get_provider", provider=name), visitor.ask("get_provider_health", provider=name)
    )
    return page(
        request,
        "provider.html",
        provider=provider,
        health=health,
        changes=visitor.may(Permission.CATALOG_WRITE),
        form=form,
        refused=refused,
    )


@change_on(show_provider)
async def pause(request: web.Request, form: Form) -> web.Response:
    """POST /providers/{provider}/pause."""
    return await _become(request, form, "pause_provider")


@change_on(show_provider)
async def resume(request: web.Request, form: Form) -> web.Response:
    """POST /providers/{provider}/resume."""
    return await _become(request, form, "resume_provider")


async def _become(request: web.Request, form: Form, operation: str) -> web.Response:
    provider = request.match_info["provider"]
    return to_operation(
        await request[VISITOR].ask(operation, body={"reason": form.get("reason", "")}, provider=provider)
    )
