"""The catalogue as one document through the API, on a real Postgres: read, compared, checked by Envoy, applied, pruned."""

import asyncio
import copy
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from control_plane.catalog.postgres_operations import begin_revision
from control_plane.settings import Settings
from control_plane.xds import configuration_check
from tests.support.api import Api, Reply, running_api
from tests.support.catalog_api import MODEL, PROVIDER, add_price, put, serve
from tests.support.catalog_documents import DOCUMENT, INPUT_PRICE
from tests.support.catalogs import settings

SECRET = "sk-never-on-disk"
JSON = {"Content-Type": "application/json"}


def stand_in(tmp_path: Path, script: str) -> Settings:
    """Settings that name a shell script as Envoy."""
    binary = tmp_path / "envoy"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    return settings().model_copy(update={"envoy_binary": str(binary)})


async def verdict_of(pool: asyncpg.Pool, tmp_path: Path, script: str) -> Reply:
    """A check of a small catalogue with a credential in it."""
    async with running_api(pool, check_settings=stand_in(tmp_path, script)) as running:
        api = running.as_(await running.operator_token())
        return await api.post("/catalog/check", {"providers": {"one": PROVIDER | {"credential": SECRET}}})


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    async with running_api(pool) as running:
        yield running.as_(await running.operator_token())


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The document above with something else in it."""
    document = copy.deepcopy(DOCUMENT)
    change(document)
    return document


async def apply(api: Api, document: dict[str, Any], query: str = "", *, etag: object = "*") -> Reply:
    header = "*" if etag == "*" else f'"{etag}"'
    return await api.post(f"/catalog/apply{query}", document, headers={"If-Match": header})


async def diff(api: Api, document: dict[str, Any], query: str = "") -> list[tuple[str, str, str]]:
    reply = await api.post(f"/catalog/diff{query}", document)
    assert reply.status == 200, reply.text
    return [(each["change"], each["kind"], each["key"]) for each in reply["changes"]]


async def rows(pool: asyncpg.Pool) -> list[Any]:
    tables = ("providers", "models", "model_aliases", "deployments", "prices", "routes", "route_members", "operations")
    return [await pool.fetch(f"SELECT * FROM catalog.{table} t ORDER BY t::text") for table in tables]


async def test_an_applied_document_is_what_is_exported_and_served_and_one_operation(api: Api) -> None:
    made = await apply(api, DOCUMENT)
    assert (made.status, made["action"], made["target"]) == (202, "catalog.apply", "11 created, 0 replaced, 0 deleted")
    exported = await api.get("/catalog")
    assert exported.headers["ETag"] == made.headers["ETag"] == f'"{made["revision"]}"'
    canonical = changed(lambda d: d["models"]["m"].update(aliases=["a-alias", "m-alias"]))
    canonical["models"]["n/1"]["deprecated_at"] = "2030-01-01T00:00:00Z"
    canonical["routes"]["m"]["groups"][0].reverse()
    assert exported.document == canonical
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.operations") == 1
    served = await api.pool.fetch("SELECT model, provider, weight FROM catalog.served ORDER BY provider")
    assert [tuple(row) for row in served] == [("m", "one", 1), ("m", "two", 3)]
    # Written as YAML with sorted keys, two exports differ where the catalogues differ: nothing at default, all in order.
    assert [list(section) for section in exported.document.values()] == [sorted(each) for each in canonical.values()]


async def test_what_is_so_already_is_not_written(api: Api) -> None:
    await apply(api, DOCUMENT)
    before = (await rows(api.pool))[:-1]
    assert await diff(api, DOCUMENT) == await diff(api, DOCUMENT, "?prune=true") == []
    again = await apply(api, DOCUMENT, "?prune=true")
    assert (again.status, again["target"]) == (202, "0 created, 0 replaced, 0 deleted")
    assert (await rows(api.pool))[:-1] == before
    other_words = changed(lambda d: d["prices"]["m"]["one"]["prices"][0].update(cost="0.150000"))
    other_words["models"]["m"]["aliases"].reverse()
    other_words["routes"]["m"]["published"] = True
    assert await diff(api, other_words) == []


async def test_a_difference_names_every_field_before_and_after(api: Api) -> None:
    await apply(api, DOCUMENT)
    document = {
        "providers": {"two": PROVIDER | {"requests_max": 8, "credential": "sk-secret-11"}, "three": PROVIDER},
        "prices": {"m": {"one": {"prices": [INPUT_PRICE | {"cost": "0.16"}]}}},
    }
    reply = await api.post("/catalog/diff", document)
    assert reply.headers["ETag"] == (await api.get("/catalog")).headers["ETag"]
    replaced, created, price = sorted(reply["changes"], key=lambda each: str(each["pointer"]), reverse=True)
    assert replaced == {
        "change": "replace",
        "kind": "provider",
        "key": "two",
        "pointer": "/providers/two",
        "fields": [
            {"field": "headers", "before": {"x-a": "2", "x-b": "1"}, "after": {}},
            {"field": "requests_max", "before": 7, "after": 8},
            {"field": "credential", "before": None, "after": "hidden"},
        ],
    }
    assert (created["change"], created["key"]) == ("create", "three")
    assert [(each["field"], each["after"]) for each in created["fields"]] == [
        ("kind", "openai"),
        ("base_url", "https://api.example.com/v1"),
    ]
    assert (price["kind"], price["key"], price["pointer"]) == ("price", "m at one", "/prices/m/one")
    assert [each["after"][0]["cost"] for each in price["fields"]] == ["0.16"]


async def test_a_credential_goes_in_and_comes_out_nowhere_and_the_same_again_is_no_change(api: Api) -> None:
    secret = "sk-provider-secret-57"
    document: dict[str, Any] = {"providers": {"one": PROVIDER | {"credential": secret}}}
    replies = [await apply(api, document), await api.post("/catalog/diff", document)]
    assert replies[1]["changes"] == []
    kept = await api.pool.fetchval("SELECT credential FROM catalog.providers")
    replies += [await apply(api, document), await api.get("/catalog"), await api.get("/audit")]
    # Left out, it stays; another one takes its place; null removes it.
    replies.append(await apply(api, {"providers": {"one": PROVIDER | {"requests_max": 3}}}))
    assert await api.pool.fetchval("SELECT credential FROM catalog.providers") == kept
    replies.append(await apply(api, {"providers": {"one": PROVIDER | {"credential": secret + "-2"}}}))
    assert await api.pool.fetchval("SELECT credential FROM catalog.providers") != kept
    replies.append(await apply(api, {"providers": {"one": PROVIDER | {"credential": None}}}))
    assert (await api.get("/providers/one"))["has_credential"] is False
    gone = await api.post("/catalog/diff?prune=true", {"providers": {"one": PROVIDER | {"credential": secret + "\n"}}})
    assert gone.pointers == ["/providers/one/credential"]
    assert not any(secret in reply.text for reply in [*replies, gone])


async def test_pruning_removes_what_the_document_does_not_name_but_no_price(api: Api) -> None:
    await apply(api, DOCUMENT)
    await put(api, "/providers/old", PROVIDER | {"credential": "sk-old"})
    await put(api, "/models/old", MODEL | {"aliases": ["older"]})
    await put(api, "/deployments/old/old", {"upstream_model": "up"})
    await add_price(api.pool, "old", "old")
    await put(api, "/routes/old", {"match": "old", "groups": [[{"provider": "old"}]]})
    assert await diff(api, DOCUMENT) == []
    gone = [("delete", kind, key) for kind, key in (("route", "old"), ("deployment", "old at old"))]
    gone += [("delete", "model", "old"), ("delete", "provider", "old")]
    assert await diff(api, DOCUMENT, "?prune=true") == gone
    assert (await apply(api, DOCUMENT))["target"] == "0 created, 0 replaced, 0 deleted"
    assert (await api.get("/routes/old")).status == 200
    assert (await apply(api, DOCUMENT, "?prune=true")).status == 202
    assert await diff(api, DOCUMENT, "?prune=true") == []
    assert (await api.get("/providers/old")).status == 404
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.prices WHERE model = 'old'") == 1
    assert (await apply(api, {}, "?prune=true")).status == 202
    assert (await api.get("/catalog")).document == {}


async def test_names_may_change_hands_in_one_document_and_it_can_be_undone(api: Api, pool: asyncpg.Pool) -> None:
    await apply(api, DOCUMENT)
    before = (await rows(pool))[:-1]
    swapped = changed(lambda d: d["routes"]["m"].update(match="n*", published=False))
    swapped["routes"]["rest"].update(match="m", published=True)
    # A model becomes another one's alias, and an alias a model.
    swapped["models"] = {"a-alias": MODEL | {"aliases": ["m"]}, "n/1": MODEL | {"aliases": ["m-alias"]}}
    for section in ("deployments", "prices"):
        swapped[section]["a-alias"] = swapped[section].pop("m")
    swapped["routes"]["rest"]["match"] = "a-alias"
    applied = await apply(api, swapped, "?prune=true")
    assert applied.status == 202, applied.text
    assert await diff(api, swapped, "?prune=true") == []
    await pool.execute("SELECT catalog.put_back($1)", applied["revision"])
    after = (await rows(pool))[:-1]

    def without(table: list[Any]) -> list[Any]:
        return [{name: value for name, value in row.items() if name != "revision"} for row in table]

    prices = 4
    assert [without(table) for number, table in enumerate(after) if number != prices] == [
        without(table) for number, table in enumerate(before) if number != prices
    ]


async def test_every_fault_is_pointed_at_and_nothing_is_written(api: Api) -> None:
    before = await rows(api.pool)
    unreadable = changed(
        lambda d: d["providers"].update({"Not A Name": PROVIDER, "bad": {"kind": "telex", "extra": 1}})
    )
    unreadable["models"]["n/1"].update(aliases=["n*"])
    contradicting = changed(lambda d: d["providers"]["one"].update(base_url="ftp://h"))
    contradicting["models"]["n/1"].update(aliases=["m-alias"])
    contradicting["routes"]["rest"].update(match="m", orgs_allowed=["org_nobody"])
    for document, pointers in (
        (
            unreadable,
            [
                "/models/n~11/aliases/0",
                "/providers/Not A Name",
                "/providers/bad/base_url",
                "/providers/bad/extra",
                "/providers/bad/kind",
            ],
        ),
        (
            contradicting,
            [
                "/models/m/aliases/0",
                "/models/n~11/aliases/0",
                "/providers/one/base_url",
                "/routes/m/match",
                "/routes/rest/match",
                "/routes/rest/orgs_allowed/0",
            ],
        ),
    ):
        for path in ("/catalog/apply", "/catalog/diff", "/catalog/check"):
            refused = await api.post(path, document, headers={"If-Match": "*"})
            assert (refused.status, refused["code"], refused.pointers) == (422, "invalid_fields", pointers)
    assert await rows(api.pool) == before


async def test_a_document_is_not_blamed_for_what_it_leaves_as_it_is(api: Api) -> None:
    await serve(api, "gpt-1")
    await put(api, "/routes/all", {"match": "gpt*", "groups": [[{"provider": "one"}]]})
    await put(api, "/models/gpt-2", MODEL)
    await put(api, "/deployments/gpt-2/one", {"upstream_model": "up"})
    exported = (await api.get("/catalog")).document
    assert (await apply(api, exported, "?prune=true")).status == 202
    exported["routes"]["all"]["groups"].append([{"provider": "nobody"}])
    refused = await apply(api, exported)
    assert refused.pointers == ["/routes/all/groups/1/0/provider"]


async def test_a_part_may_refer_to_what_only_the_catalogue_has(api: Api) -> None:
    await apply(api, DOCUMENT)
    part = {"models": {"o": MODEL}, "deployments": {"o": {"one": {"upstream_model": "o"}}}}
    part["routes"] = {"o": {"match": "o", "groups": [[{"provider": "one"}]]}}
    assert (await apply(api, part)).pointers == ["/routes/o/groups/0/0/provider"]
    part["prices"] = {"o": {"one": {"free": True}}}
    assert (await apply(api, part)).status == 202
    taken = await apply(api, {"models": {"p": MODEL | {"aliases": ["o"]}}})
    assert taken.pointers == ["/models/p/aliases/0"]


async def test_of_two_who_apply_what_they_have_read_one_has_to_read_again(api: Api) -> None:
    assert (await api.post("/catalog/apply", {})).status == 428
    seen = (await api.get("/catalog")).headers["ETag"].strip('"')
    documents = [{"providers": {f"p{number}": PROVIDER}} for number in range(5)]
    replies = await asyncio.gather(*(apply(api, document, etag=seen) for document in documents))
    assert sorted(reply.status for reply in replies) == [202, 412, 412, 412, 412]
    [won] = [reply for reply in replies if reply.status == 202]
    assert (await apply(api, {}, etag=won["revision"])).status == 202
    await put(api, "/providers/other", PROVIDER)
    assert (await apply(api, {}, etag=won["revision"])).status == 412
    assert len((await api.get("/catalog"))["providers"]) == 2


async def test_a_rehearsal_keeps_nothing_and_a_repeated_call_is_made_once(api: Api) -> None:
    rehearsed = await apply(api, DOCUMENT, "?dry_run=true")
    assert (rehearsed.status, rehearsed.headers["X-Tollgate-Dry-Run"]) == (202, "true")
    assert (await api.get("/catalog")).document == {}
    headers = {"If-Match": '"0"', "Idempotency-Key": "once"}
    first, second = [await api.post("/catalog/apply", DOCUMENT, headers=headers) for _ in range(2)]
    assert first.status == second.status == 202
    assert first.document == second.document


async def test_every_change_of_an_apply_is_in_the_audit_log_under_one_request(api: Api) -> None:
    await apply(api, DOCUMENT)
    applied = await apply(api, {"providers": {"one": PROVIDER | {"requests_max": 9}}, "models": {"o": MODEL}})
    summary, *entries = (await api.get("/audit?limit=3"))["data"]
    assert (summary["action"], summary["target_id"]) == ("catalog.apply", applied["target"])
    assert summary["after"] == {"created": 1, "replaced": 1, "deleted": 0}
    assert {entry["request_id"] for entry in entries} == {applied.headers["x-request-id"]}
    created, replaced = entries
    assert (created["action"], created["target_id"], created["before"]) == ("model.put", "o", None)
    assert (replaced["action"], replaced["target_id"]) == ("provider.put", "one")
    assert (replaced["before"], replaced["after"]) == ({"requests_max": None}, {"requests_max": 9})
    first = await api.pool.fetchval("SELECT before IS NULL FROM accounts.audit_log WHERE action = 'price.add' LIMIT 1")
    assert first is True


async def test_envoy_is_asked_for_its_verdict(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = await rows(api.pool)
    checked = await api.post("/catalog/check", DOCUMENT)
    assert checked.document == {"ok": True, "message": "configuration 'bootstrap.json' OK"}
    assert await rows(api.pool) == before
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []
    # The catalogue as it is, with a header in it that no HTTP can carry.
    await apply(api, DOCUMENT)
    await api.pool.execute("UPDATE catalog.providers SET headers = $1", json.dumps({"not a header\n": "x"}))
    refused = await api.post("/catalog/check", {})
    assert (refused.status, refused["ok"]) == (200, False)
    assert "not a header" in refused["message"]
    assert str(tmp_path) not in refused["message"]


async def test_what_is_put_to_envoy_is_private_and_has_no_credential_in_it(pool: asyncpg.Pool, tmp_path: Path) -> None:
    said = await verdict_of(
        pool,
        tmp_path,
        f'grep -q {SECRET} "$4" && echo leaked; grep -q redacted "$4" && echo redacted; stat -c %a "$4" "$(dirname "$4")"',
    )
    assert (said.status, said.document) == (200, {"ok": True, "message": "redacted\n600\n700"})


async def test_an_envoy_that_does_not_come_to_an_end_is_ended(
    pool: asyncpg.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration_check, "TIMEOUT_S", 1)
    pid = tmp_path / "pid"
    said = await verdict_of(pool, tmp_path, f"echo $$ > {pid}\nexec sleep 60")
    assert said.document == {"ok": False, "message": "Envoy has not come to a verdict in time"}
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_envoy_may_say_much_and_the_end_of_it_is_told(pool: asyncpg.Pool, tmp_path: Path) -> None:
    said = await verdict_of(pool, tmp_path, "head -c 1000000 /dev/zero | tr '\\0' x\necho the end\nexit 1")
    assert (said["ok"], len(said["message"])) == (False, 4000)
    assert said["message"].endswith("xthe end")


async def test_a_credential_does_not_follow_its_provider_to_another_address(api: Api) -> None:
    elsewhere = PROVIDER | {"base_url": "https://elsewhere.example.com/v1"}
    await apply(api, {"providers": {"one": PROVIDER | {"credential": SECRET}}})
    for query in ("", "?prune=true"):
        refused = await api.post("/catalog/apply" + query, {"providers": {"one": elsewhere}}, headers={"If-Match": "*"})
        assert (refused.status, refused.pointers) == (422, ["/providers/one/credential"])
        # What it would change can be looked at all the same, and that it will not do as it is.
        [change] = (await api.post("/catalog/diff" + query, {"providers": {"one": elsewhere}}))["changes"]
        assert change["fields"] == [
            {"field": "base_url", "before": PROVIDER["base_url"], "after": elsewhere["base_url"]},
            {"field": "credential", "before": "hidden", "after": "required"},
        ]
    given_again = await api.post("/catalog/diff", {"providers": {"one": elsewhere | {"credential": SECRET}}})
    assert [each["field"] for each in given_again["changes"][0]["fields"]] == ["base_url"]
    assert (await apply(api, {"providers": {"one": elsewhere | {"credential": SECRET}}})).status == 202
    assert (await apply(api, {"providers": {"one": PROVIDER | {"credential": None}}})).status == 202


async def test_nobody_waits_for_a_large_document_that_is_judged(api: Api) -> None:
    document = {
        "providers": {"p": PROVIDER},
        "models": {f"m{n}": MODEL for n in range(5000)},
        "deployments": {f"m{n}": {"p": {"upstream_model": "x"}} for n in range(5000)},
        "routes": {f"r{n}": {"match": f"*z{n}", "groups": [[{"provider": "p"}]]} for n in range(1000)},
    }
    longest = 0.0

    async def look() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - began)

    looking = asyncio.create_task(look())
    assert (await api.post("/catalog/diff", data=json.dumps(document), headers=JSON)).status == 200
    looking.cancel()
    # Reading the answer, of some megabytes, is done here too.
    assert longest < 2


async def test_a_check_is_refused_before_it_waits_for_anything_and_nobody_else_waits_for_those_that_do(
    pool: asyncpg.Pool, database: str
) -> None:
    async with (
        asyncpg.create_pool(database, min_size=1, max_size=3) as catalog_pool,
        running_api(pool, catalog_pool=catalog_pool) as running,
        pool.acquire() as other,
    ):
        operator = running.as_(await running.operator_token())
        owner = await running.sign_up("owner@example.com")
        transaction = other.transaction()
        await transaction.start()
        # Somebody changes the catalogue, and takes long.
        await begin_revision(other)
        waiting = [asyncio.create_task(operator.post("/catalog/check", {}))]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(2):
            assert (await operator.post("/catalog/check", {})).status == 429
        waiting += [asyncio.create_task(put(operator, f"/providers/p{n}", PROVIDER)) for n in range(5)]
        waiting += [asyncio.create_task(apply(operator, {})) for _ in range(20)]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            assert (await running.log_in(owner.email)).status == 200
            assert (await owner.api.post(f"{owner.org}/keys", {"name": "x"})).status == 201
        refused = [each for each in waiting if each.done()]
        assert {(each.result().status, each.result().headers["Retry-After"]) for each in refused} == {(429, "5")}
        await transaction.rollback()
        statuses = [(await each).status for each in waiting]
        # One check and nine applies had a place, or waited for one.
        assert sorted(statuses) == [200, *[202] * 5, *[202] * 9, *[429] * 11]


async def test_who_sends_slowly_keeps_nobody_from_a_place(api: Api) -> None:
    goes_on = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await goes_on.wait()
        yield b"}"

    sending = [asyncio.create_task(api.post("/catalog/diff", data=slowly(), headers=JSON)) for _ in range(12)]
    await asyncio.sleep(0.3)
    async with asyncio.timeout(5):
        assert (await api.get("/catalog")).status == 200
    goes_on.set()
    assert 200 in {(await each).status for each in sending}


async def test_one_check_runs_at_a_time_and_nobody_waits_for_it(pool: asyncpg.Pool, tmp_path: Path) -> None:
    async with running_api(pool, check_settings=stand_in(tmp_path, "sleep 2")) as running:
        api = running.as_(await running.operator_token())
        first = asyncio.create_task(api.post("/catalog/check", {}))
        await asyncio.sleep(1)
        began = time.monotonic()
        second = await api.post("/catalog/check", {})
        assert (second.status, second.headers["Retry-After"]) == (429, "5")
        assert time.monotonic() - began < 1
        assert (await first)["ok"] is True


async def test_without_an_envoy_a_check_is_refused(pool: asyncpg.Pool) -> None:
    nowhere = settings().model_copy(update={"envoy_binary": "/nonexistent/envoy"})
    async with running_api(pool, check_settings=nowhere) as running:
        api = running.as_(await running.operator_token())
        refused = await api.post("/catalog/check", {})
        assert (refused.status, refused["code"]) == (409, "conflict")
        assert "TOLLGATE_ENVOY_BINARY" in refused["detail"]


async def test_an_import_can_be_looked_at_and_applied_and_publishes_nothing(api: Api) -> None:
    body = json.loads((Path(__file__).parents[1] / "golden" / "imports" / "litellm.json").read_text())
    before = await rows(api.pool)
    preview = await api.post("/catalog/imports", body)
    assert preview.status == 200, preview.text
    assert preview["skipped"]
    assert await rows(api.pool) == before
    assert {each["change"] for each in preview["changes"]} == {"create"}
    etag = preview.headers["ETag"].strip('"')
    assert (await apply(api, preview["document"], etag=etag)).status == 202
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.served") == 0
    # A person publishes; the next import, with another price, does not touch that.
    route = (await api.get("/routes/tiny-1")).document
    publish = {"match": route["match"], "groups": route["groups"]}
    assert (await put(api, "/routes/tiny-1", publish, etag="*")).status == 202
    body["content"]["tiny-1"]["output_cost_per_token"] = 7e-07
    again = await api.post("/catalog/imports", body)
    assert [(each["change"], each["kind"], each["key"]) for each in again["changes"]] == [
        ("replace", "price", "tiny-1 at openai")
    ]
    assert "routes" not in again["document"]
    assert (await apply(api, again["document"])).status == 202
    assert await api.pool.fetchval("SELECT array_agg(model) FROM catalog.served") == ["tiny-1"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"format": "csv", "content": {}}, ["/format"]),
        ({"format": "openrouter", "content": {"models": []}}, ["/content/data"]),
        ({"format": "litellm", "content": []}, ["/content"]),
        ({"format": "litellm"}, ["/content"]),
    ],
)
async def test_what_is_no_list_is_refused(api: Api, body: dict[str, Any], pointers: list[str]) -> None:
    refused = await api.post("/catalog/imports", body)
    assert (refused.status, refused.pointers) == (422, pointers)


async def test_two_thousand_models_are_applied_in_seconds(api: Api) -> None:
    names = [f"model-{number}" for number in range(2000)]
    document = {
        "providers": {"one": PROVIDER},
        "models": {name: MODEL | {"aliases": [f"{name}-alias"]} for name in names},
        "deployments": {name: {"one": {"upstream_model": name}} for name in names},
        "prices": {name: {"one": {"prices": [INPUT_PRICE]}} for name in names},
        "routes": {name: {"match": name, "groups": [[{"provider": "one"}]]} for name in names},
    }
    calls: dict[str, Callable[[], Awaitable[Reply]]] = {
        "apply": lambda: apply(api, document),
        "apply the same": lambda: apply(api, document),
        "diff": lambda: api.post("/catalog/diff", document),
        "export": lambda: api.get("/catalog"),
        "check": lambda: api.post("/catalog/check", {}),
        "prune": lambda: apply(api, {}, "?prune=true"),
    }
    took = {}
    for what, call in calls.items():
        began = time.perf_counter()
        reply = await call()
        took[what] = time.perf_counter() - began
        assert reply.status < 300, reply.text
    print({what: f"{seconds:.2f} s" for what, seconds in took.items()})
    assert took["apply"] < 20  # 2 s on a machine that has nothing else to do


async def test_the_starter_catalogue_is_applied_to_an_empty_one_and_envoy_accepts_it(api: Api) -> None:
    preview = await api.post("/catalog/starter", {})
    assert preview.status == 200
    assert preview["sources"]["gpt-6-sol"]["openai"]["url"].startswith("https://developers.openai.com/")
    assert (await apply(api, preview["document"], etag=0)).status == 202
    # Nobody has a credential yet, so nobody is asked.
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.served") == 0
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.models") >= 60
    assert (await api.post("/catalog/starter", {}))["document"] == {}
    published = {name: route | {"published": True} for name, route in preview["document"]["routes"].items()}
    refused = await apply(api, {"routes": {"grok-4.7": published["grok-4.7"]}})
    assert refused.pointers == ["/routes/grok-4.7/groups/0/0/provider"]
    providers = {
        name: provider | {"credential": f"ACCESSKEYIDOFAWS:{SECRET}".replace("-", "+")}
        for name, provider in preview["document"]["providers"].items()
    }
    document = {"providers": providers, "routes": published}
    checked = await api.post("/catalog/check", document)
    assert checked.document == {"ok": True, "message": "configuration 'bootstrap.json' OK"}
    assert (await apply(api, document)).status == 202
    assert await api.pool.fetchval("SELECT count(DISTINCT model) FROM catalog.served") >= 60
    assert (await api.get("/providers/bedrock"))["region"] == "us-east-1"


async def test_of_the_starter_catalogue_one_provider_is_published_once_it_has_a_credential(api: Api) -> None:
    openai = {"kind": "openai", "base_url": "https://api.openai.com/v1", "credential": SECRET}
    await put(api, "/providers/openai", openai)
    preview = await api.post("/catalog/starter", {"providers": ["openai"]})
    assert "providers" not in preview["document"]
    assert (await apply(api, preview["document"], etag=preview["revision"])).status == 202
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.served") == len(preview["document"]["models"])
    unknown = await api.post("/catalog/starter", {"providers": ["openai", "nobody"]})
    assert (unknown.status, unknown.pointers) == (422, ["/providers/1"])


async def test_every_kind_of_providers_is_listed_and_can_be_named(api: Api) -> None:
    kinds = (await api.get("/provider-kinds"))["data"]
    assert {"openai", "azure", "bedrock", "openai-compatible"} <= {kind["name"] for kind in kinds}
    for kind in kinds:
        region = {"region": "eu-central-1"} if kind["signed_for"] else {}
        provider = {"kind": kind["name"], "base_url": "https://api.example.com/v1"} | region
        assert (await put(api, f"/providers/{kind['name']}", provider)).status == 202
    assert [each["kind"] for each in (await api.get("/providers?limit=100"))["data"]] == [k["name"] for k in kinds]
