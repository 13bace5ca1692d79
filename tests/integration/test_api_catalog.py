"""The catalogue through the API, on a real Postgres: what is accepted, what is refused and why, who was first."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.support.api import INSIDE, Api, running_api
from tests.support.catalog_api import MODEL, PROVIDER, add_price, delete, put, serve


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    async with running_api(pool) as running:
        yield running.as_(await running.operator_token())


async def served(pool: asyncpg.Pool) -> set[tuple[str, str, int]]:
    rows = await pool.fetch("SELECT model, provider, priority FROM catalog.served")
    return {(row["model"], row["provider"], row["priority"]) for row in rows}


async def test_a_change_answers_with_an_operation_whose_revision_is_the_etag_of_what_it_changed(api: Api) -> None:
    made = await put(api, "/providers/one", PROVIDER)
    assert (made.status, made["state"], made["action"], made["target"]) == (202, "pending", "provider.put", "one")
    got = await api.get("/providers/one")
    assert got.headers["ETag"] == made.headers["ETag"] == f'"{made["revision"]}"'
    assert got.document | {"revision": 0} == {
        "name": "one",
        "kind": "openai",
        "base_url": "https://api.example.com/v1",
        "region": None,
        "has_credential": False,
        "headers": {},
        "connect_timeout_ms": None,
        "connections_max": None,
        "requests_max": None,
        "requests_per_minute_max": None,
        "tokens_per_minute_max": None,
        "probed": True,
        "own_keys": "refused",
        "own_key_fee_percent": "0",
        "revision": 0,
    }
    assert (await api.get(f"/operations/{made['id']}")).document == made.document


async def test_a_credential_goes_in_and_never_comes_out(api: Api) -> None:
    secret = "sk-provider-secret-93"
    made = await put(api, "/providers/one", PROVIDER | {"credential": secret})
    assert (await api.get("/providers/one"))["has_credential"] is True
    shown = [made, *[await api.get(path) for path in ("/providers", "/providers/one", "/operations", "/audit")]]
    assert not any(secret in reply.text for reply in shown)
    kept = await api.pool.fetchrow("SELECT credential, to_jsonb(p)::text AS row FROM catalog.providers p")
    assert kept is not None
    assert secret.encode() not in kept["credential"]
    # Left out, it stays; null removes it.
    await put(api, "/providers/one", PROVIDER, etag="*")
    assert await api.pool.fetchval("SELECT credential FROM catalog.providers") == kept["credential"]
    await put(api, "/providers/one", PROVIDER | {"credential": None}, etag="*")
    assert (await api.get("/providers/one"))["has_credential"] is False


async def test_a_provider_that_needs_a_credential_is_not_routed_without_one(api: Api) -> None:
    groq = {"kind": "groq", "base_url": "https://api.groq.com/openai/v1"}
    await put(api, "/providers/one", groq)
    await put(api, "/models/m", MODEL)
    await put(api, "/deployments/m/one", {"upstream_model": "m"})
    await add_price(api.pool, "m", "one")
    route = {"match": "m", "groups": [[{"provider": "one"}]]}
    refused = await put(api, "/routes/m", route)
    assert (refused.status, refused.pointers) == (422, ["/groups/0/0/provider"])
    document = {"routes": {"m": route}}
    headers = {"If-Match": (await api.get("/catalog")).headers["ETag"]}
    refused = await api.post("/catalog/apply", document, headers=headers)
    assert (refused.status, refused.pointers) == (422, ["/routes/m/groups/0/0/provider"])
    brought = document | {"providers": {"one": groq | {"credential": "gsk-x"}}}
    assert (await api.post("/catalog/apply", brought, headers=headers)).status == 202
    assert await served(api.pool) == {("m", "one", 0)}


async def test_a_credential_does_not_follow_its_provider_to_another_address(api: Api) -> None:
    await put(api, "/providers/one", PROVIDER | {"credential": "sk-x"})
    moved = PROVIDER | {"base_url": "https://elsewhere.example.com/v1"}
    refused = await put(api, "/providers/one", moved, etag="*")
    assert (refused.status, refused.pointers) == (422, ["/credential"])
    assert (await put(api, "/providers/one", moved | {"credential": "sk-x"}, etag="*")).status == 202
    assert (
        await put(api, "/providers/one", moved | {"base_url": "https://elsewhere.example.com/v2"}, etag="*")
    ).status == 202


AWS = PROVIDER | {"kind": "bedrock", "region": "us-east-1"}
AWS_KEY = "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEYzz"


@pytest.mark.parametrize(
    ("before", "credential", "after"),
    [
        pytest.param(AWS, AWS_KEY, PROVIDER, id="what was signed with would be sent in clear"),
        pytest.param(PROVIDER, "abc:def", AWS, id="what is no access key would be signed with"),
        pytest.param(PROVIDER, "sk-x", PROVIDER | {"kind": "azure"}, id="in another header"),
    ],
)
async def test_a_credential_does_not_follow_its_provider_to_another_way_of_authentication(
    api: Api, before: dict[str, Any], credential: str, after: dict[str, Any]
) -> None:
    await put(api, "/providers/one", before | {"credential": credential})
    refused = await put(api, "/providers/one", after, etag="*")
    assert (refused.status, refused.pointers) == (422, ["/credential"])
    applied = await api.post("/catalog/apply", {"providers": {"one": after}}, headers={"If-Match": "*"})
    assert (applied.status, applied.pointers) == (422, ["/providers/one/credential"])
    difference = (await api.post("/catalog/diff", {"providers": {"one": after}}))["changes"]
    assert {"field": "credential", "before": "hidden", "after": "required"} in difference[0]["fields"]
    assert (await put(api, "/providers/one", after | {"credential": AWS_KEY}, etag="*")).status == 202


async def test_a_credential_stays_where_another_kind_takes_it_in_the_same_way(api: Api) -> None:
    await put(api, "/providers/one", PROVIDER | {"credential": "sk-x"})
    assert (await put(api, "/providers/one", PROVIDER | {"kind": "openai-compatible"}, etag="*")).status == 202


async def test_what_another_operator_changed_meanwhile_is_not_lost(api: Api) -> None:
    seen = (await put(api, "/providers/one", PROVIDER))["revision"]
    mine = await put(api, "/providers/one", PROVIDER | {"requests_max": 5}, etag=seen)
    assert mine.status == 202
    theirs = await put(api, "/providers/one", PROVIDER | {"requests_max": 6}, etag=seen)
    assert (theirs.status, theirs["code"]) == (412, "stale_revision")
    assert (await delete(api, "/providers/one", etag=seen)).status == 412
    assert (await api.get("/providers/one"))["requests_max"] == 5


async def test_replacing_needs_the_revision_and_creating_must_not_have_one(api: Api) -> None:
    assert (await put(api, "/models/m", MODEL, etag="*")).status == 412
    assert (await put(api, "/models/m", MODEL)).status == 202
    assert (await put(api, "/models/m", MODEL)).status == 428
    assert (await api.call("DELETE", "/models/m")).status == 428


async def test_two_who_create_the_same_at_once_do_not_overwrite_each_other(api: Api) -> None:
    bodies = [PROVIDER | {"requests_max": number} for number in range(1, 9)]
    replies = await asyncio.gather(*(put(api, "/providers/one", body) for body in bodies))
    assert sorted(reply.status for reply in replies) == [202] + [428] * 7
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.operations") == 1


async def test_a_model_is_served_once_it_has_a_provider_a_price_and_a_published_route(api: Api) -> None:
    assert (await serve(api, "m")).status == 202
    assert await served(api.pool) == {("m", "one", 0)}
    draft = {"match": "m", "groups": [[{"provider": "one"}]], "published": False}
    assert (await put(api, "/routes/m", draft, etag="*")).status == 202
    assert await served(api.pool) == set()


async def test_a_route_without_a_price_can_be_drafted_and_not_published(api: Api) -> None:
    await put(api, "/providers/one", PROVIDER)
    await put(api, "/models/m", MODEL)
    await put(api, "/deployments/m/one", {"upstream_model": "up"})
    route = {"match": "m", "groups": [[{"provider": "one"}]]}
    refused = await put(api, "/routes/m", route)
    assert (refused.status, refused.pointers) == (422, ["/groups/0/0/provider"])
    assert (await put(api, "/routes/m", route | {"published": False})).status == 202
    await add_price(api.pool, "m", "one")
    assert (await put(api, "/routes/m", route, etag="*")).status == 202


async def test_a_pattern_serves_every_model_it_matches_and_a_name_or_a_longer_pattern_wins(api: Api) -> None:
    await put(api, "/providers/two", PROVIDER)
    for model in ("gpt-4", "gpt-4-mini", "gpt_5"):
        await serve(api, model)
        await put(api, f"/deployments/{model}/two", {"upstream_model": "up"})
        await add_price(api.pool, model, "two")
    await delete(api, "/routes/gpt-4-mini")
    await delete(api, "/routes/gpt_5")
    everything = {"match": "gpt*", "groups": [[{"provider": "one"}], [{"provider": "two"}]]}
    assert (await put(api, "/routes/all", everything)).status == 202
    assert (await put(api, "/routes/four", {"match": "gpt-4*", "groups": [[{"provider": "two"}]]})).status == 202
    assert await served(api.pool) == {
        ("gpt-4", "one", 0),
        ("gpt-4-mini", "two", 0),
        ("gpt_5", "one", 0),
        ("gpt_5", "two", 1),
    }
    # An underscore is an underscore.
    assert (await put(api, "/routes/x", {"match": "g_t*", "groups": [[{"provider": "two"}]]})).status == 202
    assert ("gpt-4-mini", "two", 0) in await served(api.pool)


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        ("/providers/one", {"kind": "telex", "base_url": "https://h"}, ["/base_url", "/kind"]),
        (
            "/providers/one",
            PROVIDER | {"base_url": "https://10.0.0.1", "extra": 1, "requests_max": 0},
            ["/base_url", "/extra", "/requests_max"],
        ),
        ("/providers/Not-A-Name", PROVIDER | {"base_url": f"https://{INSIDE}/v1"}, ["/base_url", "{provider}"]),
        ("/models/m", MODEL | {"aliases": ["n", "n"], "context_tokens": 0}, ["/aliases/1", "/context_tokens"]),
        (
            "/routes/r",
            {"match": "a(b", "groups": [[{"provider": "known"}], [{"provider": "known"}]]},
            ["/groups/1/0/provider", "/match"],
        ),
        ("/providers/one", PROVIDER | {"credential": "a\nb"}, ["/credential"]),
        ("/providers/one", PROVIDER | {"credential": ""}, ["/credential"]),
        ("/providers/one", PROVIDER | {"headers": {"Authorization": "x"}}, ["/headers"]),
        ("/providers/one", PROVIDER | {"headers": {"x-tg-route": "x"}}, ["/headers"]),
        ("/providers/one", PROVIDER | {"headers": {"a": "x\r\nhost: y"}}, ["/headers"]),
        ("/providers/one", PROVIDER | {"headers": {"a": "1", "A": "2"}}, ["/headers"]),
        ("/providers/one", PROVIDER | {"connect_timeout_ms": 0, "requests_max": 10**30}, None),
        ("/providers/one", PROVIDER | {"base_url": "ftp://h"}, ["/base_url"]),
        ("/providers/one", PROVIDER | {"base_url": "http://api.example.com/v1"}, ["/base_url"]),
        ("/providers/one", PROVIDER | {"base_url": "https://169.254.169.254/latest"}, ["/base_url"]),
        ("/providers/one", PROVIDER | {"base_url": f"https://{INSIDE}/v1"}, ["/base_url"]),
        ("/providers/Not-A-Name", PROVIDER, ["{provider}"]),
        ("/models/a%20b", MODEL, None),
        ("/models/m", MODEL | {"aliases": ["m"]}, ["/aliases/0"]),
        ("/models/m", MODEL | {"aliases": ["n", "n"]}, ["/aliases/1"]),
        ("/models/m", MODEL | {"aliases": ["taken"]}, ["/aliases/0"]),
        ("/models/m", MODEL | {"aliases": ["drafted"]}, ["/aliases/0"]),
        ("/models/other", MODEL, ["{model}"]),
        ("/models/m", MODEL | {"context_tokens": 0, "surprise": 1}, ["/context_tokens", "/surprise"]),
        ("/deployments/nope/nobody", {"upstream_model": "x"}, ["{model}", "{provider}"]),
        ("/routes/r", {"match": "m", "groups": []}, ["/groups"]),
        ("/routes/r", {"match": "m", "groups": [[]]}, ["/groups/0"]),
        ("/routes/r", {"match": "nope", "groups": [[{"provider": "nobody"}]]}, ["/groups/0/0/provider", "/match"]),
        ("/routes/r", {"match": "taken", "groups": [[{"provider": "known"}]]}, ["/groups/0/0/provider"]),
        ("/routes/r", {"match": "other", "groups": [[{"provider": "known"}]]}, None),
        ("/routes/r", {"match": "a*b*c*d*e*f", "groups": [[{"provider": "known"}]]}, ["/match"]),
        ("/routes/r", {"match": "a(b", "groups": [[{"provider": "known"}]]}, ["/match"]),
        (
            "/routes/r",
            {"match": "taken*", "groups": [[{"provider": "known"}], [{"provider": "known"}]]},
            ["/groups/1/0/provider"],
        ),
        (
            "/routes/r",
            {"match": "x*", "groups": [[{"provider": "known"}]], "orgs_allowed": ["org_nobody"]},
            ["/orgs_allowed/0"],
        ),
        ("/routes/r", {"match": "x*", "groups": [[{"provider": "known"}]], "retry_statuses": [200]}, None),
    ],
)
async def test_bad_input_is_refused_with_every_offending_field_and_changes_nothing(
    api: Api, path: str, body: dict[str, Any], pointers: list[str] | None
) -> None:
    await put(api, "/providers/known", PROVIDER)
    await put(api, "/models/taken", MODEL | {"aliases": ["other"]})
    await put(api, "/routes/draft", {"match": "drafted", "groups": [[{"provider": "known"}]], "published": False})
    before = await api.pool.fetch("SELECT * FROM catalog.changes ORDER BY seq")
    refused = await put(api, path, body)
    assert refused.status in {422, 400, 404}, refused.text
    if pointers is not None:
        assert (refused.status, refused.pointers) == (422, pointers)
    assert await api.pool.fetch("SELECT * FROM catalog.changes ORDER BY seq") == before


async def test_what_is_used_cannot_be_removed_and_the_refusal_says_by_what(api: Api) -> None:
    await serve(api, "m")
    for path, used_by in (
        ("/providers/one", "deployment m at one"),
        ("/models/m", "route m"),
        ("/deployments/m/one", "route m"),
    ):
        refused = await delete(api, path)
        assert refused.status == 409
        assert used_by in refused["detail"]
    for path in ("/routes/m", "/deployments/m/one", "/models/m", "/providers/one"):
        assert (await delete(api, path)).status == 202
    assert [(await api.get(path)).status for path in ("/models/m", "/providers/one")] == [404, 404]


async def test_names_with_slashes_and_colons_are_reached_encoded(api: Api) -> None:
    name, encoded = "meta-llama/Llama-3.1:8b", "meta-llama%2FLlama-3.1:8b"
    await put(api, "/providers/one", PROVIDER)
    await put(api, f"/models/{encoded}", MODEL)
    await put(api, f"/deployments/{encoded}/one", {"upstream_model": name})
    await add_price(api.pool, name, "one")
    assert (await put(api, f"/routes/{encoded}", {"match": name, "groups": [[{"provider": "one"}]]})).status == 202
    assert (await api.get(f"/models/{encoded}"))["name"] == name
    assert (await api.get(f"/deployments/{encoded}/one"))["upstream_model"] == name
    assert await served(api.pool) == {(name, "one", 0)}


async def test_a_rehearsal_says_what_would_happen_and_keeps_nothing(api: Api) -> None:
    rehearsed = await put(api, "/providers/one?dry_run=true", PROVIDER)
    assert (rehearsed.status, rehearsed.headers["X-Tollgate-Dry-Run"]) == (202, "true")
    assert (await api.get("/providers/one")).status == 404
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.operations") == 0


async def test_every_change_is_in_the_audit_log_with_what_was_there_before(api: Api) -> None:
    await put(api, "/providers/one", PROVIDER | {"credential": "sk-hidden"})
    await put(api, "/providers/one", PROVIDER | {"requests_max": 9}, etag="*")
    entry, first, *_ = (await api.get("/audit"))["data"]
    assert (entry["action"], entry["target_id"]) == ("provider.put", "one")
    assert (entry["before"]["requests_max"], entry["after"]["requests_max"]) == (None, 9)
    assert (first["before"], first["after"]["has_credential"]) == (None, True)


async def test_lists_come_in_pages(api: Api) -> None:
    for number in range(5):
        await put(api, f"/models/m{number}", MODEL)
    first = await api.get("/models?limit=3")
    second = await api.get(f"/models?limit=3&cursor={first['next_cursor']}")
    assert [model["name"] for model in first["data"] + second["data"]] == [f"m{number}" for number in range(5)]
    operations = (await api.get("/operations?limit=2"))["data"]
    assert [each["target"] for each in operations] == ["m4", "m3"]
