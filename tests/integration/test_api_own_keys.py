"""Keys of organisations for providers through the API, on a real Postgres: who has one, and what takes it away."""

from typing import Any

import asyncpg
import pytest

from control_plane.accounts.throttle import OWN_KEY_CHANGES
from control_plane.api.own_keys import OWN_KEYS_PER_ORG_MAX, OWN_KEYS_PER_OWNER_MAX
from tests.support.api import Account, Api, Reply, running_api
from tests.support.catalog_api import PROVIDER, delete, put, serve

ALLOWED = {**PROVIDER, "own_keys": "allowed", "own_key_fee_percent": "2.50"}
SECRET = "sk-an-organisations-own-credential-9x7Z"
AWS = {"kind": "bedrock", "base_url": "https://bedrock-runtime.eu-central-1.amazonaws.com", "region": "eu-central-1"}


@pytest.fixture
async def operator(api: Api) -> Api:
    found = api.as_(await api.operator_token())
    assert (await put(found, "/providers/one", ALLOWED)).status == 202
    return found


async def give(account: Account, provider: str = "one", **body: Any) -> Reply:
    return await put(account.api, f"{account.org}/provider-credentials/{provider}", {"credential": SECRET, **body})


async def test_a_provider_says_whether_and_for_what_it_takes_own_keys(operator: Api) -> None:
    shown = await operator.get("/providers/one")
    assert (shown["own_keys"], shown["own_key_fee_percent"]) == ("allowed", "2.5")
    assert (await put(operator, "/providers/two", PROVIDER)).status == 202
    assert (await operator.get("/providers/two"))["own_keys"] == "refused"
    for fee in ("101", "-1", "x", "0.00001"):
        refused = await put(operator, "/providers/three", {**ALLOWED, "own_key_fee_percent": fee})
        assert (refused.status, refused.pointers) == (422, ["/own_key_fee_percent"])


async def test_a_key_is_stored_shown_by_its_end_changed_with_its_etag_and_removed(
    operator: Api, owner: Account
) -> None:
    path = f"{owner.org}/provider-credentials/one"
    assert (await owner.api.get(path)).status == 404
    made = await give(owner)
    assert made.status == 202
    assert (made["provider"], made["hint"], made["fallback"], made["state"]) == ("one", "...9x7Z", False, "pending")
    assert (await give(owner)).status == 428
    changed = await put(owner.api, path, {"fallback": True}, etag=made["revision"])
    assert (changed.status, changed["hint"], changed["fallback"]) == (202, "...9x7Z", True)
    assert (await put(owner.api, path, {"fallback": False}, etag=made["revision"])).status == 412
    assert [each["provider"] for each in (await owner.api.get(f"{owner.org}/provider-credentials"))["data"]] == ["one"]
    rows = await operator.pool.fetch("SELECT k::text AS text, credential FROM catalog.own_keys k")
    assert SECRET.encode() not in rows[0]["credential"]
    audit = (await owner.api.get(f"{owner.org}/audit")).text
    assert SECRET not in rows[0]["text"] + audit + made.text
    assert (await delete(owner.api, path)).status == 204
    assert (await owner.api.get(path)).status == 404
    actions = [each["action"] for each in (await owner.api.get(f"{owner.org}/audit"))["data"]]
    assert actions[:3] == ["own_key.delete", "own_key.put", "own_key.put"]


async def test_where_own_keys_are_refused_the_answer_says_so_and_who_allows_them(operator: Api, owner: Account) -> None:
    assert (await put(operator, "/providers/two", PROVIDER)).status == 202
    refused = await give(owner, "two")
    assert (refused.status, refused["code"]) == (409, "conflict")
    assert "Own keys are not allowed at the provider 'two'" in refused["detail"]
    assert "--own-keys allowed" in refused["detail"]
    assert (await give(owner, "none")).status == 404


async def test_nobody_sees_or_touches_anothers(operator: Api, owner: Account, api: Api) -> None:
    assert (await give(owner)).status == 202
    stranger = await api.sign_up("stranger@example.com", "Strangers")
    path = f"{owner.org}/provider-credentials/one"
    assert (await stranger.api.get(path)).status == 404
    assert (await put(stranger.api, path, {"credential": SECRET}, etag="*")).status == 404
    assert (await delete(stranger.api, path)).status == 404
    assert (await stranger.api.get(f"{stranger.org}/provider-credentials"))["data"] == []
    assert await operator.pool.fetchval("SELECT array_agg(org_id) FROM catalog.own_keys") == [owner.org.split("/")[-1]]


@pytest.mark.parametrize(
    "change",
    [
        {"own_keys": "refused"},
        {"base_url": "https://elsewhere.example.com/v1"},
        {"base_url": "https://api.example.com:8443/v1"},
        {"kind": "anthropic"},
    ],
)
async def test_a_provider_that_moves_or_refuses_them_has_none_left(
    operator: Api, owner: Account, change: dict[str, str]
) -> None:
    assert (await give(owner)).status == 202
    assert (await put(operator, "/providers/one", {**ALLOWED, "requests_max": 5}, etag="*")).status == 202
    assert (await owner.api.get(f"{owner.org}/provider-credentials/one")).status == 200
    assert (await put(operator, "/providers/one", {**ALLOWED, **change}, etag="*")).status == 202
    assert (await owner.api.get(f"{owner.org}/provider-credentials/one")).status == 404


async def test_a_change_that_is_undone_brings_them_back(operator: Api, owner: Account) -> None:
    assert (await give(owner)).status == 202
    changed = await put(operator, "/providers/one", {**ALLOWED, "own_keys": "refused"}, etag="*")
    await operator.pool.execute("SELECT catalog.put_back($1)", changed["revision"])
    assert (await owner.api.get(f"{owner.org}/provider-credentials/one"))["hint"] == "...9x7Z"
    assert (await operator.get("/providers/one"))["own_keys"] == "allowed"


async def test_each_fee_holds_from_its_revision(operator: Api) -> None:
    assert (await put(operator, "/providers/one", {**ALLOWED, "own_key_fee_percent": "7"}, etag="*")).status == 202
    assert (await put(operator, "/providers/one", {**ALLOWED, "own_key_fee_percent": "7"}, etag="*")).status == 202
    rows = await operator.pool.fetch(
        "SELECT fee_ppm FROM catalog.own_key_fees WHERE provider = 'one' ORDER BY revision"
    )
    assert [row["fee_ppm"] for row in rows] == [25_000, 70_000]


async def test_which_keys_there_are_is_numbered_and_what_they_are_is_not(operator: Api, owner: Account) -> None:
    async def newest() -> int:
        found: int = await operator.pool.fetchval("SELECT coalesce(max(revision), 0) FROM catalog.own_key_changes")
        return found

    path = f"{owner.org}/provider-credentials/one"
    made = await give(owner)
    assert await newest() == made["revision"]
    assert (await put(owner.api, path, {"credential": SECRET + "2"}, etag="*")).status == 202
    assert await newest() == made["revision"]
    assert (await delete(owner.api, path)).status == 204
    assert await newest() > made["revision"]


async def test_keys_of_aws_are_looked_at_as_an_operators(operator: Api, owner: Account) -> None:
    assert (
        await put(operator, "/providers/aws", {**AWS, "credential": "bedrock-api-key", "own_keys": "allowed"})
    ).status == 202
    refused = await give(owner, "aws", credential="AKIA:short")
    assert (refused.status, refused.pointers) == (422, ["/credential"])
    assert "AKIA" not in refused.text
    assert (await give(owner, "aws", credential="A" * 20 + ":" + "s" * 40)).status == 202


async def test_there_are_as_many_as_their_bounds_allow(pool: asyncpg.Pool) -> None:
    async with running_api(pool, own_keys_max=OWN_KEYS_PER_ORG_MAX + 1) as api:
        operator = api.as_(await api.operator_token())
        for number in range(OWN_KEYS_PER_ORG_MAX + 1):
            assert (await put(operator, f"/providers/p{number}", ALLOWED)).status == 202
        one, two = await api.sign_up("one@example.com"), await api.sign_up("two@example.com")
        for number in range(OWN_KEYS_PER_ORG_MAX):
            assert (await give(one, f"p{number}")).status == 202
        assert (await give(one, f"p{OWN_KEYS_PER_ORG_MAX}")).status == 409
        assert (await give(two, "p0")).status == 202
        assert (await give(two, "p1")).status == 409


async def test_who_owns_several_organisations_has_as_many_in_all_of_them_as_in_one(
    operator: Api, owner: Account
) -> None:
    for number in range(OWN_KEYS_PER_OWNER_MAX):
        assert (await put(operator, f"/providers/p{number}", ALLOWED)).status == 202
        assert (await give(owner, f"p{number}")).status == 202
    other = (await owner.api.post("/orgs", {"name": "Another"}))["id"]
    refused = await put(owner.api, f"/orgs/{other}/provider-credentials/one", {"credential": SECRET})
    assert (refused.status, "owner" in refused.text) == (409, True)
    # Nor if somebody else owns it, too.
    stranger = await operator.sign_up("stranger@example.com", "Strangers")
    await operator.pool.execute(
        "INSERT INTO accounts.memberships (org_id, user_id, role) SELECT $1, user_id, 'owner' FROM accounts.users WHERE email = $2",
        other,
        "stranger@example.com",
    )
    assert (await put(stranger.api, f"/orgs/{other}/provider-credentials/one", {"credential": SECRET})).status == 409
    assert (await give(stranger)).status == 202
    assert (await delete(owner.api, f"{owner.org}/provider-credentials/p0")).status == 204
    assert (await put(owner.api, f"/orgs/{other}/provider-credentials/one", {"credential": SECRET})).status == 202


async def test_changes_of_own_keys_are_so_many_an_hour(operator: Api, owner: Account) -> None:
    path = f"{owner.org}/provider-credentials/one"
    assert (await give(owner)).status == 202
    for _ in range(OWN_KEY_CHANGES.attempts_max - 1):
        assert (await put(owner.api, path, {"fallback": True}, etag="*")).status == 202
    refused = await put(owner.api, path, {"fallback": True}, etag="*")
    assert (refused.status, "retry-after" in refused.headers) == (429, True)
    assert (await delete(owner.api, path)).status == 429
    assert (await give(await operator.sign_up("stranger@example.com", "Strangers"))).status == 202


async def test_where_a_request_would_go_is_explained_with_the_organisations_own_key(
    operator: Api, owner: Account
) -> None:
    await serve(operator, "m", "one")
    assert (await put(operator, "/providers/two", PROVIDER)).status == 202
    assert (await put(operator, "/deployments/m/two", {"upstream_model": "m"})).status == 202
    await operator.pool.execute(
        "INSERT INTO catalog.prices SELECT 'm', provider, 0, 'input', 1, 40000000 FROM unnest('{one,two}'::text[]) AS provider"
    )
    groups = [[{"provider": "one"}], [{"provider": "two"}]]
    assert (await put(operator, "/routes/m", {"match": "m", "groups": groups}, etag="*")).status == 202

    async def told(org_id: str | None) -> tuple[list[tuple[Any, ...]], str]:
        found = await operator.post("/routes/explain", {"endpoint": "chat", "model": "m", "org_id": org_id})
        shown = [(m["provider"], m["asked_with"], m["skipped_because"]) for g in found["groups"] for m in g["members"]]
        return shown, found["hold"]["amount"]

    ours = [("one", "ours", None), ("two", "ours", None)]
    assert await told(owner.org_id) == (ours, "0.00004")
    assert (await give(owner)).status == 202
    assert await told(owner.org_id) == ([("one", "own", None), ours[1]], "0.00004")
    assert await told(None) == (ours, "0.00004")
    assert (await put(operator, "/routes/m", {"match": "m", "groups": groups[:1]}, etag="*")).status == 202
    assert await told(owner.org_id) == ([("one", "own", None)], "0.000001")
    path = f"{owner.org}/provider-credentials/one"
    assert (await put(owner.api, path, {"fallback": True}, etag="*")).status == 202
    assert await told(owner.org_id) == ([("one", "own_then_ours", None)], "0.00004")
    await operator.pool.execute("UPDATE catalog.own_keys SET credential = '\\x00'")
    reason = "the organisation's own key there cannot be read, and ours is not sent in its place"
    assert (await told(owner.org_id))[0] == [("one", None, reason)]
    await operator.pool.execute("UPDATE catalog.models SET endpoints = '{chat,realtime}'")
    refused = await operator.post("/routes/explain", {"endpoint": "realtime", "model": "m", "org_id": owner.org_id})
    assert refused["refused_because"] == (
        "the organisation has a key of its own at a provider of the route, with which this endpoint is not offered"
    )
