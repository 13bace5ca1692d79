"""Somebody pays: a checkout page of the local stack's stand-in for Stripe, its button, and a request that is paid with it.

A system of theirs hears of it.
"""

import asyncio
import secrets

import aiohttp

from tests.support.stack import Stack
from tests.support.webhooks import receiving

PASSWORD = "correct horse battery"


async def test_who_pays_at_the_checkout_page_can_spend_it_at_once(stack: Stack) -> None:
    async with receiving() as receiver, aiohttp.ClientSession(stack.endpoints["control_plane_url"]) as session:

        async def post(path: str, body: object, token: str = "") -> dict[str, str]:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with session.post(f"/api/v1{path}", json=body, headers=headers) as answer:
                assert answer.ok, await answer.text()
                return dict(await answer.json())

        email = f"payer-{secrets.token_hex(4)}@example.com"
        await post("/auth/register", {"email": email, "password": PASSWORD, "organization": "Payers"})
        token = (await post("/auth/login", {"email": email, "password": PASSWORD}))["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        async with session.get("/api/v1/orgs", headers=bearer) as answer:
            [org] = (await answer.json())["data"]
        key = (await post(f"/orgs/{org['id']}/keys", {"name": "paid"}, token))["key"]

        hook = await post(f"/orgs/{org['id']}/webhooks", {"url": receiver.url}, token)
        made = await post(f"/orgs/{org['id']}/topups", {"amount": "10", "currency": "USD"}, token)
        # As a browser does it, to the page it is sent back to.
        async with session.post(made["checkout_url"]) as answer:
            assert answer.status == 200
            assert answer.url.path == "/topped-up"
        async with session.get(f"/api/v1/orgs/{org['id']}/balance", headers=bearer) as answer:
            assert (await answer.json())["available"] == "10.00"
        chat = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
        async with session.post(
            f"{stack.url}/v1/chat/completions", json=chat, headers={"Authorization": f"Bearer {key}"}
        ) as answer:
            assert answer.status == 200
        async with asyncio.timeout(10):
            while not receiver.received:  # noqa: ASYNC110 - it is somebody else's process that sends
                await asyncio.sleep(0.05)
        [told] = receiver.received
        assert told.signed_with(hook["secret"])
        assert (told.document["type"], told.document["data"]["id"]) == ("topup.paid", made["id"])
