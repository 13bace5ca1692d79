"""Every request gets exactly one outcome, whatever happens to the client, the provider or the sink."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from gateway_core.mode import Mode
from tests.support.stack import Stack, eventually

SEED = 20260101


@pytest.fixture
async def session(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=64)
    async with aiohttp.ClientSession(stack.url, connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as made:
        yield made


async def post(
    stack: Stack, session: aiohttp.ClientSession, text: str, *, leave_after: int | None = None, **fields: object
) -> None:
    """One chat request; the client may leave after that many bytes of the answer (0: as soon as it is sent)."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **fields}
    headers = {**stack.headers, "x-request-id": text.split(maxsplit=1)[0]}
    if leave_after == 0:
        await send_and_leave(stack, json.dumps(body).encode(), headers)
        return
    with suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(60):
            async with session.post("/v1/chat/completions", json=body, headers=headers) as response:
                if leave_after is None:
                    await response.read()
                else:
                    await response.content.read(leave_after)
                    response.close()


async def send_and_leave(stack: Stack, body: bytes, headers: Mapping[str, str]) -> None:
    """A request that has certainly been sent, by a client that does not wait for its answer."""
    host, port = urlsplit(stack.url).hostname, urlsplit(stack.url).port
    _, writer = await asyncio.open_connection(host, port)
    lines = [
        f"{name}: {value}" for name, value in {"host": f"{host}", "content-length": f"{len(body)}", **headers}.items()
    ]
    writer.write("\r\n".join(["POST /v1/chat/completions HTTP/1.1", *lines, "", ""]).encode() + body)
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    await writer.wait_closed()


async def outcomes(stack: Stack, marker: str) -> Counter[tuple[str, str]]:
    """How many recorded requests of this test there are, by id and outcome."""
    async with stack.database() as database:
        rows = await database.fetch(
            "SELECT client_request_id, outcome FROM billing.requests WHERE client_request_id LIKE $1", f"{marker}-%"
        )
    return Counter((row["client_request_id"], row["outcome"]) for row in rows)


@pytest.fixture
async def quarantined_before(stack: Stack) -> int:
    """The newest row of the quarantine before the test; other tests of the run may have put theirs there."""
    async with stack.database() as database:
        newest: int = await database.fetchval("SELECT coalesce(max(quarantine_id), 0) FROM billing.quarantine")
        return newest


async def books_are_coherent(stack: Stack, quarantined_before: int) -> None:
    """Sums of the ledger, once everything is settled; and the test has put nothing into quarantine."""
    await stack.settled()
    async with stack.database() as database:
        assert await database.fetchval("SELECT sum(amount_nano_usd) FROM billing.entries") == 0
        held = await database.fetchval("SELECT sum(held_nano_usd) FROM billing.accounts")
        # What is still held belongs to requests that other tests have sent into quarantine, and to slices.
        assert held == await database.fetchval(
            """
            SELECT (SELECT coalesce(sum(amount_nano_usd), 0) FROM billing.holds WHERE state = 'held')
                 + (SELECT coalesce(sum(open_nano_usd), 0) FROM billing.slices)
            """
        )
        wrong = await database.fetchval(
            """
            SELECT count(*) FROM billing.accounts a
            WHERE posted_nano_usd <> (SELECT coalesce(sum(amount_nano_usd), 0) FROM billing.entries e
                                      WHERE e.account_id = a.account_id)
            """
        )
        assert wrong == 0
        for mode in Mode:
            charged = await database.fetchval(
                "SELECT coalesce(sum(price_nano_usd), 0) FROM billing.requests WHERE mode = $1", mode
            )
            revenue = await database.fetchval(
                "SELECT posted_nano_usd FROM billing.accounts WHERE kind = 'revenue' AND mode = $1", mode
            )
            assert charged == revenue
        quarantined = await database.fetch(
            "SELECT reason FROM billing.quarantine WHERE quarantine_id > $1", quarantined_before
        )
        assert [row["reason"] for row in quarantined] == []


async def test_two_hundred_mixed_requests_have_exactly_two_hundred_outcomes(
    stack: Stack, session: aiohttp.ClientSession, quarantined_before: int
) -> None:
    rng = random.Random(SEED)
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("[[sim output_tokens=20]]", {}),
        ("[[sim output_tokens=20]]", {"stream": True}),
        ("[[sim error=500]]", {}),
        ("[[sim error=429]]", {"stream": True}),
        ("[[sim error=reset]]", {}),
        ("[[sim error=cut]]", {"stream": True}),
        ("[[sim error=no_usage]]", {}),
        ("[[sim output_tokens=40 token_delay_ms=20]]", {"stream": True, "leave_after": 600}),
        ("[[sim latency_ms=2000]]", {"leave_after": 0}),
        ("", {"model": "no-such-model"}),
    ]
    chosen = [kinds[number % len(kinds)] for number in range(200)]
    rng.shuffle(chosen)
    gate = asyncio.Semaphore(24)

    async def send(number: int, text: str, options: dict[str, Any]) -> None:
        async with gate:
            await post(stack, session, f"mixed-{number} {text}", **options)

    await asyncio.gather(*(send(number, *kind) for number, kind in enumerate(chosen)))

    async def all_there() -> bool:
        return len(await outcomes(stack, "mixed")) >= 200

    await eventually(all_there)
    await books_are_coherent(stack, quarantined_before)
    found = await outcomes(stack, "mixed")
    assert len(found) == 200
    assert set(found.values()) == {1}
    by_outcome = Counter(outcome for _, outcome in found)
    # Twenty ask for an unknown model; of the twenty who leave at once, some are gone before they are admitted.
    assert 20 <= by_outcome["refused"] <= 40
    assert by_outcome["settled"] >= 40
    assert by_outcome["estimated"] >= 40
    assert by_outcome["released"] >= 50


async def test_kill_nine_of_the_sink_in_the_middle_of_two_thousand_requests_loses_and_repeats_nothing(
    stack: Stack, session: aiohttp.ClientSession, quarantined_before: int
) -> None:
    rng = random.Random(SEED)
    gate = asyncio.Semaphore(32)
    sent = 0

    async def send(number: int) -> None:
        nonlocal sent
        async with gate:
            await post(
                stack, session, f"killed-{number} [[sim output_tokens=5 latency_ms=150]]", stream=number % 2 == 0
            )
        sent += 1

    async def kill_now_and_then() -> int:
        kills = 0
        while sent < 1800:
            await asyncio.sleep(rng.uniform(0.1, 0.6))
            pids = stack.endpoints["pids"]
            with suppress(ProcessLookupError):
                stack.kill("billing_sink")
                kills += 1

            async def is_back(old: int = pids["billing_sink"]) -> bool:
                return bool(stack.endpoints["pids"]["billing_sink"] != old)

            await eventually(is_back)
        return kills

    killer = asyncio.create_task(kill_now_and_then())
    await asyncio.gather(*(send(number) for number in range(2000)))
    assert await killer >= 2

    async def all_there() -> bool:
        return len(await outcomes(stack, "killed")) >= 2000

    await eventually(all_there, deadline_s=60)
    await books_are_coherent(stack, quarantined_before)
    found = await outcomes(stack, "killed")
    assert len(found) == 2000
    assert set(found.values()) == {1}
    assert {outcome for _, outcome in found} == {"settled"}
    async with stack.database() as database:
        charges = await database.fetchval(
            """
            SELECT count(*) FROM billing.transactions t JOIN billing.requests r USING (request_id)
            WHERE r.client_request_id LIKE 'killed-%'
            """
        )
    assert charges == 2000
    # ClickHouse follows, and has each request once.
    assert await stack.clickhouse_count("client_request_id LIKE 'killed-%'", expected=2000) == 2000
