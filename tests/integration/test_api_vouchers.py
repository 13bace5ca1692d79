"""Vouchers through the API on a real Postgres: what a code gives, to whom, and how often."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from gateway_core.clock import utc_now
from tests.support.api import Account, Api, Reply


@pytest.fixture
async def operator(api: Api) -> Api:
    return api.as_(await api.operator_token())


async def make(operator: Api, **changes: Any) -> Reply:
    made = await operator.post("/vouchers", {"amount": "2.5", "currency": "USD", "reason": "launch", **changes})
    assert made.status == 201, made.text
    return made


async def redeem(account: Account, code: str) -> Reply:
    return await account.api.post(f"{account.org}/redemptions", {"code": code})


async def test_a_voucher_gives_its_amount_once_to_each_organisation(api: Api, owner: Account, operator: Api) -> None:
    made = await make(operator, uses=2)
    other, third = await api.sign_up("other@example.com"), await api.sign_up("third@example.com")
    given = await redeem(owner, made["code"].lower().replace("-", " "))
    assert (given.status, given["kind"], given["amount"], given["reason"]) == (201, "voucher", "2.50", "launch")
    assert given["reference"] == made["id"]
    again = await redeem(owner, made["code"])
    assert (again.status, again["code"], again.pointers) == (409, "voucher_refused", ["/code"])
    assert (await redeem(other, made["code"])).status == 201
    assert (await redeem(third, made["code"])).status == 409
    assert (await owner.api.get(f"{owner.org}/balance"))["posted"] == "2.50"
    [listed] = (await operator.get("/vouchers"))["data"]
    assert (listed["uses"], listed["uses_max"]) == (2, 2)


async def test_a_voucher_for_k_is_redeemed_by_exactly_k_of_many_at_once(api: Api, operator: Api) -> None:
    made = await make(operator, uses=3)
    accounts = [await api.sign_up(f"org{number}@example.com") for number in range(6)]
    replies = await asyncio.gather(*(redeem(account, made["code"]) for account in accounts for _ in range(2)))
    assert sorted(reply.status for reply in replies) == [201] * 3 + [409] * 9
    assert await api.pool.fetchval("SELECT sum(posted_nano_usd)::bigint FROM billing.accounts") == 0


async def test_a_voucher_that_has_expired_or_was_withdrawn_gives_nothing(
    api: Api, owner: Account, operator: Api
) -> None:
    short = await make(operator, expires_at=(utc_now() + timedelta(hours=1)).isoformat())
    withdrawn = await make(operator)
    assert (await operator.delete(f"/vouchers/{withdrawn['id']}")).status == 204
    assert (await operator.delete(f"/vouchers/{withdrawn['id']}")).status == 404
    api.clock.ahead = timedelta(hours=2)
    owner = Account(api.as_((await api.log_in(owner.email))["access_token"]), *list(vars(owner).values())[1:])
    for code in (short["code"], withdrawn["code"], "TG-0000-0000-0000-0000"):
        assert (await redeem(owner, code)).status == 409
    assert (await owner.api.get(f"{owner.org}/balance"))["posted"] == "0.00"


async def test_the_code_of_a_voucher_is_shown_once_and_kept_nowhere(api: Api, owner: Account, operator: Api) -> None:
    made = await make(operator)
    await redeem(owner, made["code"])
    assert made["code"] not in (await operator.get("/vouchers")).text
    assert made["code"] not in (await operator.get("/audit")).text
    for table in ("vouchers", "redemptions"):
        rows = await api.pool.fetch(f"SELECT v::text AS row FROM payments.{table} v")
        assert made["code"] not in "".join(row["row"] for row in rows)
