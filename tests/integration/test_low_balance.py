"""When a balance runs low: mails, and top-ups that are paid while nobody is there. On a real Postgres, over HTTP to the stand-in."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from control_plane.payments.low_balance import GIVE_UP_AFTER, PAUSE
from tests.support.api import Account
from tests.support.stripe import Stripe, balance, books_balance, kinds, running_stripe, save_method, settle_on

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
async def stripe(pool: asyncpg.Pool) -> AsyncIterator[Stripe]:
    async with running_stripe(pool) as running:
        yield running


@pytest.fixture
async def owner(stripe: Stripe) -> Account:
    return await stripe.api.sign_up("owner@example.com")


def automatic(below: str = "5", amount: str = "10", month_max: str = "25") -> dict[str, str]:
    return {"below": below, "amount": amount, "month_max": month_max}


async def topups(owner: Account) -> list[tuple[str, bool, str | None]]:
    listed = (await owner.api.get(f"{owner.org}/topups"))["data"]
    return [(each["state"], each["automatic"], each["failure"]) for each in listed]


async def spend_all(stripe: Stripe, owner: Account) -> None:
    operator = stripe.api.as_(await stripe.api.operator_token())
    left, _ = await balance(owner)
    body = {"amount": f"-{left}", "currency": "USD", "reason": "spent"}
    assert (await operator.post(f"{owner.org}/credits", body)).status == 201


async def test_a_low_balance_is_told_once_until_it_has_been_higher(stripe: Stripe, owner: Account) -> None:
    await stripe.api.join(owner, "viewer@example.com", "viewer")
    await stripe.api.join(owner, "money@example.com", "billing")
    await settle_on(owner, low_balance="0.50")
    stripe.api.mailbox.mails.clear()
    looking = stripe.low_balance()
    await asyncio.gather(*(looking.look() for _ in range(4)))
    await looking.look()
    mails = [(mail.to, mail.subject) for mail in stripe.api.mailbox.mails]
    assert mails == [(to, "Your balance is running low") for to in ("money@example.com", "owner@example.com")]
    await save_method(stripe, owner)
    await looking.look()
    await spend_all(stripe, owner)
    await looking.look()
    assert len(stripe.api.mailbox.mails) == 4


async def test_a_balance_below_its_threshold_is_topped_up_once_and_within_the_months_cap(
    stripe: Stripe, owner: Account
) -> None:
    await save_method(stripe, owner)
    await settle_on(owner, automatic_topup=automatic())
    looking = stripe.low_balance()
    await asyncio.gather(*(looking.look() for _ in range(4)))
    await looking.look()
    assert await balance(owner) == ("11.00", "0.00")
    for _ in range(2):
        await spend_all(stripe, owner)
        await looking.look()
    # 10 and 10 of 25 in this month.
    assert (await kinds(owner)).count("topup") == 3
    assert await balance(owner) == ("0.00", "0.00")
    stripe.api.clock.ahead = timedelta(days=32)
    await looking.look()
    paid = await stripe.api.pool.fetchval("SELECT count(*) FROM payments.topups WHERE paid_at IS NOT NULL")
    assert paid == 4
    assert await books_balance(stripe.api.pool)


async def test_without_a_saved_method_nothing_is_paid(stripe: Stripe, owner: Account) -> None:
    await settle_on(owner, automatic_topup=automatic())
    assert (await owner.api.get(f"{owner.org}/payment-settings"))["has_payment_method"] is False
    await stripe.low_balance().look()
    assert await topups(owner) == []


async def test_a_card_that_is_declined_is_told_and_left_alone_for_a_day(stripe: Stripe, owner: Account) -> None:
    await save_method(stripe, owner, card="declined_later")
    await settle_on(owner, automatic_topup=automatic())
    looking = stripe.low_balance()
    for _ in range(3):
        await looking.look()
    assert (await topups(owner))[0] == ("failed", True, "card_declined")
    assert [mail.subject for mail in stripe.api.mailbox.mails if mail.to == owner.email][-1] == (
        "An automatic top-up has failed"
    )
    assert len(await topups(owner)) == 2
    stripe.api.clock.ahead = PAUSE
    await looking.look()
    assert await stripe.api.pool.fetchval("SELECT count(*) FROM payments.topups WHERE failed_at IS NOT NULL") == 2


async def test_while_stripe_is_gone_one_top_up_waits_and_is_asked_for_again(stripe: Stripe, owner: Account) -> None:
    await save_method(stripe, owner)
    await settle_on(owner, automatic_topup=automatic())
    for _ in range(2):
        await stripe.low_balance(NOBODY).look()
    assert await topups(owner) == [("open", True, None), ("paid", False, None)]
    stripe.api.clock.ahead = timedelta(seconds=61)
    await stripe.low_balance().look()
    assert (await topups(owner))[0] == ("paid", True, None)
    assert await balance(owner) == ("11.00", "0.00")


async def test_a_top_up_that_stripe_has_taken_is_never_asked_for_again(stripe: Stripe, owner: Account) -> None:
    await save_method(stripe, owner)
    await settle_on(owner, automatic_topup=automatic())
    await stripe.low_balance(NOBODY).look()
    # Stripe has charged, and its word has not come.
    await stripe.api.pool.execute("UPDATE payments.topups SET asked_at = 'infinity' WHERE session_id IS NULL")
    stripe.api.clock.ahead = timedelta(days=40)
    await stripe.low_balance().look()
    assert await stripe.api.pool.fetchval("SELECT count(*) FROM payments.topups WHERE paid_at IS NOT NULL") == 1


async def test_a_top_up_that_got_no_answer_is_given_up_before_stripe_forgets_it(stripe: Stripe, owner: Account) -> None:
    await save_method(stripe, owner)
    await settle_on(owner, automatic_topup=automatic())
    await stripe.low_balance(NOBODY).look()
    stripe.api.clock.ahead = GIVE_UP_AFTER
    await stripe.low_balance().look()
    failure = await stripe.api.pool.fetchval("SELECT failure FROM payments.topups WHERE session_id IS NULL")
    assert failure == "unanswered"


@pytest.mark.parametrize(
    ("settings", "pointers"),
    [
        ({"automatic_topup": automatic(month_max="9.99")}, ["/automatic_topup/month_max"]),
        ({"automatic_topup": automatic(amount="0.1")}, ["/automatic_topup/amount"]),
        ({"automatic_topup": automatic(below="-1")}, ["/automatic_topup/below"]),
        ({"low_balance": "0"}, ["/low_balance"]),
    ],
)
async def test_settings_that_make_no_sense_are_refused(
    owner: Account, settings: dict[str, Any], pointers: list[str]
) -> None:
    body = {"currency": "USD", **settings}
    refused = await owner.api.call("PUT", f"{owner.org}/payment-settings", body)
    assert (refused.status, refused.pointers) == (422, pointers)
