"""Every operation against every role: who gets through, written down here a second time, by hand."""

import asyncio
import re

import pytest

from control_plane.accounts.permissions import PERMISSIONS_BY_ROLE, PLATFORM, Permission, Role
from control_plane.api.app import OPERATION_MODULES
from control_plane.api.operation import OPERATIONS, PREFIX
from tests.support.api import Api

ANYONE, KNOWN, SIGNED_IN, OPERATOR = "anyone", "known", "signed in", ""

# owner, admin, developer, billing, viewer by their first letters; operators may everything.
ALLOWED = {
    "POST /auth/register": ANYONE,
    "POST /auth/login": ANYONE,
    "POST /auth/refresh": ANYONE,
    "POST /auth/logout": SIGNED_IN,
    "POST /auth/verify-email": ANYONE,
    "POST /auth/verification-mails": SIGNED_IN,
    "POST /auth/password-reset-mails": ANYONE,
    "POST /auth/password-resets": ANYONE,
    "POST /auth/signing-keys": OPERATOR,
    "GET /auth/oidc/issuers": ANYONE,
    "POST /auth/oidc/log-ins": ANYONE,
    "GET /auth/oidc/callback/{issuer}": ANYONE,
    "POST /auth/oidc/tokens": ANYONE,
    "GET /me": SIGNED_IN,
    "PATCH /me": SIGNED_IN,
    "POST /me/password": SIGNED_IN,
    "GET /orgs": KNOWN,
    "POST /orgs": SIGNED_IN,
    "GET /orgs/{org_id}": "oadbv",
    "PATCH /orgs/{org_id}": "oa",
    "DELETE /orgs/{org_id}/cache": "oa",
    "GET /orgs/{org_id}/projects": "oadbv",
    "POST /orgs/{org_id}/projects": "oa",
    "GET /orgs/{org_id}/projects/{project_id}": "oadbv",
    "PATCH /orgs/{org_id}/projects/{project_id}": "oa",
    "GET /orgs/{org_id}/audit": "oa",
    "GET /audit": OPERATOR,
    "GET /orgs/{org_id}/members": "oadbv",
    "GET /orgs/{org_id}/members/{user_id}": "oadbv",
    "PATCH /orgs/{org_id}/members/{user_id}": "oa",
    "DELETE /orgs/{org_id}/members/{user_id}": "oa",
    "DELETE /orgs/{org_id}/membership": "oadbv",
    "GET /orgs/{org_id}/invitations": "oadbv",
    "POST /orgs/{org_id}/invitations": "oa",
    "DELETE /orgs/{org_id}/invitations/{invitation_id}": "oa",
    "POST /invitations/accept": SIGNED_IN,
    "GET /orgs/{org_id}/keys": "oadbv",
    "POST /orgs/{org_id}/keys": "oad",
    "GET /orgs/{org_id}/keys/{key_id}": "oadbv",
    "PATCH /orgs/{org_id}/keys/{key_id}": "oad",
    "POST /orgs/{org_id}/keys/{key_id}/rotate": "oad",
    "DELETE /orgs/{org_id}/keys/{key_id}": "oad",
    "GET /orgs/{org_id}/keys/{key_id}/propagation": "oadbv",
    "GET /orgs/{org_id}/budgets": "oab",
    "GET /orgs/{org_id}/usage": "oab",
    "GET /orgs/{org_id}/usage/csv": "oab",
    "GET /orgs/{org_id}/invoices": "oab",
    "GET /orgs/{org_id}/invoices/{invoice_id}": "oab",
    "GET /orgs/{org_id}/invoices/{invoice_id}/csv": "oab",
    "GET /orgs/{org_id}/invoices/{invoice_id}/pdf": "oab",
    "GET /receipts/{request_id}": KNOWN,
    "GET /orgs/{org_id}/analytics/timeseries": "oab",
    "GET /orgs/{org_id}/analytics/timeseries/csv": "oab",
    "GET /orgs/{org_id}/analytics/timeseries/parquet": "oab",
    "GET /orgs/{org_id}/analytics/breakdown": "oab",
    "GET /orgs/{org_id}/analytics/breakdown/csv": "oab",
    "GET /orgs/{org_id}/analytics/breakdown/parquet": "oab",
    "GET /orgs/{org_id}/analytics/top": "oab",
    "GET /orgs/{org_id}/analytics/latency": "oadbv",
    "GET /orgs/{org_id}/analytics/errors": "oadbv",
    "GET /analytics/timeseries": OPERATOR,
    "GET /analytics/timeseries/csv": OPERATOR,
    "GET /analytics/timeseries/parquet": OPERATOR,
    "GET /analytics/breakdown": OPERATOR,
    "GET /analytics/breakdown/csv": OPERATOR,
    "GET /analytics/breakdown/parquet": OPERATOR,
    "GET /analytics/top": OPERATOR,
    "GET /analytics/latency": OPERATOR,
    "GET /analytics/errors": OPERATOR,
    "POST /analytics/rebuild": OPERATOR,
    "GET /requests/{request_id}": KNOWN,
    "GET /orgs/{org_id}/requests": "oadbv",
    "GET /orgs/{org_id}/test-balance": "oadbv",
    "POST /orgs/{org_id}/test-balance/refill": "oad",
    "GET /orgs/{org_id}/balance": "oab",
    "GET /orgs/{org_id}/transactions": "oab",
    "POST /orgs/{org_id}/credits": OPERATOR,
    "POST /orgs/{org_id}/topups": "ob",
    "GET /orgs/{org_id}/topups": "oab",
    "GET /orgs/{org_id}/topups/{topup_id}": "oab",
    "GET /orgs/{org_id}/payment-settings": "oab",
    "PUT /orgs/{org_id}/payment-settings": "ob",
    "POST /orgs/{org_id}/redemptions": "ob",
    "GET /orgs/{org_id}/webhooks": "oab",
    "POST /orgs/{org_id}/webhooks": "ob",
    "GET /orgs/{org_id}/webhooks/{webhook_id}": "oab",
    "PATCH /orgs/{org_id}/webhooks/{webhook_id}": "ob",
    "DELETE /orgs/{org_id}/webhooks/{webhook_id}": "ob",
    "POST /orgs/{org_id}/webhooks/{webhook_id}/rotate": "ob",
    "POST /orgs/{org_id}/webhooks/{webhook_id}/test": "ob",
    "GET /orgs/{org_id}/webhooks/{webhook_id}/deliveries": "oab",
    "POST /orgs/{org_id}/webhooks/{webhook_id}/deliveries/{delivery_id}/replay": "ob",
    "GET /vouchers": OPERATOR,
    "POST /vouchers": OPERATOR,
    "DELETE /vouchers/{voucher_id}": OPERATOR,
    "GET /tokens": OPERATOR,
    "POST /tokens": OPERATOR,
    "DELETE /tokens/{token_id}": OPERATOR,
    "GET /orgs/{org_id}/tokens": "oa",
    "POST /orgs/{org_id}/tokens": "oa",
    "DELETE /orgs/{org_id}/tokens/{token_id}": "oa",
    "GET /nodes": OPERATOR,
    "GET /billing/books": OPERATOR,
    "POST /billing/books/inspections": OPERATOR,
    "GET /billing/books/inspections/{inspection_id}": OPERATOR,
    "POST /billing/reconciliation": OPERATOR,
    "GET /billing/reconciliation": OPERATOR,
    "GET /billing/reconciliation/{reconciliation_id}": OPERATOR,
    "GET /billing/reconciliation/{reconciliation_id}/csv": OPERATOR,
    "GET /billing/quarantine": OPERATOR,
    "GET /billing/quarantine/{quarantine_id}": OPERATOR,
    "POST /billing/quarantine/{quarantine_id}/decision": OPERATOR,
    "GET /provider-kinds": OPERATOR,
    "GET /providers": OPERATOR,
    "GET /providers/{provider}": OPERATOR,
    "PUT /providers/{provider}": OPERATOR,
    "DELETE /providers/{provider}": OPERATOR,
    "GET /orgs/{org_id}/provider-credentials": "oadbv",
    "GET /orgs/{org_id}/provider-credentials/{provider}": "oadbv",
    "PUT /orgs/{org_id}/provider-credentials/{provider}": "oa",
    "DELETE /orgs/{org_id}/provider-credentials/{provider}": "oa",
    "GET /providers/{provider}/health": OPERATOR,
    "POST /providers/{provider}/pause": OPERATOR,
    "POST /providers/{provider}/resume": OPERATOR,
    "GET /models/{model}/availability": OPERATOR,
    "GET /models": OPERATOR,
    "GET /models/{model}": OPERATOR,
    "PUT /models/{model}": OPERATOR,
    "DELETE /models/{model}": OPERATOR,
    "GET /deployments": OPERATOR,
    "GET /deployments/{model}/{provider}": OPERATOR,
    "PUT /deployments/{model}/{provider}": OPERATOR,
    "DELETE /deployments/{model}/{provider}": OPERATOR,
    "GET /routes": OPERATOR,
    "GET /routes/{route}": OPERATOR,
    "PUT /routes/{route}": OPERATOR,
    "DELETE /routes/{route}": OPERATOR,
    "POST /routes/explain": OPERATOR,
    "GET /prices": OPERATOR,
    "POST /prices": OPERATOR,
    "GET /prices/scheduled": OPERATOR,
    "DELETE /prices/scheduled/{schedule_id}": OPERATOR,
    "GET /orgs/{org_id}/terms": "oab",
    "PUT /orgs/{org_id}/terms": OPERATOR,
    "GET /catalog": OPERATOR,
    "POST /catalog/diff": OPERATOR,
    "POST /catalog/apply": OPERATOR,
    "POST /catalog/check": OPERATOR,
    "POST /catalog/imports": OPERATOR,
    "POST /catalog/starter": OPERATOR,
    "GET /operations": OPERATOR,
    "GET /operations/{operation_id}": OPERATOR,
}

ROLES = {role.value[0]: role for role in Role}


def declared() -> list[str]:
    modules = {module.__name__ for module in OPERATION_MODULES}
    return [f"{each.method} {each.path}" for each in OPERATIONS if each.handler.__module__ in modules]


async def status(api: Api, operation: str, org_id: str) -> int:
    """The status of a call that changes nothing: its body has a field that no operation knows, its revision is stale."""
    method, path = operation.split(" ")
    path = re.sub(r"\{(\w+)\}", "none_0", path.replace("{org_id}", org_id))
    if operation.endswith("/membership"):
        path += "?dry_run=true"
    body = None if method in {"GET", "DELETE"} else {"no_such_field": 1}
    if operation.endswith(("/logout", "/signing-keys", "/verification-mails", "/refill")):
        path += "?no_such_parameter=1"
    return (await api.call(method, path, body, headers={"If-Match": '"999"'})).status


def test_the_table_of_this_test_names_every_operation_and_no_other() -> None:
    assert sorted(declared()) == sorted(ALLOWED)


async def test_every_operation_lets_through_whom_it_should_and_nobody_else(api: Api) -> None:
    owner = await api.sign_up("owner@example.com")
    second_owner = await api.join(owner, "second@example.com", "owner")
    members = {"o": second_owner} | {
        letter: await api.join(owner, f"{role}@example.com", role) for letter, role in ROLES.items() if letter != "o"
    }
    outsider = await api.sign_up("outsider@example.com")
    operator = api.as_(await api.operator_token())
    wrong = []
    for operation, allowed in ALLOWED.items():
        in_org = "{org_id}" in operation

        async def check(who: str, caller: Api, expected: set[int] | None, operation: str = operation) -> None:
            """None: anything but a refusal of the caller."""
            got = await status(caller, operation, owner.org_id)
            through = got not in {401, 403, 500}
            if (not through) if expected is None else (got not in expected):
                wrong.append(f"{operation} by {who}: {got}")

        await check("nobody", api, None if allowed == ANYONE else {401})
        for letter, member in members.items():
            may = allowed in {ANYONE, KNOWN, SIGNED_IN} or letter in allowed
            await check(ROLES[letter], member.api, None if may else {403})
        may = allowed in {ANYONE, KNOWN, SIGNED_IN}
        await check("outsider", outsider.api, None if may else {404} if in_org else {403})
        await check("operator", operator, {403} if allowed == SIGNED_IN else None)
    assert not wrong
    assert await api.pool.fetchval("SELECT count(*) FROM accounts.memberships WHERE org_id = $1", owner.org_id) == 6


async def test_an_operator_who_is_a_user_may_everything_in_every_organisation(api: Api) -> None:
    owner = await api.sign_up("owner@example.com")
    boss = await api.sign_up("boss@example.com")
    assert (await boss.api.get(owner.org)).status == 404
    await api.pool.execute("UPDATE accounts.users SET is_operator = true WHERE user_id = $1", boss.user_id)
    assert (await boss.api.get(owner.org))["role"] is None
    assert (await boss.api.get("/nodes")).status == 200
    assert owner.org_id in {org["id"] for org in (await boss.api.get("/orgs"))["data"]}


async def test_another_tenants_things_look_as_if_they_were_not_there(api: Api) -> None:
    mine, theirs = await api.sign_up("me@example.com"), await api.sign_up("them@example.com")
    key = await theirs.api.post(f"{theirs.org}/keys", {"name": "theirs"})
    for path in (
        theirs.org,
        f"{theirs.org}/keys/{key['id']}",
        f"{mine.org}/keys/{key['id']}",
        f"{mine.org}/projects/{theirs.project_id}",
        f"{mine.org}/members/{theirs.user_id}",
        "/orgs/org_0000000000000000",
    ):
        reply = await mine.api.get(path)
        assert reply.status == 404, path
        assert reply["detail"] == "There is nothing here, or nothing that you may see."
    for method, path in (
        ("DELETE", f"{mine.org}/keys/{key['id']}"),
        ("DELETE", f"{mine.org}/members/{theirs.user_id}"),
    ):
        assert (await mine.api.call(method, path)).status == 404
    foreign = await mine.api.post(f"{mine.org}/keys", {"name": "x", "project_id": theirs.project_id})
    assert foreign.pointers == ["/project_id"]


async def test_a_machine_token_does_what_its_scopes_say_where_it_belongs(api: Api) -> None:
    owner, other = await api.sign_up("me@example.com"), await api.sign_up("them@example.com")
    made = await owner.api.post(f"{owner.org}/tokens", {"name": "ci", "scopes": ["keys:read", "keys:write"]})
    assert made.status == 201
    token = api.as_(made["token"])
    assert (await token.post(f"{owner.org}/keys", {"name": "by ci"})).status == 201
    assert (await token.get(f"{owner.org}/members")).status == 403
    assert (await token.get(f"{other.org}/keys")).status == 404
    assert (await token.get("/me")).status == 403
    assert (await token.get("/orgs"))["data"] == []
    reader = await owner.api.post(f"{owner.org}/tokens", {"name": "reader", "scopes": ["org:read"]})
    assert [org["id"] for org in (await api.as_(reader["token"]).get("/orgs"))["data"]] == [owner.org_id]
    operator = api.as_(await api.operator_token())
    assert len((await operator.get("/orgs"))["data"]) == 2
    assert (await token.get("/nodes")).status == 403
    listed = await owner.api.get(f"{owner.org}/tokens")
    assert made["token"] not in listed.text
    assert (await owner.api.delete(f"{owner.org}/tokens/{made['id']}")).status == 204
    assert (await token.get(f"{owner.org}/keys")).status == 401


async def test_nobody_gives_a_token_what_they_do_not_have(api: Api) -> None:
    owner = await api.sign_up("me@example.com")
    admin = await api.join(owner, "admin@example.com", "admin")
    body = {"name": "x", "scopes": ["billing:write"]}
    assert (await admin.api.post(f"{owner.org}/tokens", body)).status == 403
    assert (await owner.api.post(f"{owner.org}/tokens", body)).status == 201
    platform = await owner.api.post(f"{owner.org}/tokens", {"name": "x", "scopes": ["keys:read", "platform:read"]})
    assert platform.pointers == ["/scopes/1"]
    operator = api.as_(await api.operator_token())
    limited = await operator.post("/tokens", {"name": "x", "scopes": ["platform:write", "platform:read"]})
    assert (await api.as_(limited["token"]).get("/nodes")).status == 403
    assert (await api.as_(limited["token"]).post("/tokens", {"name": "y", "scopes": ["keys:read"]})).status == 403


async def test_a_token_gives_no_role_that_may_more_than_the_token(api: Api) -> None:
    owner = await api.sign_up("me@example.com")
    member = await api.join(owner, "member@example.com", "developer")
    readers = list(PERMISSIONS_BY_ROLE[Role.VIEWER])
    narrow = await owner.api.post(f"{owner.org}/tokens", {"name": "x", "scopes": ["members:write", *readers]})
    wide = await owner.api.post(f"{owner.org}/tokens", {"name": "x", "scopes": [*PERMISSIONS_BY_ROLE[Role.ADMIN]]})
    operator = api.as_(await api.operator_token())
    platform = await operator.post("/tokens", {"name": "x", "scopes": ["members:write", *readers]})
    theirs = f"{owner.org}/members/{member.user_id}"
    for made, granted in ((narrow, {"viewer"}), (platform, {"viewer"}), (wide, {"viewer", "developer", "admin"})):
        for role in Role:
            invitation = {"email": f"{role}@example.com", "role": role}
            reply = await api.as_(made["token"]).post(f"{owner.org}/invitations", invitation)
            assert reply.status == (201 if role in granted else 403), (role, granted)
    # What they could not give they cannot take, nor make more of.
    assert (await api.as_(narrow["token"]).patch(theirs, {"role": "viewer"})).status == 403
    assert (await api.as_(narrow["token"]).delete(theirs)).status == 403
    assert (await api.as_(wide["token"]).patch(theirs, {"role": "owner"})).status == 403
    assert (await api.as_(wide["token"]).patch(theirs, {"role": "viewer"})).status == 200
    assert (await api.as_(narrow["token"]).delete(theirs)).status == 204


async def test_an_admin_gives_no_say_about_money_that_they_do_not_have(api: Api) -> None:
    owner = await api.sign_up("me@example.com")
    admin = await api.join(owner, "admin@example.com", "admin")
    for role, status_ in (("billing", 403), ("owner", 403), ("admin", 201)):
        invitation = {"email": f"new-{role}@example.com", "role": role}
        assert (await admin.api.post(f"{owner.org}/invitations", invitation)).status == status_, role


async def test_what_is_made_with_a_token_ends_with_it(api: Api) -> None:
    owner = await api.sign_up("me@example.com")
    scopes = ["tokens:write", "keys:write", "members:write", *PERMISSIONS_BY_ROLE[Role.VIEWER]]
    path = f"{owner.org}/tokens"
    ends = "2099-01-01T00:00:00Z"
    parent = await owner.api.post(path, {"name": "parent", "scopes": scopes, "expires_at": ends})
    child = await api.as_(parent["token"]).post(path, {"name": "child", "scopes": scopes})
    later = {"name": "grandchild", "scopes": ["keys:read"], "expires_at": "2100-01-01T00:00:00Z"}
    grandchild = await api.as_(child["token"]).post(path, later)
    earlier = {"name": "x", "scopes": ["keys:read"], "expires_at": "2098-01-01T00:00:00Z"}
    assert [made["expires_at"] for made in (child, grandchild)] == [ends, ends]
    assert (await api.as_(child["token"]).post(path, earlier))["expires_at"] == earlier["expires_at"]
    beside = await owner.api.post(path, {"name": "beside", "scopes": ["keys:read"]})
    key = await api.as_(child["token"]).post(f"{owner.org}/keys", {"name": "by the child"})
    guest = await api.sign_up("guest@example.com")
    invitation = {"email": guest.email, "role": "viewer"}
    assert (await api.as_(child["token"]).post(f"{owner.org}/invitations", invitation)).status == 201
    assert (await owner.api.delete(f"{path}/{parent['id']}")).status == 204
    for made in (parent, child, grandchild):
        assert (await api.as_(made["token"]).get(f"{owner.org}/keys")).status == 401
    assert [each["id"] for each in (await owner.api.get(path))["data"]] == [beside["id"]]
    assert (await guest.api.post("/invitations/accept", {"token": api.mailbox.token(guest.email)})).status == 422
    # A key is the organisation's own.
    assert (await owner.api.get(f"{owner.org}/keys/{key['id']}"))["disabled"] is False
    ended = [each for each in (await owner.api.get(f"{owner.org}/audit"))["data"] if each["action"] == "token.revoke"]
    assert {each["target_id"] for each in ended} >= {parent["id"], child["id"], grandchild["id"]}


async def test_a_token_that_is_made_while_its_maker_is_revoked_does_not_outlive_it(api: Api) -> None:
    owner = await api.sign_up("me@example.com")
    path = f"{owner.org}/tokens"
    parent = await owner.api.post(path, {"name": "parent", "scopes": ["tokens:write", "keys:read"]})
    replies = await asyncio.gather(
        *(api.as_(parent["token"]).post(path, {"name": "child", "scopes": ["keys:read"]}) for _ in range(8)),
        owner.api.delete(f"{path}/{parent['id']}"),
    )
    assert replies[-1].status == 204
    assert {reply.status for reply in replies[:-1]} <= {201, 401}
    assert (await owner.api.get(path))["data"] == []


@pytest.mark.parametrize("way", ["removed", "left"])
async def test_who_is_no_member_any_more_has_no_tokens_and_no_invitations_there(api: Api, way: str) -> None:
    owner = await api.sign_up("me@example.com")
    admin = await api.join(owner, "admin@example.com", "admin")
    here = await admin.api.post(f"{owner.org}/tokens", {"name": "here", "scopes": ["tokens:write", "keys:read"]})
    child = await api.as_(here["token"]).post(f"{owner.org}/tokens", {"name": "child", "scopes": ["keys:read"]})
    elsewhere = await admin.api.post(f"{admin.org}/tokens", {"name": "elsewhere", "scopes": ["keys:read"]})
    guest = await api.sign_up("guest@example.com")
    assert (await admin.api.post(f"{owner.org}/invitations", {"email": guest.email, "role": "admin"})).status == 201
    if way == "removed":
        assert (await owner.api.delete(f"{owner.org}/members/{admin.user_id}")).status == 204
    else:
        assert (await admin.api.delete(f"{owner.org}/membership")).status == 204
    for made in (here, child):
        assert (await api.as_(made["token"]).get(f"{owner.org}/keys")).status == 401
    assert (await api.as_(elsewhere["token"]).get(f"{admin.org}/keys")).status == 200
    assert (await guest.api.post("/invitations/accept", {"token": api.mailbox.token(guest.email)})).status == 422
    # Back again, they begin anew.
    again = await owner.api.post(f"{owner.org}/invitations", {"email": admin.email, "role": "admin"})
    assert again.status == 201
    assert (await admin.api.post("/invitations/accept", {"token": api.mailbox.token(admin.email)})).status == 200
    assert (await api.as_(here["token"]).get(f"{owner.org}/keys")).status == 401


async def test_who_may_less_than_before_keeps_only_what_they_could_still_make(api: Api) -> None:
    owner = await api.sign_up("me@example.com")
    admin = await api.join(owner, "admin@example.com", "admin")
    path = f"{owner.org}/tokens"
    beyond = await admin.api.post(path, {"name": "beyond", "scopes": ["keys:read", "tokens:write"]})
    child = await api.as_(beyond["token"]).post(path, {"name": "child", "scopes": ["keys:read"]})
    within = await admin.api.post(path, {"name": "within", "scopes": ["keys:read", "keys:write"]})
    guest = await api.sign_up("guest@example.com")
    await admin.api.post(f"{owner.org}/invitations", {"email": guest.email, "role": "viewer"})
    theirs = f"{owner.org}/members/{admin.user_id}"
    assert (await owner.api.patch(theirs, {"role": "developer"})).status == 200
    for made, status_ in ((beyond, 401), (child, 401), (within, 200)):
        assert (await api.as_(made["token"]).get(f"{owner.org}/keys")).status == status_, made["name"]
    assert (await guest.api.post("/invitations/accept", {"token": api.mailbox.token(guest.email)})).status == 422


async def test_an_owner_who_becomes_an_admin_keeps_the_invitations_an_admin_may_make(api: Api) -> None:
    owner = await api.sign_up("me@example.com")
    second = await api.join(owner, "second@example.com", "owner")
    guests = {role: await api.sign_up(f"{role}@example.com") for role in ("owner", "billing", "admin", "viewer")}
    for role, guest in guests.items():
        await second.api.post(f"{owner.org}/invitations", {"email": guest.email, "role": role})
    assert (await owner.api.patch(f"{owner.org}/members/{second.user_id}", {"role": "admin"})).status == 200
    accepted = {
        role: (await guest.api.post("/invitations/accept", {"token": api.mailbox.token(guest.email)})).status
        for role, guest in guests.items()
    }
    assert accepted == {"owner": 422, "billing": 422, "admin": 200, "viewer": 200}


def test_every_permission_of_an_organisation_belongs_to_its_owner_and_none_of_the_platform() -> None:
    assert PERMISSIONS_BY_ROLE[Role.OWNER] == frozenset(Permission) - PLATFORM
    for role in Role:
        assert PERMISSIONS_BY_ROLE[role] <= PERMISSIONS_BY_ROLE[Role.OWNER]


def test_an_operation_asks_for_an_organisations_permission_only_where_it_names_one() -> None:
    for each in OPERATIONS:
        if isinstance(each.access, Permission):
            assert "{org_id}" in each.path or each.access in PLATFORM, each.path
    assert PREFIX == "/api/v1"


async def test_a_closed_organisation_takes_its_tokens_with_it(api: Api) -> None:
    owner = await api.sign_up("me@example.com")
    made = await owner.api.post(f"{owner.org}/tokens", {"name": "ci", "scopes": ["keys:read"]})
    assert (await owner.api.patch(owner.org, {"disabled": True})).status == 403
    operator = api.as_(await api.operator_token())
    assert (await operator.patch(owner.org, {"disabled": True}))["disabled_at"] is not None
    assert (await api.as_(made["token"]).get(f"{owner.org}/keys")).status == 401


async def test_in_a_closed_organisation_nothing_is_changed_but_by_operators(api: Api) -> None:
    owner = await api.sign_up("me@example.com")
    guest = await api.sign_up("guest@example.com")
    key = await owner.api.post(f"{owner.org}/keys", {"name": "first"})
    await owner.api.post(f"{owner.org}/invitations", {"email": guest.email, "role": "viewer"})
    operator = api.as_(await api.operator_token())
    assert (await operator.patch(owner.org, {"disabled": True})).status == 200
    invitation = {"email": "x@example.com", "role": "viewer"}
    refused = [
        await owner.api.patch(owner.org, {"name": "x"}),
        await owner.api.post(f"{owner.org}/keys", {"name": "second"}),
        await owner.api.patch(f"{owner.org}/keys/{key['id']}", {"name": "x"}),
        await owner.api.post(f"{owner.org}/keys/{key['id']}/rotate", {}),
        await owner.api.delete(f"{owner.org}/keys/{key['id']}"),
        await owner.api.post(f"{owner.org}/tokens", {"name": "x", "scopes": ["keys:read"]}),
        await owner.api.post(f"{owner.org}/invitations", invitation),
        await owner.api.post(f"{owner.org}/projects", {"name": "x"}),
        await owner.api.post(f"{owner.org}/test-balance/refill"),
        await guest.api.post("/invitations/accept", {"token": api.mailbox.token(guest.email)}),
    ]
    assert {(reply.status, reply["code"]) for reply in refused} == {(409, "organization_closed")}
    assert (await guest.api.post(f"{owner.org}/keys", {"name": "x"})).status == 404
    assert (await owner.api.get(f"{owner.org}/keys/{key['id']}"))["name"] == "first"
    assert (await operator.patch(owner.org, {"disabled": False})).status == 200
    assert (await owner.api.post(f"{owner.org}/keys", {"name": "second"})).status == 201
    assert (await guest.api.post("/invitations/accept", {"token": api.mailbox.token(guest.email)})).status == 200
