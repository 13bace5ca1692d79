"""`/webhooks/stripe`: what Stripe tells. No caller of ours: it is believed for its signature, over the bytes as they came.

Stripe sends an event again until it gets a 2xx. So 200 means "kept": posted, noted, known or quarantined; 400 that it is not
Stripe's; 503 that it is to come again.
"""

from typing import Final

import asyncpg
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter
from pydantic import SecretStr
from stripe import SignatureVerificationError, WebhookSignature

from control_plane.api.operation import BODY_BYTES_MAX
from control_plane.api.reading import read_raw_body
from control_plane.errors import BodyTooSlowError
from control_plane.payments.postgres_stripe_events import Outcome, take_event
from control_plane.payments.stripe_events import StripeEvent, UnreadableEventError
from control_plane.payments.stripe_payments import RETURN_PATH
from gateway_core.logs import Logger

PATH: Final = "/webhooks/stripe"
TOLERANCE_S: Final = 300
"""How old a signature may be: Stripe signs every delivery anew."""

_REFUSED: Final = "refused"
_PAGE: Final = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Tollgate</title>"
    "<h1>Back from the payment</h1><p>What was paid is in the balance within seconds. You can close this page.</p>"
)


class StripeWebhook:
    """The endpoint. Without a secret it takes nothing."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        secret: SecretStr | None,
        registry: CollectorRegistry,
        log: Logger,
        *,
        body_s: float,
    ) -> None:
        self._pool = pool
        self._secret = secret
        self._body_s = body_s
        self._log = log
        self._events = Counter(
            "tollgate_control_plane_stripe_events",
            "Events from Stripe. Look at each that is quarantined: money may have moved that is in no balance.",
            ["outcome"],
            registry=registry,
        )
        for outcome in (*Outcome, _REFUSED):
            self._events.labels(outcome)

    def routes(self) -> list[web.RouteDef]:
        """The endpoint, and the page for browsers that come back from paying."""
        return [web.post(PATH, self.receive), web.get(RETURN_PATH, _show_return)]

    async def receive(self, request: web.Request) -> web.Response:
        """Take in one delivery."""
        if self._secret is None:
            return web.Response(status=503, text="No secret for this webhook is set.\n")
        try:
            raw = await read_raw_body(request, bytes_max=BODY_BYTES_MAX, within_s=self._body_s)
        except BodyTooSlowError:
            return web.Response(status=408, text="Too slow.\n")
        except web.HTTPRequestEntityTooLarge:
            return web.Response(status=413, text="Too large.\n")
        if not self._is_signed(raw, request.headers.get("Stripe-Signature"), self._secret):
            self._events.labels(_REFUSED).inc()
            return web.Response(status=400, text="Not signed with this webhook's secret, or too long ago.\n")
        try:
            event = StripeEvent.read(raw)
        except UnreadableEventError:
            self._events.labels(_REFUSED).inc()
            self._log.error("stripe_event_unreadable")
            return web.Response(status=400, text="Not an event.\n")
        taken = await take_event(self._pool, event, raw)
        self._events.labels(taken.outcome).inc()
        if taken.outcome is Outcome.QUARANTINED:
            self._log.error("stripe_event_quarantined", event_id=event.id, type=event.type, reason=taken.reason)
        else:
            self._log.info("stripe_event_taken", event_id=event.id, type=event.type, outcome=taken.outcome)
        return web.json_response({"received": True})

    @staticmethod
    def _is_signed(raw: bytes, header: str | None, secret: SecretStr) -> bool:
        try:
            WebhookSignature.verify_header(raw, header, secret.get_secret_value(), TOLERANCE_S)
        except (SignatureVerificationError, ValueError, TypeError):  # the latter two for bytes that are no text
            return False
        return True


async def _show_return(_request: web.Request) -> web.Response:
    return web.Response(text=_PAGE, content_type="text/html", headers={"Content-Security-Policy": "default-src 'none'"})
