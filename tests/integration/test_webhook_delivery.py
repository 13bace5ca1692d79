"""Webhooks delivered over real HTTP from a real Postgres: once, again, or never."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from control_plane.webhooks import outgoing
from control_plane.webhooks.delivery import CLAIM
from control_plane.webhooks.model import EventType, Webhook
from control_plane.webhooks.postgres_events import emit
from control_plane.webhooks.retries import GIVE_UP_AFTER
from local_stack.ports import free_port
from tests.support.api import Account, Api, running_api
from tests.support.stripe import running_stripe, save_method, settle_on, top_up
from tests.support.webhooks import Carrier, Receiver, carrying, deliveries, give, hook, receiving

DISABLED = "A webhook of yours has been disabled"


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    async with running_api(pool, private_webhooks_allowed=True) as running:
        yield running


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as running:
        yield running


@pytest.fixture
async def carrier(api: Api) -> AsyncIterator[Carrier]:
    async with carrying(api) as running:
        yield running


async def read(owner: Account, webhook: dict[str, Any]) -> dict[str, Any]:
    # By the clock of the test its log-in may be over.
    row = await owner.api.pool.fetchrow(
        "SELECT is_enabled, disabled_because FROM payments.webhooks WHERE webhook_id = $1", webhook["id"]
    )
    return dict(row or {})


async def told(owner: Account, webhook: dict[str, Any]) -> list[tuple[str, int, int | None, str | None]]:
    """State, attempts, last status and last fault of everything, oldest first."""
    rows = await owner.api.pool.fetch(
        """
        SELECT state, attempts, last_status, last_fault FROM payments.webhook_deliveries
        WHERE webhook_id = $1 ORDER BY seq
        """,
        webhook["id"],
    )
    return [tuple(row) for row in rows]


async def test_what_has_happened_arrives_once_signed_and_as_the_api_shows_it(
    api: Api, owner: Account, receiver: Receiver, carrier: Carrier
) -> None:
    made = await hook(owner, f"{receiver.url}/a?key=1")
    await give(api, owner, "2.50")
    assert (await carrier.carry(), await carrier.carry()) == (1, 0)
    [got] = receiver.received
    [transaction] = (await owner.api.get(f"{owner.org}/transactions"))["data"]
    [delivery] = await deliveries(owner, made)
    document = got.document
    assert (document["type"], document["org_id"], document["data"]) == ("credit.created", owner.org_id, transaction)
    assert document["id"] == got.id == delivery["event_id"]
    assert document.keys() == {"id", "type", "created_at", "org_id", "data"}
    assert got.headers["Content-Type"] == "application/json"
    assert got.signed_with(made["secret"])
    assert not got.signed_with("whsec_" + "A" * 43 + "=")
    assert (delivery["state"], delivery["attempts"], delivery["last_status"]) == ("delivered", 1, 204)
    assert carrier.counted("delivered") == 1


async def test_every_event_of_payments_is_told(pool: asyncpg.Pool, receiver: Receiver) -> None:
    async with running_stripe(pool, private_webhooks_allowed=True) as stripe, carrying(stripe.api) as carrier:
        owner = await stripe.api.sign_up("owner@example.com")
        await hook(owner, receiver.url)
        await save_method(stripe, owner, card="declined_later")
        paid, payment = await top_up(stripe, owner, "10")
        await stripe.post("/v1/refunds", payment_intent=payment, amount=100)
        for status in ("won", "lost"):
            dispute = await stripe.post("/disputes", payment_intent=payment, amount=200)
            await stripe.post(f"/disputes/{dispute['id']}/close", status=status)
        operator = stripe.api.as_(await stripe.api.operator_token())
        voucher = await operator.post("/vouchers", {"amount": "2", "currency": "USD", "reason": "launch"})
        await owner.api.post(f"{owner.org}/redemptions", {"code": voucher["code"]})
        await give(stripe.api, owner, "-1")
        await settle_on(owner, low_balance="50", automatic_topup={"below": "50", "amount": "10", "month_max": "25"})
        for _ in range(2):
            await stripe.low_balance().look()
        await carrier.carry()
    told = {
        kind: [each["data"] for each in (got.document for got in receiver.received) if each["type"] == kind]
        for kind in set(receiver.types)
    }
    assert sorted(receiver.types) == sorted(
        [
            *("topup.paid", "topup.paid", "payment.refunded", "payment.disputed", "payment.disputed"),
            *("dispute.closed", "dispute.closed", "voucher.redeemed", "credit.created", "balance.low", "topup.failed"),
        ]
    )
    assert paid["id"] in [each["id"] for each in told["topup.paid"]]
    assert [each["state"] for each in told["topup.paid"]] == ["paid", "paid"]
    assert (told["payment.refunded"][0]["amount"], told["payment.refunded"][0]["reference"]) == ("-1.00", payment)
    assert [(each["status"], each["amount"], each["topup_id"]) for each in told["dispute.closed"]] == [
        ("won", "2.00", paid["id"]),
        ("lost", "2.00", paid["id"]),
    ]
    assert told["balance.low"] == [{"currency": "USD", "available": "9.00", "low_balance": "50.00"}]
    assert told["topup.failed"][0]["failure"] == "card_declined"


async def test_the_end_of_a_dispute_is_told_once_whatever_comes_first(pool: asyncpg.Pool, receiver: Receiver) -> None:
    async with running_stripe(pool, private_webhooks_allowed=True) as stripe, carrying(stripe.api) as carrier:
        owner = await stripe.api.sign_up("owner@example.com")
        await hook(owner, receiver.url, event_types=["dispute.closed"])
        made, _ = await top_up(stripe, owner, "10", paid=False)
        lost = {"id": "du_1", "payment_intent": "pi_1", "amount": 300, "currency": "usd", "status": "lost"}
        await stripe.deliver("charge.dispute.closed", lost)
        await carrier.carry()
        assert receiver.received == []
        paid = {"id": "pi_1", "amount_received": 1000, "currency": "usd", "metadata": {"topup_id": made["id"]}}
        await stripe.deliver("payment_intent.succeeded", paid)
        await stripe.deliver("charge.dispute.closed", lost)
        await stripe.deliver("charge.dispute.created", lost | {"status": "needs_response"})
        await carrier.carry()
    assert [got.document["data"]["status"] for got in receiver.received] == ["lost"]


async def test_both_secrets_sign_until_the_overlap_is_over(
    api: Api, owner: Account, receiver: Receiver, carrier: Carrier
) -> None:
    made = await hook(owner, receiver.url)
    rotated = await owner.api.post(f"{owner.org}/webhooks/{made['id']}/rotate", {"overlap_s": 600})
    for ahead in (0, 601):
        api.clock.ahead = timedelta(seconds=ahead)
        await give(api, owner)
        await carrier.carry()
    during, after = receiver.received
    assert (during.signed_with(made["secret"]), during.signed_with(rotated["secret"])) == (True, True)
    assert (after.signed_with(made["secret"]), after.signed_with(rotated["secret"])) == (False, True)


async def test_a_failed_attempt_is_made_again_after_a_while_with_the_same_id_and_a_new_signature(
    api: Api, owner: Account, receiver: Receiver, carrier: Carrier
) -> None:
    made = await hook(owner, receiver.url)
    receiver.status = 500
    await give(api, owner)
    assert await carrier.carry() == 1
    api.clock.ahead = timedelta(seconds=3)
    assert await carrier.carry() == 0
    api.clock.ahead = timedelta(seconds=7)
    assert await carrier.carry() == 1
    assert await told(owner, made) == [("waiting", 2, 500, "answer")]
    receiver.status = 200
    api.clock.ahead = timedelta(seconds=60)
    assert await carrier.carry() == 1
    assert await told(owner, made) == [("delivered", 3, 200, None)]
    assert len({got.id for got in receiver.received}) == 1
    assert len({got.headers["webhook-timestamp"] for got in receiver.received}) == 3
    assert all(got.signed_with(made["secret"]) for got in receiver.received)
    assert (carrier.counted("retried"), carrier.counted("delivered")) == (2, 1)


async def test_after_three_days_of_failures_it_is_given_up_the_webhook_disabled_and_those_who_pay_are_told(
    api: Api, owner: Account, receiver: Receiver, carrier: Carrier
) -> None:
    await api.join(owner, "money@example.com", "billing")
    await api.join(owner, "viewer@example.com", "viewer")
    made = await hook(owner, receiver.url)
    receiver.status = 503
    await give(api, owner)
    api.mailbox.mails.clear()
    attempts = 0
    for hours in range(80):
        api.clock.ahead = timedelta(hours=hours)
        if hours == 70:
            await give(api, owner)
        attempts += await carrier.carry()
    assert 8 <= attempts <= 20
    assert [(state, fault) for state, _, _, fault in await told(owner, made)] == [
        ("failed", "answer"),
        ("failed", "disabled"),
    ]
    assert await read(owner, made) == {"is_enabled": False, "disabled_because": "failing"}
    mails = [(mail.to, mail.subject) for mail in api.mailbox.mails]
    assert mails == [("money@example.com", DISABLED), ("owner@example.com", DISABLED)]
    audited = await api.pool.fetchrow(
        "SELECT actor_kind, actor_id FROM accounts.audit_log WHERE action = 'webhook.disable'"
    )
    assert audited is not None
    assert tuple(audited) == ("system", "webhooks")
    # Enabled again, it gets what is replayed, under the id it had.
    api.clock.ahead = timedelta()
    path = f"{owner.org}/webhooks/{made['id']}"
    assert (await owner.api.patch(path, {"enabled": True}))["disabled_because"] is None
    [failed, _] = await deliveries(owner, made)
    receiver.status = 200
    assert (await owner.api.post(f"{path}/deliveries/{failed['id']}/replay")).status == 200
    api.clock.ahead = timedelta(hours=81)
    await carrier.carry()
    assert receiver.received[-1].id == receiver.received[0].id
    assert (await told(owner, made))[0][:1] == ("delivered",)


async def test_a_webhook_that_takes_other_things_is_not_disabled(
    api: Api, owner: Account, receiver: Receiver, carrier: Carrier
) -> None:
    made = await hook(owner, receiver.url)
    receiver.status = 400
    await give(api, owner)
    await carrier.carry()
    receiver.status = 200
    await give(api, owner)
    await carrier.carry()
    receiver.status = 400
    api.clock.ahead = GIVE_UP_AFTER
    await carrier.carry()
    assert [state for state, *_ in await told(owner, made)] == ["failed", "delivered"]
    assert (await read(owner, made))["is_enabled"] is True


async def test_410_disables_at_once(api: Api, owner: Account, receiver: Receiver, carrier: Carrier) -> None:
    made = await hook(owner, receiver.url)
    receiver.status = 410
    for _ in range(2):
        await give(api, owner)
    assert await carrier.carry() == 1
    assert await told(owner, made) == [("failed", 1, 410, "answer"), ("failed", 0, None, "disabled")]
    assert await read(owner, made) == {"is_enabled": False, "disabled_because": "gone"}
    assert [mail.subject for mail in api.mailbox.mails][-1] == DISABLED
    assert carrier.counted("failed") == 1


async def test_a_redirect_is_no_delivery_and_is_not_followed(
    api: Api, owner: Account, receiver: Receiver, carrier: Carrier
) -> None:
    made = await hook(owner, receiver.url)
    receiver.status, receiver.headers = 307, {"Location": receiver.url + "/elsewhere"}
    await give(api, owner)
    await carrier.carry()
    assert await told(owner, made) == [("waiting", 1, 307, "answer")]
    assert len(receiver.received) == 1


async def test_a_large_answer_is_not_read(api: Api, owner: Account, receiver: Receiver, carrier: Carrier) -> None:
    made = await hook(owner, receiver.url)
    receiver.status, receiver.body = 200, bytes(16 * 1024 * 1024)
    await give(api, owner)
    await carrier.carry()
    assert await told(owner, made) == [("delivered", 1, 200, None)]


async def test_what_hangs_ends_in_time_and_holds_up_nobody_else(
    api: Api, owner: Account, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "ATTEMPT_S", 0.5)
    receiver.hangs = True
    slow = [await hook(owner, receiver.url) for _ in range(3)]
    other = await api.sign_up("other@example.com")
    async with receiving() as quick, carrying(api) as carrier:
        await hook(other, quick.url)
        await give(api, owner)
        await give(api, owner)
        await give(api, other)
        async with asyncio.timeout(5):
            taken = await carrier.delivery.take(16)
            # One attempt for each webhook, whatever waits.
            assert len(taken) == 4
            await asyncio.gather(*map(carrier.delivery.attempt, taken))
        assert len(quick.received) == 1
        for each in slow:
            assert sorted(await told(owner, each)) == [("waiting", 0, None, None), ("waiting", 1, None, "timeout")]


async def test_what_cannot_be_reached_or_speaks_no_tls_is_said_so(
    api: Api, owner: Account, receiver: Receiver, carrier: Carrier
) -> None:
    nobody = await hook(owner, f"http://127.0.0.1:{free_port()}/")
    plain = await hook(owner, receiver.url.replace("http://", "https://"))
    unknown = await hook(owner, "https://no-such-name.invalid/")
    await give(api, owner)
    await carrier.carry()
    faults = [(await told(owner, each))[0][3] for each in (nobody, plain, unknown)]
    assert faults == ["connection", "tls", "connection"]


GARBAGE = [
    *(
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
    ),
    *(b"HTTP/1.1 xyz OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100_000),
    *(b"HTTP/1.1 99999 OK\r\n\r\n", b"HTTP/1.1 -1 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    *(b"HTTP/1.1 200 OK\r\nA: \xff\x00\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, bytes(range(256)) * 100),
]


async def test_no_answer_whatever_it_is_does_more_than_fail(api: Api, owner: Account, carrier: Carrier) -> None:
    answers = iter(GARBAGE)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(next(answers))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        made = await hook(owner, f"http://127.0.0.1:{port}/")
        for _ in GARBAGE:
            await give(api, owner)
        assert await carrier.carry() == len(GARBAGE)
    ended = await told(owner, made)
    assert [attempts for _, attempts, _, _ in ended] == [1] * len(GARBAGE)
    assert {fault for _, _, _, fault in ended} <= {"connection", "answer", None}
    assert [fault for _, _, _, fault in ended].count("connection") > len(GARBAGE) / 2


async def test_many_control_planes_deliver_everything_once(api: Api, owner: Account, receiver: Receiver) -> None:
    hooks = [await hook(owner, receiver.url) for _ in range(3)]
    for _ in range(5):
        await give(api, owner)
    async with carrying(api) as first, carrying(api) as second, asyncio.timeout(30):
        running = [asyncio.create_task(each.delivery.run()) for each in (first, second)]
        while await api.pool.fetchval("SELECT count(*) FROM payments.webhook_deliveries WHERE state = 'waiting'"):  # noqa: ASYNC110 - Postgres tells nobody
            await asyncio.sleep(0.05)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    for each in hooks:
        assert await told(owner, each) == [("delivered", 1, 204, None)] * 5
    assert len(receiver.received) == 15
    assert len({got.id for got in receiver.received}) == 5


async def test_an_attempt_whose_maker_died_is_made_again_with_the_same_id(
    api: Api, owner: Account, receiver: Receiver, carrier: Carrier
) -> None:
    made = await hook(owner, receiver.url)
    await give(api, owner)
    [due] = await carrier.delivery.take(1)
    await carrier.delivery._post(due)  # and it dies before it has written that down
    assert await carrier.carry() == 0
    api.clock.ahead = CLAIM + timedelta(seconds=1)
    assert await carrier.carry() == 1
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    # One that was only slow does not write over what another has written.
    await carrier.delivery.attempt(due)
    assert await told(owner, made) == [("delivered", 2, 204, None)]
    assert carrier.counted("delivered") == 1


async def test_while_postgres_is_gone_nothing_is_lost(
    api: Api, owner: Account, receiver: Receiver, carrier: Carrier, postgres_dsn: str
) -> None:
    made = await hook(owner, receiver.url)
    await give(api, owner)
    [due] = await carrier.delivery.take(1)
    admin = await asyncpg.connect(postgres_dsn)
    database = await api.pool.fetchval("SELECT current_database()")
    await admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
    await carrier.delivery.attempt(due)
    assert await carrier.delivery.take(1) == []
    await admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
    await admin.close()
    api.clock.ahead = CLAIM + timedelta(seconds=1)
    assert await carrier.carry() == 1
    assert await told(owner, made) == [("delivered", 2, 204, None)]
    assert len({got.id for got in receiver.received}) == 1


class Rebinding(AbstractResolver):
    """A name server whose owner says what he likes."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - the parent's
    ) -> list[ResolveResult]:
        kind = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        return [ResolveResult(hostname=host, host=self.address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("address", "private_allowed"),
    [
        *(("127.0.0.1", False), ("10.0.0.1", False), ("::1", False), ("::ffff:127.0.0.1", False)),
        *(("169.254.169.254", True), ("100.100.100.200", True), ("::ffff:169.254.169.254", True), ("fe80::1", True)),
    ],
)
async def test_a_name_that_leads_where_no_webhook_may_be_is_not_connected_to(
    api: Api, owner: Account, receiver: Receiver, address: str, *, private_allowed: bool
) -> None:
    port = receiver.url.rpartition(":")[2]
    made = await hook(owner, f"http://rebound.example.com:{port}")
    await give(api, owner)
    async with carrying(api, private_allowed=private_allowed, resolver=lambda: Rebinding(address)) as carrier:
        await carrier.carry()
    assert await told(owner, made) == [("waiting", 1, None, "address")]
    assert receiver.received == []


async def test_an_address_that_was_written_while_it_was_allowed_is_not_connected_to_any_more(
    api: Api, owner: Account, receiver: Receiver
) -> None:
    made = await hook(owner, receiver.url)
    await give(api, owner)
    async with carrying(api, private_allowed=False) as carrier:
        await carrier.carry()
    assert await told(owner, made) == [("waiting", 1, None, "address")]
    assert receiver.received == []


async def test_a_name_that_leads_where_one_may_be_is_connected_to(api: Api, owner: Account, receiver: Receiver) -> None:
    port = receiver.url.rpartition(":")[2]
    await hook(owner, f"http://allowed.example.com:{port}")
    await give(api, owner)
    async with carrying(api, resolver=lambda: Rebinding("127.0.0.1")) as carrier:
        await carrier.carry()
    assert len(receiver.received) == 1


async def test_a_webhook_whose_secret_does_not_open_is_told_nothing_unsigned(
    api: Api, owner: Account, receiver: Receiver, carrier: Carrier
) -> None:
    made = await hook(owner, receiver.url)
    await api.pool.execute("UPDATE payments.webhooks SET sealed_secret = 'of another installation'")
    await give(api, owner)
    await carrier.carry()
    assert await told(owner, made) == [("waiting", 1, None, "secret")]
    assert receiver.received == []


async def test_what_happens_while_a_webhook_is_disabled_or_removed_leaves_nothing_waiting(
    api: Api, owner: Account
) -> None:
    disabled, removed = [await hook(owner, "http://127.0.0.1:9/") for _ in range(2)]
    async with api.pool.acquire() as db, db.transaction():
        await emit(db, owner.org_id, EventType.CREDIT_CREATED, Webhook.model_validate(disabled))
        changes = [
            asyncio.create_task(owner.api.patch(f"{owner.org}/webhooks/{disabled['id']}", {"enabled": False})),
            asyncio.create_task(owner.api.delete(f"{owner.org}/webhooks/{removed['id']}")),
        ]
        done, _ = await asyncio.wait(changes, timeout=0.5)
        assert not done
    assert [reply.status for reply in await asyncio.gather(*changes)] == [200, 204]
    assert await told(owner, disabled) == [("failed", 0, None, "disabled")]
    assert await told(owner, removed) == []
