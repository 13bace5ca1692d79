"""What holds for every operation: strict input, refusals as problems, calls that are made once, a document that fits."""

import asyncio
import re
from io import BytesIO

import jsonschema
import pytest

from tests.support.api import PASSWORD, Account, Api, Reply

REGISTRATION = {"email": "ada@example.com", "password": PASSWORD, "organization": "Acme"}


async def register(api: Api, body: bytes, content_type: str = "application/json") -> tuple[int, str]:
    reply = await api.post("/auth/register", data=BytesIO(body), headers={"Content-Type": content_type})
    return reply.status, reply["code"]


async def test_a_body_that_two_readers_could_take_differently_is_refused(api: Api) -> None:
    malformed = [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"email":"a@b.c","email":"d@e.f"}',
        b'{"email":NaN}',
        b'{"email":1e999}',
        b'{"email":' + b"9" * 20 + b"}",
        b'{"email":' + b"9" * 5000 + b"}",
        b'{"email":"\xff"}',
        b"[" * 16_000,
        b'{"a":' * 40 + b"1" + b"}" * 40,
    ]
    for body in malformed:
        assert await register(api, body) == (400, "malformed_body"), body[:40]
    assert await register(api, b"{}", "text/plain") == (415, "unsupported_media_type")


@pytest.mark.parametrize("expected", [":~", "100-continue", "100-Continue, more"])
async def test_whatever_is_expected_beside_the_answer_is_no_reason_for_another_one(
    owner: Account, expected: str
) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "expected"}, headers={"Expect": expected})
    assert made.status == 201
    refused = await owner.api.post(f"{owner.org}/keys", {"nam": "expected"}, headers={"Expect": expected})
    assert (refused.status, refused.pointers) == (422, ["/nam", "/name"])


async def test_a_body_may_be_as_large_as_its_operation_says_and_not_a_byte_larger(api: Api, owner: Account) -> None:
    def body(size: int) -> bytes:
        return b'{"a":"' + b"x" * (size - 8) + b'"}'

    anonymous, small, large = 16 * 1024, 1024 * 1024, 16 * 1024 * 1024
    headers = {"Content-Type": "application/json"}
    assert (await register(api, body(anonymous)))[0] == 422
    assert await register(api, body(anonymous + 1)) == (413, "body_too_large")
    for size, status in ((small, 422), (small + 1, 413)):
        made = await owner.api.post(f"{owner.org}/keys", data=BytesIO(body(size)), headers=headers)
        assert made.status == status
    operator = api.as_(await api.operator_token())
    whole = await operator.post("/catalog/diff", data=BytesIO(body(large)), headers=headers)
    assert (whole.status, whole.pointers) == (422, ["/a"])
    too_large = await operator.post("/catalog/diff", data=BytesIO(body(large + 1)), headers=headers)
    assert too_large.status == 413
    described = (await api.get("/openapi.json"))["paths"]
    for path, limit in (
        ("/auth/register", "16 KiB"),
        ("/orgs/{org_id}/keys", "1 MiB"),
        ("/catalog/diff", "16 MiB"),
    ):
        assert limit in described[f"/api/v1{path}"]["post"]["responses"]["413"]["description"]


async def test_every_offending_field_is_named_and_none_is_quoted(api: Api) -> None:
    reply = await api.post(
        "/auth/register",
        {"email": "no address", "password": "tiny-secret", "organization": "", "extra": "x", "a/b~c": 1},
    )
    assert reply.status == 422
    assert reply.pointers == ["/a~1b~0c", "/email", "/extra", "/organization"]
    short = await api.post("/auth/register", {**REGISTRATION, "password": "hunter2"})
    assert short.pointers == ["/password"]
    assert "hunter2" not in short.text
    nul = await api.post("/auth/register", {**REGISTRATION, "organization": "a\0b"})
    assert nul.pointers == ["/organization"]
    half = await api.post(
        "/auth/register",
        data=b'{"email":"a@b.cd","password":"0123456789","organization":"\\ud800"}',
        headers={"Content-Type": "application/json"},
    )
    assert half.pointers == ["/organization"]


async def test_what_the_installation_and_the_time_say_of_a_field_is_told_with_the_rest(
    api: Api, owner: Account
) -> None:
    operator = api.as_(await api.operator_token())
    price = {"meter": "input", "unit": "token", "cost": "1"}
    override = {"model": "m", "meter": "input", "unit": "token", "price": "1"}
    for caller, path, body, pointers in (
        (owner.api, f"{owner.org}/webhooks", {"url": "http://10.0.0.1/", "enabled": 1}, ["/enabled", "/url"]),
        (
            owner.api,
            f"{owner.org}/keys",
            {"name": "", "expires_at": "2020-01-01T00:00:00Z"},
            ["/expires_at", "/name"],
        ),
        (
            owner.api,
            f"{owner.org}/tokens",
            {"name": "", "scopes": ["keys:read", "platform:read"]},
            ["/name", "/scopes/1"],
        ),
        (api, "/auth/oidc/log-ins", {"issuer": "nobody", "return_to": "elsewhere"}, ["/issuer", "/return_to"]),
        (operator, "/prices", {"model": "m", "provider": "P"}, ["/prices", "/provider"]),
        (operator, "/prices", {"model": "m", "provider": "P", "prices": [price, price]}, ["/prices/1", "/provider"]),
        (
            api,
            "/auth/register",
            {**REGISTRATION, "email": "nobody", "organization": "a\0b"},
            ["/email", "/organization"],
        ),
        (api, "/auth/register", {**REGISTRATION, "name": "\ud800", "organization": "a\0b"}, ["/name", "/organization"]),
    ):
        refused = await caller.post(path, body)
        assert (refused.status, refused["code"], refused.pointers) == (422, "invalid_fields", pointers), path
    terms = {"markup_percent": 1, "overrides": [override, override]}
    refused = await operator.call("PUT", f"/orgs/{owner.org_id}/terms", terms, headers={"If-Match": "*"})
    assert (refused.status, refused.pointers) == (422, ["/markup_percent", "/overrides/1"])


async def test_the_port_of_the_api_tells_strangers_that_it_lives_and_nothing_else(api: Api) -> None:
    found = {}
    for path in ("/livez", "/readyz", "/metrics"):
        async with api.session.get(api.url + path) as response:
            found[path] = (response.status, await response.text() if response.status == 200 else "")
    assert found == {"/livez": (200, "ok\n"), "/readyz": (404, ""), "/metrics": (404, "")}


async def test_a_refusal_names_a_hundred_fields_and_says_how_many_it_leaves_out(owner: Account) -> None:
    async def refused(unknown: dict[str, int]) -> Reply:
        return await owner.api.post(f"{owner.org}/keys", {"name": "x", **unknown})

    many = await refused({f"unknown_{number}": 1 for number in range(24_000)})
    assert many.status == 422
    assert (len(many["errors"]), many["errors_left_out"]) == (100, 23_900)
    assert len(many.text) < 20_000
    few = await refused({f"unknown_{number}": 1 for number in range(100)})
    assert len(few["errors"]) == 100
    assert "errors_left_out" not in few.document
    # Nor is one name as long as a body repeated.
    long = await refused({"x" * 1_000_000: 1})
    assert (long.status, len(long["errors"][0]["pointer"])) == (422, 1000)


async def test_a_value_is_not_bent_into_the_type_it_should_have(owner: Account) -> None:
    for field, value in (("requests_per_minute_max", "60"), ("requests_per_minute_max", 1.5), ("disabled", 1)):
        reply = await owner.api.post(f"{owner.org}/keys", {"name": "x", field: value})
        assert reply.pointers == [f"/{field}"]
    wrong = {
        "name": " ",
        "models_allowed": ["ok", "no spaces"],
        "ip_allowed": ["10.0.0.1/8"],
        "budget_per_day_usd": "-1",
        "budget_per_month_usd": "1e3",
        "concurrency_max": 0,
        "expires_at": "tomorrow",
    }
    reply = await owner.api.post(f"{owner.org}/keys", wrong)
    assert reply.pointers == sorted(
        "/" + {"models_allowed": "models_allowed/1", "ip_allowed": "ip_allowed/0"}.get(name, name) for name in wrong
    )


async def test_unknown_paths_and_methods_are_problems_and_v1_stays_in_openais_shape(api: Api, owner: Account) -> None:
    assert (await api.get("/nothing"))["code"] == "not_found"
    method = await api.call("PUT", "/me")
    assert (method.status, method["code"], method.headers["Allow"]) == (405, "method_not_allowed", "GET, PATCH")
    assert (await owner.api.get("/orgs/%00")).status == 404
    assert (await owner.api.get("/orgs/%F0%9F%98%80")).status == 404
    async with api.session.get(f"{api.url}/v1/models") as response:
        assert response.status == 401
        assert (await response.json())["error"]["code"] == "invalid_api_key"


async def test_a_call_without_a_credential_says_how_to_send_one(api: Api) -> None:
    reply = await api.get("/me")
    assert (reply.status, reply["code"], reply.headers["WWW-Authenticate"]) == (401, "unauthenticated", "Bearer")
    assert reply["request_id"] == reply.headers["x-request-id"]


async def test_a_post_with_an_idempotency_key_is_done_once(api: Api, owner: Account) -> None:
    path, headers = f"{owner.org}/keys", {"Idempotency-Key": "abc-1"}
    replies = await asyncio.gather(*(owner.api.post(path, {"name": "one"}, headers=headers) for _ in range(5)))
    assert {reply.status for reply in replies} == {201}
    assert len({reply.text for reply in replies}) == 1
    assert sum("Idempotency-Replayed" in reply.headers for reply in replies) == 4
    assert await api.pool.fetchval("SELECT count(*) FROM accounts.api_keys") == 1
    other = await owner.api.post(path, {"name": "two"}, headers=headers)
    assert (other.status, other["code"]) == (422, "idempotency_mismatch")
    stored = await api.pool.fetchval("SELECT sealed_answer FROM accounts.idempotency_keys")
    assert replies[0]["key"].encode() not in stored


async def test_an_idempotency_key_is_the_callers_own_and_forgotten_after_a_day(api: Api, owner: Account) -> None:
    other, headers = await api.sign_up("other@example.com"), {"Idempotency-Key": "abc-1"}
    mine = await owner.api.post("/orgs", {"name": "Same"}, headers=headers)
    theirs = await other.api.post("/orgs", {"name": "Same"}, headers=headers)
    assert mine["id"] != theirs["id"]
    await api.pool.execute("UPDATE accounts.idempotency_keys SET created_at = now() - interval '25 hours'")
    assert (await owner.api.post("/orgs", {"name": "Same"}, headers=headers))["id"] != mine["id"]


async def test_a_refused_call_does_not_use_up_its_idempotency_key(owner: Account) -> None:
    headers = {"Idempotency-Key": "abc-1"}
    assert (await owner.api.post("/orgs", {"name": ""}, headers=headers)).status == 422
    assert (await owner.api.post("/orgs", {"name": "Good"}, headers=headers)).status == 201
    assert (await owner.api.post("/orgs", {"name": "x"}, headers={"Idempotency-Key": "a b"})).status == 422


async def test_the_openapi_document_is_valid_and_the_docs_page_names_every_operation(api: Api) -> None:
    document = (await api.get("/openapi.json")).document
    assert document["openapi"] == "3.1.0"
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    key = document["components"]["schemas"]["Key"]
    assert "key" not in key["properties"]
    page = (await api.get("/docs")).text
    for path in document["paths"]:
        assert path in page
    # Nothing on it is from elsewhere.
    assert not re.search(r"(src|href|action)=[\"']?(https?:)?//", page)
    assert "<script" not in page


async def test_whoever_opens_the_address_of_the_server_comes_to_the_page_about_the_api(api: Api) -> None:
    for path in ("/", "/api/v1/docs/"):
        async with api.session.get(f"{api.url}{path}") as response:
            assert (response.status, response.url.path) == (200, "/api/v1/docs")
