"""Money that comes in through Stripe and goes back: the whole round trip on a real Postgres, over HTTP, with real signatures."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from tests.support.api import Account, running_api
from tests.support.ledger import FAR
from tests.support.stripe import (
    WEBHOOK_SECRET,
    Stripe,
    balance,
    books_balance,
    kinds,
    page,
    running_stripe,
    sign,
    top_up,
)


@pytest.fixture
async def stripe(pool: asyncpg.Pool) -> AsyncIterator[Stripe]:
    async with running_stripe(pool) as running:
        yield running


@pytest.fixture
async def owner(stripe: Stripe) -> Account:
    return await stripe.api.sign_up("owner@example.com")


def intent(topup_id: str, cents: int, payment_intent: str = "pi_1", currency: str = "usd") -> dict[str, Any]:
    metadata = {"topup_id": topup_id}
    return {"id": payment_intent, "amount_received": cents, "currency": currency, "metadata": metadata}


def charge(payment_intent: str, refunded: int) -> dict[str, Any]:
    return {"id": "ch_1", "payment_intent": payment_intent, "amount_refunded": refunded, "currency": "usd"}


def dispute(payment_intent: str, cents: int, status: str, dispute_id: str = "du_1") -> dict[str, Any]:
    return {
        "id": dispute_id,
        "payment_intent": payment_intent,
        "amount": cents,
        "currency": "usd",
        "status": status,
    }


async def test_what_is_paid_at_stripe_is_in_the_balance(stripe: Stripe, owner: Account) -> None:
    made, _ = await top_up(stripe, owner, "20.50", paid=False)
    assert (made["state"], made["amount"], await balance(owner)) == ("open", "20.50", ("0.00", "0.00"))
    assert "Pay 20.50 USD" in await page(stripe.api.session, made["checkout_url"])
    payment_intent = await stripe.pay(made["checkout_url"])
    assert await balance(owner) == ("20.50", "0.00")
    [shown] = (await owner.api.get(f"{owner.org}/topups"))["data"]
    assert shown == (await owner.api.get(f"{owner.org}/topups/{made['id']}")).document
    assert shown["state"] == "paid"
    [posted] = (await owner.api.get(f"{owner.org}/transactions"))["data"]
    assert (posted["kind"], posted["reference"], posted["actor_id"]) == ("topup", payment_intent, owner.user_id)
    # Two events told it, and it is posted once.
    assert (stripe.counted("posted"), stripe.counted("noted")) == (1, 1)
    audited = (await owner.api.get(f"{owner.org}/audit"))["data"]
    assert [each["action"] for each in audited[:2]] == ["payment.topup", "topup.create"]
    assert audited[0]["actor_kind"] == "stripe"
    assert await books_balance(stripe.api.pool)


async def test_an_event_that_comes_often_and_at_once_counts_once(stripe: Stripe, owner: Account) -> None:
    made, _ = await top_up(stripe, owner, "5", paid=False)
    found = intent(made["id"], 500)
    same = [stripe.deliver("payment_intent.succeeded", found, "evt_same") for _ in range(6)]
    others = [stripe.deliver("payment_intent.succeeded", found) for _ in range(6)]
    assert await asyncio.gather(*same, *others) == [200] * 12
    assert await balance(owner) == ("5.00", "0.00")
    assert (stripe.counted("posted"), stripe.counted("duplicate"), stripe.counted("noted")) == (1, 5, 6)


async def test_whatever_the_order_of_the_events_the_books_end_equal(stripe: Stripe) -> None:
    for number, order in enumerate(itertools.permutations(range(5))):
        if number % 10:
            continue  # every tenth of the 120 orders
        owner = await stripe.api.sign_up(f"owner{number}@example.com")
        made, _ = await top_up(stripe, owner, "10", paid=False)
        payment = f"pi_{number}"
        events = [
            ("payment_intent.succeeded", intent(made["id"], 1000, payment)),
            ("charge.refunded", charge(payment, 200)),
            ("charge.refunded", charge(payment, 300)),
            ("charge.dispute.created", dispute(payment, 500, "needs_response", f"du_{number}")),
            ("charge.dispute.closed", dispute(payment, 500, "lost", f"du_{number}")),
        ]
        for position in order:
            assert await stripe.deliver(*events[position]) == 200
        assert await balance(owner) == ("2.00", "0.00"), order
    assert stripe.counted("quarantined") == 0
    assert await books_balance(stripe.api.pool)


@pytest.mark.parametrize(
    ("cents", "currency", "reason"),
    [(501, "usd", "amount"), (499, "usd", "amount"), (500, "eur", "currency")],
)
async def test_a_payment_of_another_amount_or_currency_is_quarantined_and_not_posted(
    stripe: Stripe, owner: Account, cents: int, currency: str, reason: str
) -> None:
    made, _ = await top_up(stripe, owner, "5", paid=False)
    assert await stripe.deliver("payment_intent.succeeded", intent(made["id"], cents, "pi_1", currency)) == 200
    assert await balance(owner) == ("0.00", "0.00")
    assert stripe.counted("quarantined") == 1
    assert reason in await stripe.api.pool.fetchval("SELECT reason FROM payments.quarantine")


async def test_what_contradicts_what_we_know_is_quarantined(stripe: Stripe, owner: Account) -> None:
    _, payment = await top_up(stripe, owner, "5")
    made, _ = await top_up(stripe, owner, "7")
    await stripe.deliver("payment_intent.succeeded", intent("top_unknown", 500, "pi_9"))
    await stripe.deliver("payment_intent.succeeded", intent(made["id"], 700, "pi_8"))
    await stripe.deliver("charge.refunded", charge(payment, 501))
    await stripe.deliver("charge.dispute.created", dispute(payment, 501, "needs_response"))
    await stripe.deliver("charge.refunded", {"payment_intent": payment})
    await stripe.deliver("charge.refunded", charge(payment, 0), "evt_1")
    await stripe.deliver("charge.refunded", charge(payment, 5), "evt_1")
    assert stripe.counted("quarantined") == 6
    assert await balance(owner) == ("12.00", "0.00")
    assert await kinds(owner) == ["topup", "topup"]


async def test_what_is_about_other_payments_of_the_account_means_nothing(stripe: Stripe, owner: Account) -> None:
    await stripe.deliver("payment_intent.succeeded", {"id": "pi_5", "metadata": {}})
    await stripe.deliver("checkout.session.completed", {"id": "cs_5", "metadata": None})
    await stripe.deliver("charge.refunded", charge("pi_5", 100) | {"currency": "jpy"})
    await stripe.deliver("customer.created", {"id": "cus_5"})
    await stripe.deliver("charge.dispute.created", dispute("pi_5", 100, "warning_needs_response"))
    assert stripe.counted("noted") == 5
    assert await balance(owner) == ("0.00", "0.00")


async def test_a_refund_takes_from_what_is_free_and_the_rest_is_owed_and_paid_first(
    stripe: Stripe, owner: Account
) -> None:
    _, payment = await top_up(stripe, owner, "10")
    await stripe.post("/v1/refunds", payment_intent=payment, amount=250)
    await stripe.post("/v1/refunds", payment_intent=payment, amount=150)
    assert await balance(owner) == ("6.00", "0.00")
    await stripe.api.pool.execute("SELECT billing.place_hold('r', $1, 'k', 2000000000, $2)", owner.org_id, FAR)
    await stripe.post("/v1/refunds", payment_intent=payment)
    # The 2 that a request holds stay with it.
    assert await balance(owner) == ("0.00", "2.00")
    await top_up(stripe, owner, "5")
    assert await balance(owner) == ("3.00", "0.00")
    assert await kinds(owner) == ["topup", "refund", "refund", "refund", "topup"]
    assert await books_balance(stripe.api.pool)


async def test_a_dispute_takes_the_money_and_gives_it_back_only_when_it_is_won(stripe: Stripe, owner: Account) -> None:
    _, payment = await top_up(stripe, owner, "10")
    won = await stripe.post("/disputes", payment_intent=payment, amount=400)
    assert await balance(owner) == ("6.00", "0.00")
    await stripe.post(f"/disputes/{won['id']}/close", status="won")
    assert await balance(owner) == ("10.00", "0.00")
    lost = await stripe.post("/disputes", payment_intent=payment)
    await stripe.post(f"/disputes/{lost['id']}/close", status="lost")
    assert await balance(owner) == ("0.00", "0.00")
    assert await kinds(owner) == ["topup", "dispute", "dispute_won", "dispute"]


REFUND, DISPUTE = (
    ("charge.refunded", charge("pi", 400)),
    ("charge.dispute.created", dispute("pi", 1000, "needs_response")),
)
WON, LOST = (("charge.dispute.closed", dispute("pi", 1000, status)) for status in ("won", "lost"))


@pytest.mark.parametrize(
    ("events", "left"),
    [
        ([REFUND, DISPUTE], "0.00"),
        ([DISPUTE, REFUND], "0.00"),
        ([REFUND, DISPUTE, LOST], "0.00"),
        ([DISPUTE, REFUND, LOST], "0.00"),
        ([DISPUTE, LOST, REFUND], "0.00"),
        # What the bank gives back, a refund has still given away.
        ([REFUND, DISPUTE, WON], "6.00"),
        ([DISPUTE, REFUND, WON], "6.00"),
        ([DISPUTE, WON, REFUND], "6.00"),
        ([WON, DISPUTE, REFUND], "6.00"),
    ],
)
async def test_a_refund_and_a_dispute_of_a_payment_take_back_no_more_than_was_paid_in_any_order(
    stripe: Stripe, owner: Account, events: list[tuple[str, dict[str, Any]]], left: str
) -> None:
    _, payment = await top_up(stripe, owner, "10")
    for kind, told in events:
        assert await stripe.deliver(kind, told | {"payment_intent": payment}) == 200
        assert await balance(owner) in {("10.00", "0.00"), ("6.00", "0.00"), ("0.00", "0.00")}
    assert await balance(owner) == (left, "0.00")
    assert stripe.counted("quarantined") == 0
    assert await books_balance(stripe.api.pool)


async def test_a_dispute_that_was_won_before_it_was_heard_of_moves_nothing(stripe: Stripe, owner: Account) -> None:
    _, payment = await top_up(stripe, owner, "10")
    await stripe.deliver("charge.dispute.closed", dispute(payment, 400, "won"))
    await stripe.deliver("charge.dispute.created", dispute(payment, 400, "needs_response"))
    assert await kinds(owner) == ["topup"]


async def test_only_what_stripe_has_signed_lately_is_believed(stripe: Stripe, owner: Account) -> None:
    made, _ = await top_up(stripe, owner, "5", paid=False)
    found = intent(made["id"], 500)
    old = int(time.time()) - 301
    assert await stripe.deliver("payment_intent.succeeded", found, secret=SecretStr("whsec_other")) == 400
    assert await stripe.deliver("payment_intent.succeeded", found, timestamp=old) == 400
    body = '{"id": "evt_1", "type": "x", "data": {"object": {}}}'
    for signature in ("", "t=1", "v1=00", "t=x,v1=y", f"{sign(body)}é"):
        assert await stripe.send(body, signature) == 400
    assert await stripe.send(body + " ", sign(body)) == 400
    assert await stripe.send(b"\xff\xfe", sign(body)) == 400
    assert await stripe.send("[]", sign("[]")) == 400
    assert await stripe.send(" " * 1024 * 1024 + body, sign(body)) == 413
    assert await balance(owner) == ("0.00", "0.00")
    assert stripe.counted("refused") == 10


async def test_without_a_secret_no_event_is_taken_and_without_a_key_nothing_can_be_paid(pool: asyncpg.Pool) -> None:
    async with running_api(pool) as api:
        owner = await api.sign_up("owner@example.com")
        refused = await owner.api.post(f"{owner.org}/topups", {"amount": "5", "currency": "USD"})
        assert (refused.status, refused["code"]) == (409, "payments_not_configured")
        body = "{}"
        headers = {"Stripe-Signature": sign(body, SecretStr(""))}
        async with api.session.post(f"{api.url}/webhooks/stripe", data=body, headers=headers) as answer:
            assert answer.status == 503


async def test_when_stripe_is_gone_nothing_is_half_done(pool: asyncpg.Pool) -> None:
    async with running_api(pool, stripe_api_base="http://127.0.0.1:9", stripe_webhook_secret=WEBHOOK_SECRET) as api:
        owner = await api.sign_up("owner@example.com")
        refused = await owner.api.post(f"{owner.org}/topups", {"amount": "5", "currency": "USD"})
        assert (refused.status, refused["code"]) == (503, "payments_unavailable")
        assert (await owner.api.get(f"{owner.org}/topups"))["data"] == []


@pytest.mark.parametrize("amount", ["0.49", "1000000", "1.005", "-5", "5 USD", ""])
async def test_what_is_no_payable_amount_is_refused(owner: Account, amount: str) -> None:
    refused = await owner.api.post(f"{owner.org}/topups", {"amount": amount, "currency": "USD"})
    assert (refused.status, refused.pointers) == (422, ["/amount"])


async def test_a_rehearsal_and_a_repetition_make_no_second_top_up(owner: Account) -> None:
    body = {"amount": "5", "currency": "USD"}
    rehearsed = await owner.api.post(f"{owner.org}/topups", body, params={"dry_run": "true"})
    assert (rehearsed.status, rehearsed["checkout_url"]) == (201, None)
    first, second = [
        await owner.api.post(f"{owner.org}/topups", body, headers={"Idempotency-Key": "once"}) for _ in range(2)
    ]
    assert first.document == second.document
    assert len((await owner.api.get(f"{owner.org}/topups"))["data"]) == 1
