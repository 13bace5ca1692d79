"""The HTTP server of our services, as far as strangers try to exhaust it."""

import asyncio

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from gateway_core import health
from gateway_core.health import always_ready, health_routes, serving


async def test_connections_beyond_the_limit_are_hung_up_on_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "CONNECTIONS_MAX", 3)
    app = web.Application()
    app.add_routes(health_routes(always_ready, CollectorRegistry()))
    async with serving(app, "127.0.0.1", 0) as (host, port), aiohttp.ClientSession() as session:
        url = f"http://{host}:{port}/livez"
        async with session.get(url) as answer:
            assert answer.status == 200
        idle = [await asyncio.open_connection(host, port) for _ in range(2)]
        reader, writer = await asyncio.open_connection(host, port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        async with session.get(url) as answer:  # on the connection that was there before
            assert answer.status == 200
        for _, idle_writer in idle:
            idle_writer.close()
            await idle_writer.wait_closed()
        await asyncio.sleep(0.1)
        async with aiohttp.ClientSession() as other, other.get(url) as answer:
            assert answer.status == 200
