"""The organisations of the traffic, made by one user through the API, and found again the next time.

The user's password follows from the operator's token, so nothing has to be kept. Keys are shown once, when they are made; so those that are
there are given a new secret.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from gateway_core.money import parse_usd
from tollgate.client import PREFIX, Client, FixedToken
from tollgate.connection import Request
from tollgate.errors import NotLoggedInError
from tollgate.traffic.catalogue import in_force
from tollgate.traffic.listing import every
from tollgate.traffic.tenants import TENANTS, App, Tenant

OWNER: Final = "demo-traffic@example.com"
LOW: Final = parse_usd("25.00")
"""With less than that, an organisation is given more."""
GIVEN_USD: Final = "50.00"


def prepare(operator: Client, operator_token: str) -> Mapping[App, str]:
    """See that all tenants are there, with money where they have some; returns the keys of their programs."""
    owner = _owner(operator, operator_token)
    orgs = {each["name"]: each["id"] for each in every(owner, "/orgs")}
    keys: dict[App, str] = {}
    for tenant in TENANTS:
        org_id = orgs.get(tenant.name) or _post(owner, "/orgs", {"name": tenant.name})["id"]
        _agree(operator, org_id, tenant)
        if tenant.has_money:
            _give(operator, org_id)
        keys |= _keys(owner, org_id, tenant)
    return keys


def _owner(operator: Client, operator_token: str) -> Client:
    """The user who owns the tenants, logged in."""
    password = hmac.digest(operator_token.encode(), OWNER.encode(), hashlib.sha256).hex()
    credentials = {"email": OWNER, "password": password}
    try:
        tokens = _post(operator, "/auth/login", credentials, public=True)
    except NotLoggedInError:
        _post(operator, "/auth/register", {**credentials, "organization": TENANTS[0].name}, public=True)
        tokens = _post(operator, "/auth/login", credentials, public=True)
    return replace(operator, credential=FixedToken(tokens["access_token"], f"session of {OWNER}"))


def _agree(operator: Client, org_id: str, tenant: Tenant) -> None:
    """The markup, unless other terms were ever set."""
    path = f"/orgs/{org_id}/terms"
    if operator.get(path)["revision"] == 0 and tenant.markup_percent != "0":
        body = json.dumps({"markup_percent": tenant.markup_percent}).encode()
        in_force(operator, operator.send(Request("PUT", PREFIX + path, body=body)))


def _give(operator: Client, org_id: str) -> None:
    """Credit, where it runs out."""
    if parse_usd(operator.get(f"/orgs/{org_id}/balance")["available"]) < LOW:
        credit = {"amount": GIVEN_USD, "currency": "USD", "reason": "demo traffic"}
        _post(operator, f"/orgs/{org_id}/credits", credit)


def _keys(owner: Client, org_id: str, tenant: Tenant) -> Mapping[App, str]:
    projects = {each["name"]: each["id"] for each in every(owner, f"/orgs/{org_id}/projects")}
    known = {each["name"]: each["id"] for each in every(owner, f"/orgs/{org_id}/keys")}
    found = {}
    for project in tenant.projects:
        if project.name not in projects:
            body = {"name": project.name, "budget_per_day_usd": project.budget_per_day_usd}
            projects[project.name] = _post(owner, f"/orgs/{org_id}/projects", body)["id"]
        for app in project.apps:
            if app.name in known:
                made = _post(owner, f"/orgs/{org_id}/keys/{known[app.name]}/rotate", {"overlap_s": 0})
            else:
                made = _post(owner, f"/orgs/{org_id}/keys", _new_key(app, projects[project.name]))
            found[app] = made["key"]
    return found


def _new_key(app: App, project_id: str) -> Mapping[str, Any]:
    return {
        "name": app.name,
        "project_id": project_id,
        "mode": app.mode,
        "requests_per_minute_max": app.requests_per_minute_max,
    }


def _post(client: Client, path: str, body: Mapping[str, Any], *, public: bool = False) -> Any:
    return client.send(Request("POST", PREFIX + path, body=json.dumps(body).encode()), public=public).document()
