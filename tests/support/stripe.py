"""The API with a stand-in for Stripe at its side, each on a port of its own, and what browsers, merchants and banks do there."""

import io
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from stripe import WebhookSignature

from control_plane.payments.low_balance import LowBalance
from control_plane.payments.stripe_payments import StripePayments
from gateway_core.health import serving
from local_stack.ports import free_port
from simulator.app import build_app
from simulator.settings import SimulatorSettings
from tests.support.api import Account, Api, Clock, running_api
from tests.support.logs import QUIET

WEBHOOK_SECRET = SecretStr("whsec_test")
MERCHANT = {"Authorization": "Bearer sk_test_1"}


@dataclass(frozen=True)
class Stripe:
    """The stand-in, and the webhook it tells."""

    url: str
    api: Api
    registry: CollectorRegistry

    def low_balance(self, api_base: str | None = None) -> LowBalance:
        """What looks at balances, to be asked to look."""
        return LowBalance(
            self.api.pool,
            StripePayments(
                SecretStr("sk_test_1"), api_base or self.url, "http://gateway.test", self.api.session, QUIET
            ),
            self.api.mailbox,
            "http://gateway.test",
            self.api.clock.now,
            secrets.token_bytes,
            QUIET,
        )

    async def pay(self, checkout_url: str, **form: str) -> str:
        """Press the button of a checkout page; returns the payment intent."""
        async with self.api.session.post(checkout_url, data=form, allow_redirects=False) as answer:
            assert answer.status == 303, await answer.text()
            assert answer.headers["Location"].endswith("/topped-up")
        session_id = checkout_url.rpartition("/")[2]
        async with self.api.session.get(f"{self.url}/v1/checkout/sessions/{session_id}") as got:
            return str((await got.json())["payment_intent"])

    async def post(self, path: str, **form: Any) -> dict[str, Any]:
        """What a merchant or a bank does."""
        async with self.api.session.post(f"{self.url}{path}", data=form, headers=MERCHANT) as answer:
            assert answer.ok, await answer.text()
            return dict(await answer.json())

    async def deliver(self, kind: str, found: dict[str, Any], event_id: str = "", **signing: Any) -> int:
        """Deliver an event of our own making; returns the status."""
        event = {"id": event_id or f"evt_{secrets.token_hex(8)}", "type": kind, "data": {"object": found}}
        body = json.dumps({"object": "event", "pending_webhooks": secrets.randbelow(9), **event})
        return await self.send(body, sign(body, **signing))

    async def send(self, body: str | bytes, signature: str) -> int:
        """Deliver anything."""
        headers = {"Stripe-Signature": signature, "Content-Type": "application/json"}
        raw = io.BytesIO(body.encode() if isinstance(body, str) else body)
        async with self.api.session.post(f"{self.api.url}/webhooks/stripe", data=raw, headers=headers) as answer:
            return answer.status

    def counted(self, outcome: str) -> float:
        """How many events ended so."""
        name = "tollgate_control_plane_stripe_events_total"
        return self.registry.get_sample_value(name, {"outcome": outcome}) or 0


def sign(body: str, secret: SecretStr = WEBHOOK_SECRET, timestamp: int | None = None) -> str:
    """A signature as Stripe's own library makes it."""
    return str(WebhookSignature.generate_signature_header(body, secret.get_secret_value(), timestamp))


@asynccontextmanager
async def running_stripe(pool: asyncpg.Pool, clock: Clock | None = None, **options: Any) -> AsyncIterator[Stripe]:
    """Both until the block ends."""
    port, registry = free_port(), CollectorRegistry()
    settings = SimulatorSettings(
        simulator_stripe_webhook_url=f"http://127.0.0.1:{port}/webhooks/stripe", stripe_webhook_secret=WEBHOOK_SECRET
    )
    async with serving(build_app(settings, QUIET), "127.0.0.1", 0) as (host, stripe_port):
        url = f"http://{host}:{stripe_port}/stripe"
        async with running_api(
            pool,
            clock=clock,
            stripe_api_base=url,
            stripe_webhook_secret=WEBHOOK_SECRET,
            port=port,
            registry=registry,
            **options,
        ) as api:
            yield Stripe(url, api, registry)


async def top_up(stripe: Stripe, owner: Account, amount: str, *, paid: bool = True) -> tuple[dict[str, Any], str]:
    """A top-up, paid unless said otherwise; with its payment intent."""
    made = await owner.api.post(f"{owner.org}/topups", {"amount": amount, "currency": "USD"})
    assert made.status == 201, made.text
    return dict(made.document), await stripe.pay(made["checkout_url"]) if paid else ""


async def save_method(stripe: Stripe, owner: Account, **form: str) -> None:
    """Pay one dollar with something that may be used again."""
    body = {"amount": "1", "currency": "USD", "save_payment_method": True}
    made = await owner.api.post(f"{owner.org}/topups", body)
    await stripe.pay(made["checkout_url"], **form)


async def settle_on(owner: Account, **settings: Any) -> None:
    """Write what is done when the balance runs low."""
    path = f"{owner.org}/payment-settings"
    etag = (await owner.api.get(path)).headers["ETag"]
    put = await owner.api.call("PUT", path, {"currency": "USD", **settings}, headers={"If-Match": etag})
    assert put.status == 200, put.text


async def balance(owner: Account) -> tuple[str, str]:
    """What an organisation has available, and what it owes."""
    found = await owner.api.get(f"{owner.org}/balance")
    return found["available"], found["receivable"]


async def kinds(owner: Account) -> list[str]:
    """The kinds of an organisation's transactions, oldest first."""
    listed = (await owner.api.get(f"{owner.org}/transactions"))["data"]
    return [each["kind"] for each in reversed(listed)]


async def books_balance(pool: asyncpg.Pool) -> bool:
    """Whether all accounts sum to zero, and equal their entries."""
    wrong: int = await pool.fetchval(
        """
        SELECT count(*) FROM billing.accounts a WHERE posted_nano_usd <> (
            SELECT coalesce(sum(amount_nano_usd), 0) FROM billing.entries e WHERE e.account_id = a.account_id)
        """
    )
    total: int = await pool.fetchval("SELECT sum(posted_nano_usd)::bigint FROM billing.accounts")
    return wrong == 0 and total == 0


async def page(session: aiohttp.ClientSession, url: str) -> str:
    """A page, as text."""
    async with session.get(url) as answer:
        return await answer.text()
