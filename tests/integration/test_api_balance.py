"""Balances, manual credits and their history, through the API on a real Postgres."""

import asyncio

import pytest

from tests.support.api import Account, Api
from tests.support.ledger import FAR


@pytest.fixture
async def operator(api: Api) -> Api:
    return api.as_(await api.operator_token())


def credit(amount: object, *, currency: str = "USD", reason: str = "welcome") -> dict[str, object]:
    return {"amount": amount, "currency": currency, "reason": reason}


async def amounts(owner: Account) -> dict[str, str]:
    reply = await owner.api.get(f"{owner.org}/balance")
    assert reply.status == 200, reply.text
    return dict(reply.document)


async def test_a_credit_is_in_the_balance_the_history_and_the_audit_log(owner: Account, operator: Api) -> None:
    made = await operator.post(f"{owner.org}/credits", credit("1.25"))
    assert made.status == 201, made.text
    assert (made["amount"], made["kind"], made["reason"], made["actor_kind"]) == ("1.25", "credit", "welcome", "token")
    assert await amounts(owner) == {
        "currency": "USD",
        "posted": "1.25",
        "held": "0.00",
        "available": "1.25",
        "receivable": "0.00",
    }
    [listed] = (await owner.api.get(f"{owner.org}/transactions"))["data"]
    assert listed == made.document
    [entry, *_] = (await operator.get("/audit"))["data"]
    assert (entry["action"], entry["org_id"], entry["after"]["amount"]) == ("credit.create", owner.org_id, "1.25")


async def test_a_credit_below_zero_takes_back_and_never_what_is_held_or_not_there(
    api: Api, owner: Account, operator: Api
) -> None:
    await operator.post(f"{owner.org}/credits", credit("3"))
    await api.pool.fetchval("SELECT billing.place_hold('r', $1, 'k', 1000000000, $2)", owner.org_id, FAR)
    refused = await operator.post(f"{owner.org}/credits", credit("-2.000000001"))
    assert (refused.status, refused["code"], refused.pointers) == (409, "insufficient_balance", ["/amount"])
    assert len((await owner.api.get(f"{owner.org}/transactions"))["data"]) == 1
    taken = await operator.post(f"{owner.org}/credits", credit("-2"))
    assert (taken.status, taken["amount"]) == (201, "-2.00")
    assert (await amounts(owner))["available"] == "0.00"
    assert (await amounts(owner))["posted"] == "1.00"


async def test_of_many_who_take_back_at_once_only_as_many_succeed_as_there_is_money_for(
    owner: Account, operator: Api
) -> None:
    await operator.post(f"{owner.org}/credits", credit("5"))
    replies = await asyncio.gather(*(operator.post(f"{owner.org}/credits", credit("-1")) for _ in range(12)))
    assert sorted(reply.status for reply in replies) == [201] * 5 + [409] * 7
    assert (await amounts(owner))["posted"] == "0.00"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (credit("0"), "/amount"),
        (credit("1e3"), "/amount"),
        (credit(1.25), "/amount"),
        (credit("0.0000000001"), "/amount"),
        (credit("1000000.01"), "/amount"),
        (credit("1", currency="EUR"), "/currency"),
        (credit("1", reason=""), "/reason"),
    ],
)
async def test_what_is_no_amount_of_dollars_with_a_reason_is_refused(
    owner: Account, operator: Api, body: dict[str, object], pointer: str
) -> None:
    refused = await operator.post(f"{owner.org}/credits", body)
    assert (refused.status, refused.pointers) == (422, [pointer])


async def test_a_repeated_credit_with_the_same_key_counts_once(owner: Account, operator: Api) -> None:
    for _ in range(3):
        made = await operator.post(f"{owner.org}/credits", credit("1"), headers={"Idempotency-Key": "once"})
        assert made.status == 201
    rehearsed = await operator.post(f"{owner.org}/credits", credit("1"), params={"dry_run": "true"})
    assert rehearsed["amount"] == "1.00"
    assert (await amounts(owner))["posted"] == "1.00"


async def test_the_history_comes_in_pages_without_play_money_and_without_that_of_others(
    api: Api, owner: Account, operator: Api
) -> None:
    other = await api.sign_up("other@example.com")
    for number in range(1, 6):
        await operator.post(f"{owner.org}/credits", credit(str(number)))
        await operator.post(f"{other.org}/credits", credit("9"))
    seen, cursor = [], None
    for _ in range(3):
        params = {"limit": "2"} | ({} if cursor is None else {"cursor": cursor})
        page = await owner.api.get(f"{owner.org}/transactions", params=params)
        seen += [each["amount"] for each in page["data"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == ["5.00", "4.00", "3.00", "2.00", "1.00"]


async def test_what_is_owed_is_paid_before_the_balance_grows(api: Api, owner: Account, operator: Api) -> None:
    await operator.post(f"{owner.org}/credits", credit("2"))
    await api.pool.execute("SELECT billing.place_hold('r', $1, 'k', 500000000, $2)", owner.org_id, FAR)
    # A payment of 5 is taken back when 1.50 are left that nobody holds.
    await api.pool.execute(
        "SELECT billing.move_money($1, -5000000000, 'stripe_clearing', 'dispute', NULL, 'dp_1', NULL, NULL)",
        owner.org_id,
    )
    assert await amounts(owner) == {
        "currency": "USD",
        "posted": "0.50",
        "held": "0.50",
        "available": "0.00",
        "receivable": "3.50",
    }
    first = await operator.post(f"{owner.org}/credits", credit("3"))
    assert (first["amount"], first["receivable"]) == ("0.00", "-3.00")
    second = await operator.post(f"{owner.org}/credits", credit("3"))
    assert (second["amount"], second["receivable"]) == ("2.50", "-0.50")
    assert (await amounts(owner))["receivable"] == "0.00"
    assert await api.pool.fetchval("SELECT sum(posted_nano_usd) FROM billing.accounts") == 0
