"""API keys: made, shown once, limited, rotated, revoked."""

from typing import Final

from aiohttp import web

from control_plane.console import forms
from control_plane.console.changes import change_on, to
from control_plane.console.forms import Form
from control_plane.console.pages.organizations import org_of, path_of
from control_plane.console.rendering import page
from control_plane.console.visitor import VISITOR
from control_plane.errors import RefusedError

KEYS: Final = "keys"


async def show_keys(
    request: web.Request, *, form: Form | None = None, refused: RefusedError | None = None
) -> web.Response:
    """GET /orgs/{org_id}/keys."""
    visitor, org = request[VISITOR], await org_of(request)
    query = {"cursor": request.query["cursor"]} if "cursor" in request.query else {}
    keys = await visitor.ask("list_keys", query=query, org_id=org["id"])
    projects = await visitor.ask("list_projects", org_id=org["id"])
    return page(request, "keys.html", org=org, keys=keys, projects=projects["data"], form=form, refused=refused)


@change_on(show_keys)
async def create_key(request: web.Request, form: Form) -> web.Response:
    """POST /orgs/{org_id}/keys: the one answer with the key in it."""
    org = await org_of(request)
    settings = {name: value for name, value in _settings(form).items() if value is not None}
    made = await request[VISITOR].ask(
        "create_key",
        body={**settings, "mode": form.get("mode", "live"), "project_id": forms.text(form, "project_id")},
        org_id=org["id"],
    )
    return page(request, "key_made.html", org=org, key=made, status=201)


async def show_key(
    request: web.Request, *, form: Form | None = None, refused: RefusedError | None = None
) -> web.Response:
    """GET /orgs/{org_id}/keys/{key_id}."""
    org = await org_of(request)
    key = await request[VISITOR].ask("get_key", org_id=org["id"], key_id=request.match_info["key_id"])
    return page(request, "key.html", org=org, key=key, form=form, refused=refused)


@change_on(show_key)
async def change_key(request: web.Request, form: Form) -> web.Response:
    """POST /orgs/{org_id}/keys/{key_id}."""
    await request[VISITOR].ask(
        "change_key",
        body={**_settings(form), "disabled": forms.ticked(form, "disabled")},
        match=form.get("revision", ""),
        org_id=request.match_info["org_id"],
        key_id=request.match_info["key_id"],
    )
    return to(path_of(request, f"{KEYS}/{request.match_info['key_id']}"))


@change_on(show_key)
async def rotate_key(request: web.Request, form: Form) -> web.Response:
    """POST /orgs/{org_id}/keys/{key_id}/rotate."""
    org = await org_of(request)
    made = await request[VISITOR].ask(
        "rotate_key",
        body={"overlap_s": forms.whole(form, "overlap_s")},
        org_id=org["id"],
        key_id=request.match_info["key_id"],
    )
    return page(request, "key_made.html", org=org, key=made)


@change_on(show_key)
async def revoke_key(request: web.Request, _form: Form) -> web.Response:
    """POST /orgs/{org_id}/keys/{key_id}/revoke."""
    await request[VISITOR].ask("revoke_key", org_id=request.match_info["org_id"], key_id=request.match_info["key_id"])
    return to(path_of(request, KEYS))


def _settings(form: Form) -> dict[str, object]:
    return {
        "name": form.get("name", ""),
        "models_allowed": forms.words(form, "models_allowed"),
        "ip_allowed": forms.words(form, "ip_allowed"),
        "budget_per_day_usd": forms.text(form, "budget_per_day_usd"),
        "budget_per_month_usd": forms.text(form, "budget_per_month_usd"),
        "requests_per_minute_max": forms.whole(form, "requests_per_minute_max"),
        "tokens_per_minute_max": forms.whole(form, "tokens_per_minute_max"),
        "concurrency_max": forms.whole(form, "concurrency_max"),
        "expires_at": forms.moment(form, "expires_at"),
    }
