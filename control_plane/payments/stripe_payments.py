"""Stripe, as we ask it for payments. What becomes of them it tells by webhook (`stripe_webhook`)."""

from dataclasses import dataclass
from typing import Final

import aiohttp
from pydantic import SecretStr
from stripe import AIOHTTPClient, CardError, StripeClient, StripeError
from stripe.params.checkout import SessionCreateParamsPaymentIntentData

from control_plane.errors import PaymentsUnavailableError
from control_plane.payments.model import CURRENCY_AT_STRIPE
from control_plane.payments.stripe_events import TOPUP_ID, PaymentMethod
from gateway_core.logs import Logger

TIMEOUT_S: Final = 10.0
RETRIES: Final = 1
RETURN_PATH: Final = "/topped-up"
"""Where a browser is sent when it has paid, or has not."""
_PRODUCT: Final = "Credit for the AI gateway"
_ORG_ID: Final = "org_id"


@dataclass(frozen=True, slots=True)
class Checkout:
    """A page at Stripe where something is paid."""

    topup_id: str
    session_id: str
    url: str


class DeclinedError(Exception):
    """The bank does not pay, or wants its customer to be asked. The text is Stripe's word for why."""


class StripePayments:
    """Makes payments at Stripe. One instance for the process; it uses the session and does not own it.

    Args:
        secret_key: Stripe's, `sk_...`.
        api_base: where Stripe is, without a slash at the end; None for Stripe's own address.
        public_url: where browsers come back to.
    """

    def __init__(
        self, secret_key: SecretStr, api_base: str | None, public_url: str, http: aiohttp.ClientSession, log: Logger
    ) -> None:
        self._client = StripeClient(
            secret_key.get_secret_value(),
            base_addresses={} if api_base is None else {"api": api_base},
            http_client=AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), session=http),
            max_network_retries=RETRIES,
        )
        self._public_url = public_url
        self._log = log

    async def begin_checkout(self, topup_id: str, org_id: str, cents: int, *, save_payment_method: bool) -> Checkout:
        """A new page for one payment.

        Raises:
            PaymentsUnavailableError: Stripe cannot be reached, or refuses; the log says why.
        """
        # On both: each kind of event has the metadata of its own object.
        metadata = {TOPUP_ID: topup_id, _ORG_ID: org_id}
        intent: SessionCreateParamsPaymentIntentData = {"metadata": metadata}
        if save_payment_method:
            intent["setup_future_usage"] = "off_session"
        try:
            session = await self._client.v1.checkout.sessions.create_async(
                {
                    "mode": "payment",
                    "customer_creation": "always" if save_payment_method else "if_required",
                    "client_reference_id": topup_id,
                    "line_items": [
                        {
                            "quantity": 1,
                            "price_data": {
                                "currency": CURRENCY_AT_STRIPE,
                                "unit_amount": cents,
                                "product_data": {"name": _PRODUCT},
                            },
                        }
                    ],
                    # The amount is charged in the currency it was asked for in, or the two could not be compared.
                    "adaptive_pricing": {"enabled": False},
                    "metadata": metadata,
                    "payment_intent_data": intent,
                    "success_url": f"{self._public_url}{RETURN_PATH}",
                    "cancel_url": f"{self._public_url}{RETURN_PATH}?cancelled=1",
                }
            )
        except StripeError as error:
            self._log.warning("stripe_unavailable", error=type(error).__name__, code=error.code)
            raise PaymentsUnavailableError from error
        if session.url is None:
            raise PaymentsUnavailableError
        return Checkout(topup_id, session.id, session.url)

    async def charge(self, topup_id: str, org_id: str, cents: int, method: PaymentMethod) -> None:
        """Pay a top-up while nobody is there. Asked again about the same top-up within a day, nothing is charged again.

        Raises:
            DeclinedError: it is not paid and will not be.
            PaymentsUnavailableError: it is not known whether it is paid; ask again.
        """
        try:
            intent = await self._client.v1.payment_intents.create_async(
                {
                    "amount": cents,
                    "currency": CURRENCY_AT_STRIPE,
                    "customer": method.customer,
                    "payment_method": method.payment_method,
                    "confirm": True,
                    "off_session": True,
                    "metadata": {TOPUP_ID: topup_id, _ORG_ID: org_id},
                },
                {"idempotency_key": topup_id},
            )
        except CardError as error:
            raise DeclinedError(error.code or "card_declined") from error
        except StripeError as error:
            self._log.warning("stripe_unavailable", error=type(error).__name__, code=error.code)
            raise PaymentsUnavailableError from error
        if intent.status not in {"succeeded", "processing"}:
            raise DeclinedError(intent.status)
