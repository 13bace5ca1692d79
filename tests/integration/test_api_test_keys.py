"""Test keys and the play money that pays for them, through the API on a real Postgres."""

import asyncio

import aiohttp
import asyncpg
import pytest

from gateway_core.api_keys import TEST_PREFIX, hash_key, is_well_formed
from gateway_core.mode import Mode
from gateway_core.postgres_keys import PostgresKeys
from tests.support.api import PEPPER, Account, Api, running_api


async def test_a_key_is_live_unless_a_test_key_is_asked_for(api: Api, owner: Account) -> None:
    live = await owner.api.post(f"{owner.org}/keys", {"name": "live"})
    test = await owner.api.post(f"{owner.org}/keys", {"name": "test", "mode": "test"})
    assert (live["mode"], test["mode"]) == ("live", "test")
    assert test["key"].startswith(TEST_PREFIX)
    assert test["hint"].startswith(TEST_PREFIX)
    assert is_well_formed(test["key"])
    assert [key["mode"] for key in (await owner.api.get(f"{owner.org}/keys"))["data"]] == ["live", "test"]
    found = await PostgresKeys(api.pool).find(hash_key(test["key"], PEPPER))
    assert found is not None
    assert found.mode is Mode.TEST
    wrong = await owner.api.post(f"{owner.org}/keys", {"name": "x", "mode": "free"})
    assert wrong.pointers == ["/mode"]


async def test_the_mode_of_a_key_never_changes(api: Api, owner: Account) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "test", "mode": "test"})
    path = f"{owner.org}/keys/{made['id']}"
    assert (await owner.api.patch(path, {"mode": "live"})).pointers == ["/mode"]
    rotated = await owner.api.post(f"{path}/rotate", {"overlap_s": 0})
    assert rotated["mode"] == "test"
    assert rotated["key"].startswith(TEST_PREFIX)
    with pytest.raises(asyncpg.RaiseError, match="never changes"):
        await api.pool.execute("UPDATE accounts.api_keys SET mode = 'live' WHERE key_id = $1", made["id"])


async def test_without_a_simulator_there_are_no_test_keys(pool: asyncpg.Pool, api: Api, owner: Account) -> None:
    made = await owner.api.post(f"{owner.org}/keys", {"name": "test", "mode": "test"})
    async with running_api(pool, has_simulator=False) as without:
        caller = without.as_((await without.log_in("owner@example.com"))["access_token"])
        refused = await caller.post(f"{owner.org}/keys", {"name": "test", "mode": "test"})
        assert (refused.status, refused["code"], refused.pointers) == (409, "test_mode_unavailable", ["/mode"])
        assert (await caller.post(f"{owner.org}/keys", {"name": "live"})).status == 201
        headers = {"Authorization": f"Bearer {made['key']}"}
        async with without.session.get(f"{without.url}/v1/models", headers=headers) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (403, "test_mode_unavailable")
    async with aiohttp.ClientSession() as session, session.get(f"{api.url}/v1/models", headers=headers) as response:
        assert response.status == 200


async def test_play_money_is_there_from_the_start_and_can_be_filled_up_again(api: Api, owner: Account) -> None:
    path = f"{owner.org}/test-balance"
    full = {"currency": "USD", "posted": "1000.00", "held": "0.00", "available": "1000.00"}
    assert (await owner.api.get(path)).document == full
    assert (await owner.api.post(f"{path}/refill")).document == full
    # The words are those of the real balance, which knows debts besides.
    assert (await owner.api.get(f"{owner.org}/balance")).document.keys() == {*full, "receivable"}
    await api.pool.execute("SELECT billing.place_hold('r', $1, 'k', 2500000000, 'infinity', 'test')", owner.org_id)
    await api.pool.execute(
        """
        WITH t AS (INSERT INTO billing.transactions (kind, reason, mode) VALUES ('credit', 'spent', 'test')
                   RETURNING transaction_id)
        INSERT INTO billing.entries
        SELECT transaction_id, account_id, CASE kind WHEN 'balance' THEN -1 ELSE 1 END * 400000000000, 'test'
        FROM t, billing.accounts WHERE mode = 'test' AND (kind = 'revenue' OR org_id = $1)
        """,
        owner.org_id,
    )
    assert (await owner.api.get(path)).document == full | {
        "posted": "600.00",
        "held": "2.50",
        "available": "597.50",
    }
    developer = await api.join(owner, "developer@example.com", "developer")
    replies = await asyncio.gather(*(developer.api.post(f"{path}/refill") for _ in range(4)))
    assert {reply["posted"] for reply in replies} == {"1000.00"}
    assert await api.pool.fetchval("SELECT count(*) FROM billing.transactions WHERE reason = 'play money'") == 3
    live = await api.pool.fetchval("SELECT sum(posted_nano_usd) FROM billing.accounts WHERE mode = 'live'")
    assert live == 0
    entries = [each for each in (await owner.api.get(f"{owner.org}/audit"))["data"] if "refill" in each["action"]]
    assert {each["target_id"] for each in entries} == {owner.org_id}
    assert ("600.00", "1000.00") in {(each["before"]["posted"], each["after"]["posted"]) for each in entries}
