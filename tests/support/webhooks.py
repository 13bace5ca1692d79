"""A receiver of webhooks that verifies for itself what it gets, and what delivers to it."""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractResolver
from prometheus_client import CollectorRegistry

from control_plane.sealing import Seal
from control_plane.webhooks.delivery import ATTEMPTS_AT_ONCE, WebhookDelivery
from control_plane.webhooks.outgoing import OwnThreads, webhook_http
from gateway_core.health import serving
from tests.support.api import KEY, Account, Api
from tests.support.logs import QUIET


@dataclass(frozen=True)
class Received:
    """One request, as it came."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def signed_with(self, secret: str) -> bool:
        """Whether one of its signatures is of this secret; by the words of the specification, not by our code."""
        key = base64.b64decode(secret.split("_", 1)[1], validate=True)
        content = b".".join([self.id.encode(), self.headers["webhook-timestamp"].encode(), self.body])
        expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        versions = [each.split(",", 1) for each in self.headers["webhook-signature"].split(" ")]
        assert all(version == "v1" for version, _ in versions)
        return expected in [signature for _, signature in versions]


@dataclass
class Receiver:
    """Answers as the test says: with a status, or not at all."""

    url: str = ""
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    hangs: bool = False
    body: bytes = b""

    @property
    def types(self) -> list[str]:
        return [each.document["type"] for each in self.received]

    async def take(self, request: web.Request) -> web.Response:
        self.received.append(Received(request.headers.copy(), await request.read()))
        if self.hangs:
            await asyncio.Event().wait()
        return web.Response(status=self.status, headers=self.headers, body=self.body)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a port of its own until the block ends."""
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/{path:.*}", receiver.take)
    async with serving(app, "127.0.0.1", 0, drain_s=0.1, handler_cancellation=True) as (host, port):
        receiver.url = f"http://{host}:{port}/hook"
        yield receiver


@dataclass(frozen=True)
class Carrier:
    """A control plane's delivery, to be asked to deliver."""

    delivery: WebhookDelivery
    http: aiohttp.ClientSession
    registry: CollectorRegistry

    async def carry(self) -> int:
        """Make every attempt that is due; returns how many that were."""
        made = 0
        while taken := await self.delivery.take(ATTEMPTS_AT_ONCE):
            await asyncio.gather(*map(self.delivery.attempt, taken))
            made += len(taken)
        return made

    def counted(self, outcome: str) -> float:
        name = "tollgate_control_plane_webhook_deliveries_total"
        return self.registry.get_sample_value(name, {"outcome": outcome}) or 0


@asynccontextmanager
async def carrying(
    api: Api, *, private_allowed: bool = True, resolver: Callable[[], AbstractResolver] = OwnThreads
) -> AsyncIterator[Carrier]:
    """What delivers, on the database and the clock of an API."""
    registry = CollectorRegistry()
    async with webhook_http(private_allowed=private_allowed, resolver=resolver) as http:
        delivery = WebhookDelivery(
            *(api.pool, http, Seal(KEY, secrets.token_bytes), api.mailbox, "http://gateway.test", registry, QUIET),
            now=api.clock.now,
            random_bytes=secrets.token_bytes,
        )
        yield Carrier(delivery, http, registry)


async def hook(owner: Account, url: str, **changes: Any) -> dict[str, Any]:
    """A new webhook of an organisation, with its secret."""
    made = await owner.api.post(f"{owner.org}/webhooks", {"url": url, **changes})
    assert made.status == 201, made.text
    return dict(made.document)


async def deliveries(owner: Account, webhook: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a webhook was told, oldest first."""
    listed = await owner.api.get(f"{owner.org}/webhooks/{webhook['id']}/deliveries")
    assert listed.status == 200, listed.text
    return list(reversed(listed["data"]))


async def give(api: Api, owner: Account, amount: str = "1.00") -> None:
    """A credit: something that is told."""
    operator = api.as_(await api.operator_token())
    body = {"amount": amount, "currency": "USD", "reason": "gift"}
    assert (await operator.post(f"{owner.org}/credits", body)).status == 201
