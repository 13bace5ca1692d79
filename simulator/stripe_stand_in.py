"""A stand-in for Stripe, as much of it as we use: checkout pages, payments, refunds, disputes, and events about them.

It speaks Stripe's HTTP (forms in, JSON out), signs what it delivers as Stripe does, and tells one thing by several events.
Unlike Stripe it delivers before it answers, so whoever has paid, refunded or disputed knows that it was told. Everything is
in memory, the newest of each kind.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from aiohttp import web
from pydantic import SecretStr

from gateway_core.clock import Now
from gateway_core.logs import Logger
from simulator.settings import SimulatorSettings

KEPT_MAX: Final = 1000
ATTEMPTS: Final = 4
RETRY_AFTER_S: Final = 0.2
TIMEOUT_S: Final = 5.0
_OBJECT = dict[str, Any]
_HIDDEN: Final = frozenset({"intent_metadata", "setup_future_usage"})
_DECLINED: Final = "pm_declined"


@dataclass(frozen=True, slots=True)
class _Delivery:
    """Where events go, and what they are signed with."""

    url: str
    secret: SecretStr
    now: Now
    log: Logger

    async def deliver(self, kind: str, found: _OBJECT) -> None:
        """Deliver one event, a few times if it is not taken; then it is given up."""
        event = {
            "id": _new("evt"),
            "object": "event",
            "type": kind,
            "created": self._seconds(),
            "livemode": False,
            "data": {"object": found},
        }
        body = json.dumps(event)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as http:
            for attempt in range(ATTEMPTS):
                try:
                    headers = {"Stripe-Signature": self._signature(body), "Content-Type": "application/json"}
                    async with http.post(self.url, data=body, headers=headers) as answer:
                        if answer.ok:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass  # as an answer that is no 2xx
                await asyncio.sleep(RETRY_AFTER_S * 2**attempt)
        self.log.warning("stripe_event_not_taken", event_id=event["id"], type=kind)

    def _signature(self, body: str) -> str:
        seconds = self._seconds()
        signed = hmac.digest(self.secret.get_secret_value().encode(), f"{seconds}.{body}".encode(), hashlib.sha256)
        return f"t={seconds},v1={signed.hex()}"

    def _seconds(self) -> int:
        return int(self.now().timestamp())


@dataclass(slots=True)
class _Objects:
    """Objects of one kind by their id; a new one pushes the oldest out."""

    by_id: dict[str, _OBJECT] = field(default_factory=dict)

    def add(self, found: _OBJECT) -> _OBJECT:
        self.by_id[found["id"]] = found
        if len(self.by_id) > KEPT_MAX:
            del self.by_id[next(iter(self.by_id))]
        return found

    def find(self, object_id: str) -> _OBJECT:
        if object_id not in self.by_id:
            raise _refusal(HTTPStatus.NOT_FOUND, f"No such object: '{object_id}'", "resource_missing")
        return self.by_id[object_id]


def stand_in(settings: SimulatorSettings, log: Logger, now: Now) -> web.Application | None:
    """The application, to be mounted; None if there is nobody to tell."""
    if settings.simulator_stripe_webhook_url is None or settings.stripe_webhook_secret is None:
        return None
    delivery = _Delivery(settings.simulator_stripe_webhook_url, settings.stripe_webhook_secret, now, log)
    return StripeStandIn(delivery).application()


class StripeStandIn:
    """The accounts of one pretended merchant."""

    def __init__(self, delivery: _Delivery) -> None:
        self._delivery = delivery
        self._sessions = _Objects()
        self._intents = _Objects()
        self._charges = _Objects()
        self._disputes = _Objects()
        self._answered = _Objects()

    def application(self) -> web.Application:
        """Its routes: first Stripe's, then what people and banks do elsewhere."""
        app = web.Application()
        app.add_routes(
            [
                web.post("/v1/checkout/sessions", self.create_session),
                web.get("/v1/checkout/sessions/{id}", self.get_session),
                web.post("/v1/payment_intents", self.create_intent),
                web.post("/v1/refunds", self.create_refund),
                web.get("/pay/{id}", self.show_page),
                web.post("/pay/{id}", self.pay),
                web.post("/disputes", self.open_dispute),
                web.post("/disputes/{id}/close", self.close_dispute),
            ]
        )
        return app

    async def create_session(self, request: web.Request) -> web.Response:
        """`POST /v1/checkout/sessions`."""
        form = await _form(request)
        price = "line_items[0][price_data]"
        url = request.url.with_query(None)
        session_id = _new("cs_test")
        session = {
            "id": session_id,
            "object": "checkout.session",
            "mode": "payment",
            "status": "open",
            "payment_status": "unpaid",
            "payment_intent": None,
            "amount_total": _number(form, f"{price}[unit_amount]"),
            "currency": form.get(f"{price}[currency]", "usd"),
            "client_reference_id": form.get("client_reference_id"),
            "metadata": _metadata(form, "metadata"),
            "success_url": form.get("success_url", ""),
            "livemode": False,
            "url": str(url.with_path(f"/stripe/pay/{session_id}")),
        }
        hidden = {
            "intent_metadata": _metadata(form, "payment_intent_data[metadata]"),
            "setup_future_usage": form.get("payment_intent_data[setup_future_usage]"),
        }
        self._sessions.add({**session, **hidden})
        return web.json_response(session)

    async def get_session(self, request: web.Request) -> web.Response:
        """`GET /v1/checkout/sessions/{id}`."""
        return web.json_response(_public(self._sessions.find(request.match_info["id"])))

    async def show_page(self, request: web.Request) -> web.Response:
        """The page with a button."""
        session = self._sessions.find(request.match_info["id"])
        amount = f"{session['amount_total'] / 100:.2f} {session['currency'].upper()}"
        text = f"<!doctype html><title>Pay</title><form method=post><button>Pay {escape(amount)}</button></form>"
        return web.Response(text=text, content_type="text/html")

    async def pay(self, request: web.Request) -> web.Response:
        """The button: pays, tells, and sends the browser back."""
        session = self._sessions.find(request.match_info["id"])
        if session["status"] == "open":
            intent = self._charge(session["amount_total"], session["currency"], session["intent_metadata"])
            if session["setup_future_usage"] is not None:
                card = (await request.post()).get("card")
                intent.update(
                    setup_future_usage=session["setup_future_usage"],
                    customer=_new("cus"),
                    payment_method=_new(_DECLINED if card == "declined_later" else "pm"),
                )
            session.update(status="complete", payment_status="paid", payment_intent=intent["id"])
            await self._delivery.deliver("payment_intent.succeeded", intent)
            await self._delivery.deliver("checkout.session.completed", _public(session))
        return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": session["success_url"]})

    async def create_intent(self, request: web.Request) -> web.Response:
        """`POST /v1/payment_intents`, confirmed at once with a payment method that was saved."""
        form = await _form(request)
        key = request.headers.get("Idempotency-Key", _new("key"))
        if key in self._answered.by_id:
            return web.json_response(self._answered.by_id[key]["answer"])
        if form.get("payment_method", "").startswith(_DECLINED):
            raise _refusal(HTTPStatus.PAYMENT_REQUIRED, "Your card was declined.", "card_declined")
        intent = self._charge(_number(form, "amount"), form.get("currency", "usd"), _metadata(form, "metadata"))
        self._answered.add({"id": key, "answer": intent})
        await self._delivery.deliver("payment_intent.succeeded", intent)
        return web.json_response(intent)

    async def create_refund(self, request: web.Request) -> web.Response:
        """`POST /v1/refunds`, of all that is left or of an amount."""
        form = await _form(request)
        intent = self._intents.find(form.get("payment_intent", ""))
        charge = self._charges.find(intent["latest_charge"])
        left = charge["amount"] - charge["amount_refunded"]
        amount = _number(form, "amount") if "amount" in form else left
        if not 0 < amount <= left:
            raise _refusal(
                HTTPStatus.BAD_REQUEST, "Refund amount is greater than unrefunded amount", "amount_too_large"
            )
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        await self._delivery.deliver("charge.refunded", charge)
        return web.json_response(
            {"id": _new("re"), "object": "refund", "amount": amount, "charge": charge["id"], "status": "succeeded"}
        )

    async def open_dispute(self, request: web.Request) -> web.Response:
        """What a bank does: takes back a payment, or an amount of it."""
        form = await _form(request)
        intent = self._intents.find(form.get("payment_intent", ""))
        dispute = self._disputes.add(
            {
                "id": _new("du"),
                "object": "dispute",
                "amount": _number(form, "amount") if "amount" in form else intent["amount"],
                "currency": intent["currency"],
                "charge": intent["latest_charge"],
                "payment_intent": intent["id"],
                "reason": "fraudulent",
                "status": "needs_response",
            }
        )
        await self._delivery.deliver("charge.dispute.created", dispute)
        return web.json_response(dispute)

    async def close_dispute(self, request: web.Request) -> web.Response:
        """What a bank decides: `won` or `lost`."""
        dispute = self._disputes.find(request.match_info["id"])
        status = (await _form(request)).get("status", "")
        if status not in {"won", "lost"}:
            raise _refusal(HTTPStatus.BAD_REQUEST, "status is won or lost", "parameter_invalid")
        dispute["status"] = status
        await self._delivery.deliver("charge.dispute.closed", dispute)
        return web.json_response(dispute)

    def _charge(self, amount: int, currency: str, metadata: Mapping[str, str]) -> _OBJECT:
        intent_id, charge_id = _new("pi"), _new("ch")
        shared = {"amount": amount, "currency": currency, "metadata": dict(metadata), "livemode": False}
        self._charges.add(
            {
                **shared,
                "id": charge_id,
                "object": "charge",
                "payment_intent": intent_id,
                "amount_refunded": 0,
                "refunded": False,
                "paid": True,
                "status": "succeeded",
            }
        )
        return self._intents.add(
            {
                **shared,
                "id": intent_id,
                "object": "payment_intent",
                "amount_received": amount,
                "latest_charge": charge_id,
                "status": "succeeded",
            }
        )


def _new(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def _public(session: _OBJECT) -> _OBJECT:
    return {name: value for name, value in session.items() if name not in _HIDDEN}


async def _form(request: web.Request) -> dict[str, str]:
    if request.path.startswith("/stripe/v1/") and not request.headers.get("Authorization", "").startswith("Bearer sk_"):
        raise _refusal(HTTPStatus.UNAUTHORIZED, "You did not provide an API key.", None)
    return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}


def _number(form: Mapping[str, str], name: str) -> int:
    text = form.get(name, "")
    if not text.isdecimal():
        raise _refusal(HTTPStatus.BAD_REQUEST, f"Invalid integer: {name}", "parameter_invalid_integer")
    return int(text)


def _metadata(form: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {
        name.removeprefix(f"{prefix}[").removesuffix("]"): value
        for name, value in form.items()
        if name.startswith(f"{prefix}[")
    }


def _refusal(status: HTTPStatus, message: str, code: str | None) -> web.HTTPException:
    kind = "card_error" if status is HTTPStatus.PAYMENT_REQUIRED else "invalid_request_error"
    error = {"error": {"type": kind, "message": message, "code": code}}
    kinds = {
        HTTPStatus.NOT_FOUND: web.HTTPNotFound,
        HTTPStatus.UNAUTHORIZED: web.HTTPUnauthorized,
        HTTPStatus.PAYMENT_REQUIRED: web.HTTPPaymentRequired,
        HTTPStatus.BAD_REQUEST: web.HTTPBadRequest,
    }
    return kinds[status](text=json.dumps(error), content_type="application/json")
