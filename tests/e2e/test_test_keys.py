"""The story of a test key: the whole path, with the simulator at its end and play money on the table."""

import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from pydantic import SecretStr

from gateway_core.api_keys import LIVE_PREFIX, TEST_PREFIX, hash_key, new_key
from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.stack import Stack, add_model, add_provider, eventually, provider_credentials, wait_until_routed

PASSWORD = "correct horse battery"
PLAY_MONEY = 10**12


@dataclass
class Member:
    """Somebody who is logged in, and what they ask the API."""

    stack: Stack
    session: aiohttp.ClientSession
    token: str
    org_id: str

    async def api(self, method: str, path: str, body: object = None, **headers: str) -> dict[str, Any]:
        """A call that succeeds; `path` is behind the organisation's."""
        url = f"{self.stack.endpoints['control_plane_url']}/api/v1/orgs/{self.org_id}{path}"
        headers["Authorization"] = f"Bearer {self.token}"
        async with self.session.request(method, url, json=body, headers=headers) as response:
            assert response.status < 300, await response.text()
            return {} if response.status == 204 else dict(await response.json())

    async def chat(self, key: str, model: str = "gpt-4o-mini", **headers: str) -> tuple[int, dict[str, Any], str]:
        """Status, body and request id of a chat request."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hi [[sim output_tokens=7]]"}]}
        async with self.session.post(
            f"{self.stack.url}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {key}", **headers},
        ) as response:
            return response.status, await response.json(), response.headers["x-request-id"]

    async def balances(self) -> dict[str, int]:
        """What the organisation has, by mode."""
        async with self.stack.database() as database:
            rows = await database.fetch(
                "SELECT mode, posted_nano_usd FROM billing.accounts WHERE org_id = $1", self.org_id
            )
        return {row["mode"]: row["posted_nano_usd"] for row in rows}


async def sign_up(stack: Stack, session: aiohttp.ClientSession) -> Member:
    url = f"{stack.endpoints['control_plane_url']}/api/v1/auth"
    email = f"eve-{secrets.token_hex(4)}@example.com"
    registration = {"email": email, "password": PASSWORD, "organization": "Tests"}
    async with session.post(f"{url}/register", json=registration) as response:
        org_id = (await response.json())["organization"]["id"]
    async with session.post(f"{url}/login", json={"email": email, "password": PASSWORD}) as response:
        return Member(stack, session, (await response.json())["access_token"], org_id)


@pytest.fixture
async def member(stack: Stack) -> AsyncIterator[Member]:
    async with aiohttp.ClientSession() as session:
        yield await sign_up(stack, session)


@pytest.fixture
async def key(member: Member) -> str:
    made = await member.api("POST", "/keys", {"name": "test", "mode": "test"})
    return str(made["key"])


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedProvider]:
    async with scripted_provider() as provider:
        yield provider


def spool_line(stack: Stack, request_id: str) -> dict[str, Any]:
    lines = (Path(stack.endpoints["spool_dir"]) / "access.jsonl").read_text().splitlines()
    [line] = [json.loads(text) for text in lines if request_id in text]
    return dict(line)


async def test_a_test_request_walks_the_whole_path_to_the_simulator_and_into_the_test_ledger(
    stack: Stack, member: Member, key: str
) -> None:
    await stack.forget_provider_requests()
    # Without a cent of real money.
    status, answer, request_id = await member.chat(key)
    assert status == 200
    [received] = await stack.provider_requests()
    assert received["path"] == "/v1/chat/completions"
    assert received["headers"]["authorization"] == "Bearer test"
    seen = json.dumps(received)
    assert key not in seen
    assert not [each for each in (await provider_credentials(stack)).values() if each in seen]
    assert not [name for name in received["headers"] if name.startswith(("x-tg-", "x-envoy-"))]

    row = await stack.request_row(request_id)
    assert (row["mode"], row["outcome"], row["org_id"], row["provider"]) == ("test", "settled", member.org_id, "openai")
    usage = answer["usage"]
    price = usage["prompt_tokens"] * 150 + usage["completion_tokens"] * 600
    assert row["price_nano_usd"] == price
    line = spool_line(stack, request_id)
    assert (line["cluster"], line["grant"]["mode"], line["grant"]["rated_as"]) == ("simulator", "test", "openai")
    await stack.settled()
    assert await member.balances() == {"live": 0, "test": PLAY_MONEY - price}
    async with stack.database() as database:
        entries = await database.fetch(
            """
            SELECT a.kind, a.mode, e.amount_nano_usd FROM billing.transactions t
            JOIN billing.entries e USING (transaction_id) JOIN billing.accounts a USING (account_id)
            WHERE t.request_id = $1
            """,
            request_id,
        )
    assert {tuple(entry) for entry in entries} == {("balance", "test", -price), ("revenue", "test", price)}
    exported = await stack.clickhouse_row(request_id)
    assert (exported["mode"], exported["price_nano_usd"]) == ("test", price)

    assert (await member.api("POST", "/test-balance/refill"))["posted"] == "1000.00"


async def test_no_provider_hears_of_a_test_request_whatever_model_it_names(
    stack: Stack, member: Member, upstream: ScriptedProvider
) -> None:
    await add_provider(stack, "untouched", upstream.url, "the-credential")
    await add_model(stack, "test/only-at-untouched", [("untouched", "their-name"), ("openai", "gpt-4o")])
    await wait_until_routed(stack, "test/only-at-untouched")
    made = await member.api("POST", "/keys", {"name": "t", "mode": "test", "models_allowed": ["test/*"]})
    await stack.forget_provider_requests()
    status, answer, request_id = await member.chat(made["key"], "test/only-at-untouched")
    assert (status, answer["model"]) == (200, "test/only-at-untouched")
    assert upstream.bodies == []
    [received] = await stack.provider_requests()
    assert "the-credential" not in json.dumps(received)
    assert (await stack.request_row(request_id))["provider"] == "untouched"
    # The model is looked at just as for a live key.
    for model, expected in (("no-such-model", (404, "model_not_found")), ("gpt-4o", (403, "model_not_allowed"))):
        status, answer, request_id = await member.chat(made["key"], model)
        assert (status, answer["error"]["code"]) == expected
        row = await stack.request_row(request_id)
        assert (row["mode"], row["outcome"]) == ("test", "refused")


async def test_both_official_sdks_work_with_a_test_key_streamed_and_unary(stack: Stack, key: str) -> None:
    text = "Hello [[sim output_tokens=9]]"
    async with openai.AsyncOpenAI(base_url=stack.endpoints["openai_base_url"], api_key=key, max_retries=0) as client:
        assert "gpt-4o-mini" in {model.id async for model in client.models.list()}
        stream = await client.chat.completions.create(
            model="gemini-2.5-flash", messages=[{"role": "user", "content": text}], stream=True
        )
        chunks = [chunk async for chunk in stream]
        assert all(chunk.choices for chunk in chunks)
        answer = await client.chat.completions.create(
            model="claude-sonnet-4-6", messages=[{"role": "user", "content": text}]
        )
        assert answer.choices[0].message.content
    async with anthropic.AsyncAnthropic(
        base_url=stack.endpoints["anthropic_base_url"], api_key=key, max_retries=0
    ) as messages:
        raw = await messages.messages.with_raw_response.create(
            model="claude-sonnet-4-6", max_tokens=50, messages=[{"role": "user", "content": text}]
        )
        assert (await raw.parse()).usage.output_tokens == 9
        row = await stack.request_row(raw.headers["x-request-id"])
        assert (row["mode"], row["provider"], row["outcome"]) == ("test", "anthropic", "settled")


async def test_of_two_keys_the_one_that_counts_decides_about_route_and_ledger_alike(
    stack: Stack, member: Member, key: str
) -> None:
    live = (await member.api("POST", "/keys", {"name": "live"}))["key"]
    status, _, request_id = await member.chat(key, **{"x-api-key": live})
    assert status == 200
    assert (await stack.request_row(request_id))["mode"] == "test"
    # The live one counts, and has no money.
    status, _, request_id = await member.chat(live, **{"x-api-key": key})
    assert status == 402
    assert (await stack.request_row(request_id))["mode"] == "live"
    # What two readers of the headers might read in two ways opens nothing, or what both read.
    for authorization in (f"Bearer  {live}", f"Bearer\t{live}", "Bearer x", f"bearer {key},{live}", "Basic x"):
        status, _, request_id = await member.chat("", **{"Authorization": authorization, "x-api-key": key})
        assert status == (200 if authorization == "Basic x" or "\t" in authorization else 401), authorization
        assert (await stack.request_row(request_id))["outcome"] == ("settled" if status == 200 else "refused")


async def test_a_key_with_the_looks_of_one_mode_and_the_entry_of_the_other_opens_nothing(
    stack: Stack, member: Member
) -> None:
    pepper = SecretStr(stack.secret("tollgate_api_key_pepper"))
    for prefix, mode in ((LIVE_PREFIX, "test"), (TEST_PREFIX, "live")):
        forged = new_key(prefix, secrets.token_bytes).get_secret_value()
        async with stack.database() as database:
            await database.execute(
                """
                INSERT INTO accounts.api_keys (key_id, org_id, project_id, name, mode, key_hash)
                SELECT $1, org_id, project_id, 'forged', $2, $3 FROM accounts.projects WHERE org_id = $4
                """,
                f"key_forged_{mode}_{secrets.token_hex(4)}",
                mode,
                hash_key(forged, pepper),
                member.org_id,
            )
            await database.execute("SELECT billing.credit($1, 1000000000, 'test')", member.org_id)
        status, answer, request_id = await member.chat(forged)
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        row = await stack.request_row(request_id)
        assert (row["outcome"], row["mode"]) == ("refused", mode)
    # Made up, it is refused and is no riddle for a person.
    status, _, request_id = await member.chat(new_key(TEST_PREFIX, secrets.token_bytes).get_secret_value())
    assert status == 401
    assert (await stack.request_row(request_id))["outcome"] == "refused"


async def test_a_changed_key_is_refused_at_the_gateway_within_a_second_and_propagation_says_so(member: Member) -> None:
    for mode in ("live", "test"):
        for change in ("disable", "rotate", "revoke", "models"):
            made = await member.api("POST", "/keys", {"name": change, "mode": mode})
            path = f"/keys/{made['id']}"
            # Admitted, and so remembered; a live one has no money to go further.
            assert (await member.chat(made["key"]))[0] == (402 if mode == "live" else 200)
            match change:
                case "disable":
                    await member.api("PATCH", path, {"disabled": True}, **{"If-Match": "*"})
                case "rotate":
                    await member.api("POST", f"{path}/rotate", {"overlap_s": 0})
                case "revoke":
                    await member.api("DELETE", path)
                case _:
                    await member.api("PATCH", path, {"models_allowed": ["claude-*"]}, **{"If-Match": "*"})
            began = time.monotonic()
            expected = 403 if change == "models" else 401
            while (await member.chat(made["key"]))[0] != expected:
                assert time.monotonic() - began < 1, (mode, change)
            while not (seen := await member.api("GET", f"{path}/propagation"))["propagated"]:
                assert time.monotonic() - began < 1, (mode, change)
            [authorizer] = seen["authorizers"]
            assert authorizer["taken_up"]
            assert 0 <= authorizer["took_ms"] < 1000


async def test_a_key_that_is_used_says_when(member: Member) -> None:
    made = await member.api("POST", "/keys", {"name": "used", "mode": "test"})
    assert (await member.chat(made["key"]))[0] == 200

    async def is_written() -> bool:
        return (await member.api("GET", f"/keys/{made['id']}"))["last_used_at"] is not None

    await eventually(is_written)
