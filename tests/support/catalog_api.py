"""Shorthand for the catalogue's API: bodies that are valid, and a whole model from provider to route."""

from typing import Any

import asyncpg

from tests.support.api import Api, Reply

PROVIDER: dict[str, Any] = {"kind": "openai", "base_url": "https://api.example.com/v1"}
MODEL: dict[str, Any] = {"owned_by": "example", "context_tokens": 1000, "max_output_tokens": 100}


async def put(api: Api, path: str, body: dict[str, Any], *, etag: object = None) -> Reply:
    """A PUT; with `etag` it replaces, without it creates."""
    headers = {} if etag is None else {"If-Match": "*" if etag == "*" else f'"{etag}"'}
    return await api.call("PUT", path, body, headers=headers)


async def delete(api: Api, path: str, *, etag: object = "*") -> Reply:
    """A DELETE of what is there, or of one revision of it."""
    return await api.call("DELETE", path, headers={"If-Match": "*" if etag == "*" else f'"{etag}"'})


async def add_price(pool: asyncpg.Pool, model: str, provider: str) -> None:
    """A price for a deployment."""
    await pool.execute("INSERT INTO catalog.prices VALUES ($1, $2, 0, 'input', 1, 1)", model, provider)


async def serve(api: Api, model: str, provider: str = "one") -> Reply:
    """Provider, model, deployment, price and route, those that are missing; the answer about the route."""
    if (await api.get(f"/providers/{provider}")).status == 404:
        assert (await put(api, f"/providers/{provider}", PROVIDER)).status == 202
    assert (await put(api, f"/models/{model}", MODEL)).status == 202
    assert (await put(api, f"/deployments/{model}/{provider}", {"upstream_model": "up"})).status == 202
    await add_price(api.pool, model, provider)
    return await put(api, f"/routes/{model}", {"match": model, "groups": [[{"provider": provider}]]})
