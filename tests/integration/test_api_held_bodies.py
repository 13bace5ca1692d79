"""What is taken away while a body is still under way is taken away from that call too."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg

from gateway_core.api_keys import hash_key
from tests.support.api import PASSWORD, PEPPER, Account, Api, Reply, running_api

Take = Callable[[], Awaitable[object]]


async def held(api: Api, path: str, body: object, meanwhile: Take) -> Reply:
    """A POST whose last byte comes only after something else has happened."""
    raw = json.dumps(body).encode()

    async def parts() -> AsyncIterator[bytes]:
        yield raw[:-1]
        await asyncio.sleep(0.2)  # until the call has been let in
        await meanwhile()
        yield raw[-1:]

    return await api.post(path, data=parts(), headers={"Content-Type": "application/json"})


def done(call: Callable[[], Awaitable[Reply]]) -> Take:
    """A call that has to succeed."""

    async def take() -> None:
        reply = await call()
        assert reply.status < 300, reply.text

    return take


async def number_of_keys(account: Account, api: Api) -> int:
    number: int = await api.pool.fetchval("SELECT count(*) FROM accounts.api_keys WHERE org_id = $1", account.org_id)
    return number


async def test_a_call_of_a_session_that_ends_before_its_last_byte_is_not_performed(api: Api, owner: Account) -> None:
    ended = await held(owner.api, f"{owner.org}/keys", {"name": "x"}, done(lambda: owner.api.post("/auth/logout")))
    assert (ended.status, ended["code"]) == (401, "unauthenticated")
    again = api.as_((await api.log_in(owner.email))["access_token"])
    change = {"current_password": PASSWORD, "new_password": "another horse battery"}
    ended = await held(again, f"{owner.org}/keys", {"name": "x"}, done(lambda: again.post("/me/password", change)))
    assert ended.status == 401
    assert await number_of_keys(owner, api) == 0


async def test_a_call_of_a_token_that_is_revoked_before_its_last_byte_is_not_performed(
    api: Api, owner: Account
) -> None:
    made = await owner.api.post(f"{owner.org}/tokens", {"name": "ci", "scopes": ["keys:write"]})
    machine = api.as_(made["token"])
    revoke = done(lambda: owner.api.delete(f"{owner.org}/tokens/{made['id']}"))
    assert (await held(machine, f"{owner.org}/keys", {"name": "x"}, revoke)).status == 401
    assert await number_of_keys(owner, api) == 0

    token = await api.operator_token()
    operator, other = api.as_(token), api.as_(await api.operator_token())
    token_id = await api.pool.fetchval(
        "SELECT token_id FROM accounts.machine_tokens WHERE token_hash = $1", hash_key(token, PEPPER)
    )
    revoke = done(lambda: other.delete(f"/tokens/{token_id}"))
    credit = {"amount": "5.00", "currency": "USD", "reason": "a gift"}
    assert (await held(operator, f"{owner.org}/credits", credit, revoke)).status == 401
    assert (await owner.api.get(f"{owner.org}/transactions"))["data"] == []


async def test_a_call_of_a_member_who_is_removed_before_its_last_byte_is_not_performed(
    api: Api, owner: Account
) -> None:
    admin = await api.join(owner, "admin@example.com", "admin")
    remove = done(lambda: owner.api.delete(f"{owner.org}/members/{admin.user_id}"))
    assert (await held(admin.api, f"{owner.org}/keys", {"name": "x"}, remove)).status == 404
    assert await number_of_keys(owner, api) == 0


async def test_a_call_of_a_member_whose_role_is_lowered_before_its_last_byte_is_not_performed(
    api: Api, owner: Account
) -> None:
    admin = await api.join(owner, "admin@example.com", "admin")
    lower = done(lambda: owner.api.patch(f"{owner.org}/members/{admin.user_id}", {"role": "viewer"}))
    assert (await held(admin.api, f"{owner.org}/keys", {"name": "x"}, lower)).status == 403
    assert await number_of_keys(owner, api) == 0


async def test_a_call_in_an_organisation_that_is_closed_before_its_last_byte_is_not_performed(
    api: Api, owner: Account
) -> None:
    operator = api.as_(await api.operator_token())
    close = done(lambda: operator.patch(owner.org, {"disabled": True}))
    refused = await held(owner.api, f"{owner.org}/keys", {"name": "x"}, close)
    assert (refused.status, refused["code"]) == (409, "organization_closed")
    assert await number_of_keys(owner, api) == 0


async def test_what_reads_with_a_body_is_asked_again_too(api: Api) -> None:
    token = await api.operator_token()
    revoke = done(
        lambda: api.as_(token).delete(f"/tokens/{token_id}"),
    )
    token_id = await api.pool.fetchval(
        "SELECT token_id FROM accounts.machine_tokens WHERE token_hash = $1", hash_key(token, PEPPER)
    )
    assert (await held(api.as_(token), "/catalog/diff", {}, revoke)).status == 401


async def test_a_revocation_waits_for_the_change_that_its_right_was_asked_for(api: Api, owner: Account) -> None:
    admin = await api.join(owner, "admin@example.com", "admin")
    async with api.pool.acquire() as connection, connection.transaction():
        # Holds up the key that is being made, behind the question of who makes it.
        await connection.execute("LOCK TABLE accounts.api_keys IN ACCESS EXCLUSIVE MODE")
        making = asyncio.create_task(admin.api.post(f"{owner.org}/keys", {"name": "x"}))
        await asyncio.sleep(0.3)
        waiting = [
            asyncio.create_task(owner.api.delete(f"{owner.org}/members/{admin.user_id}")),
            asyncio.create_task(admin.api.post("/auth/logout")),
            asyncio.create_task(api.as_(await api.operator_token()).patch(owner.org, {"disabled": True})),
        ]
        done_early, _ = await asyncio.wait(waiting, timeout=0.5)
        assert not done_early
    assert (await making).status == 201
    removed, left, closed = [(await each).status for each in waiting]
    # All three go on at the same moment, and of an organisation that was closed first nobody is removed.
    assert removed in {204, 409}
    assert (left, closed) == (204, 200)


async def test_calls_that_change_what_their_right_hangs_on_at_the_same_time_all_get_an_answer(
    api: Api, owner: Account
) -> None:
    other = await api.join(owner, "other@example.com", "owner")
    removed = await asyncio.gather(
        owner.api.delete(f"{owner.org}/members/{other.user_id}"),
        other.api.delete(f"{owner.org}/members/{owner.user_id}"),
    )
    assert sorted(each.status for each in removed) == [204, 404]
    left = await asyncio.gather(*(owner.api.post("/auth/logout") for _ in range(4)))
    assert sorted(each.status for each in left) == [204, 401, 401, 401]


async def test_invitations_at_the_same_time_do_not_wait_for_each_other_forever(owner: Account) -> None:
    made = await asyncio.gather(
        *(
            owner.api.post(
                f"{owner.org}/invitations", {"email": f"{secrets.token_hex(4)}@example.com", "role": "admin"}
            )
            for _ in range(8)
        )
    )
    assert {each.status for each in made} == {201}


async def test_a_body_that_does_not_come_is_not_waited_for(pool: asyncpg.Pool) -> None:
    async with running_api(pool, body_s=0.3) as api:
        slow = await held(api, "/auth/login", {}, lambda: asyncio.sleep(1.0))
        assert (slow.status, slow["code"]) == (408, "body_too_slow")
