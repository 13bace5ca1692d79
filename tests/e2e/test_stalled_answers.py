"""Providers that pause in the middle of an answer: one that pauses too long is ended and the client sees that; one that is slow is not."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from tests.support.faulty_provider import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Exchange,
    FaultyProvider,
    answer_events,
    chunk,
    deliver,
    faulty_provider,
    head,
)
from tests.support.stack import Stack, add_model, add_provider, wait_until_routed

IDLE_TIMEOUT_MS = 1200
UPSTREAM_MODEL = "m"
SHORTER_PAUSE_S = 0.45
LONGER_PAUSE_S = 2.5
HOPS = {"direct": "openai", "translated": "anthropic"}


@dataclass
class Staller:
    """A provider, in front of one that answers well.

    Attributes:
        begins_after_s: when the headers come.
        events_before: the events of a stream that come before it pauses.
        pause_s: between one event and the next from there on; None: for ever.
        closed_s: when its connection was closed while it paused.
    """

    begins_after_s: float = 0.0
    events_before: int = 0
    pause_s: float | None = None
    closed_s: list[float] = field(default_factory=list)

    async def answer(self, exchange: Exchange) -> None:
        """A stream that pauses."""
        await asyncio.sleep(self.begins_after_s)
        events = answer_events(exchange, "Hello")
        await exchange.send(head(200, streamed=True) + b"".join(map(chunk, events[: self.events_before])))
        for event in events[self.events_before :]:
            if self.pause_s is None:
                self.closed_s.append(await exchange.closed())
                return exchange.writer.close()
            await asyncio.sleep(self.pause_s)
            await exchange.send(chunk(event))
        return await exchange.send(chunk(b""))


def body_for(model: str) -> bytes:
    """A request to which nothing has to be added."""
    options, messages = {"include_usage": True}, [{"role": "user", "content": "x"}]
    return json.dumps({"model": model, "stream": True, "stream_options": options, "messages": messages}).encode()


@dataclass
class Bench:
    """Models `stalled-<hop>`, each with a provider that stalls and a good one behind it."""

    stack: Stack
    stallers: dict[str, Staller]
    good: FaultyProvider

    async def ask(self, hop: str) -> tuple[int, bytes, bool, float, asyncpg.Record]:
        """Status, body, whether it ended well, how long it took, and the row."""
        received, is_whole, began_s = b"", True, monotonic()
        async with (
            aiohttp.ClientSession(self.stack.url, headers=self.stack.headers) as session,
            session.post("/v1/chat/completions", data=body_for(f"stalled-{hop}")) as response,
        ):
            try:
                async for piece in response.content.iter_any():
                    received += piece
            except aiohttp.ClientPayloadError:
                is_whole = False
        took_s = monotonic() - began_s
        row = await self.stack.request_row(response.headers["x-request-id"])
        return response.status, received, is_whole, took_s, row


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def providers(stack: Stack) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as running:
        stallers = {hop: Staller() for hop in HOPS}
        good = await running.enter_async_context(faulty_provider(partial(deliver, text="good", streamed=True)))
        await add_provider(stack, "stalled-good", f"{good.address}/v1", "secret-of-good")
        for hop, kind in HOPS.items():
            provider = await running.enter_async_context(faulty_provider(stallers[hop].answer))
            await add_provider(stack, f"stalled-{hop}", f"{provider.address}/v1", f"secret-of-{hop}", kind)
            chain = [(f"stalled-{hop}", UPSTREAM_MODEL), ("stalled-good", UPSTREAM_MODEL)]
            await add_model(stack, f"stalled-{hop}", chain, idle_timeout_ms=IDLE_TIMEOUT_MS)
            await wait_until_routed(stack, f"stalled-{hop}")
        yield Bench(stack, stallers, good)


@pytest.fixture
def bench(providers: Bench) -> Bench:
    providers.good.exchanges.clear()
    for staller in providers.stallers.values():
        staller.begins_after_s, staller.events_before, staller.pause_s = 0.0, 0, None
        staller.closed_s.clear()
    return providers


module = pytest.mark.asyncio(loop_scope="module")
each_hop = pytest.mark.parametrize("hop", HOPS)


@module
@each_hop
async def test_a_stream_that_stalls_is_ended_and_charged_as_an_estimate(bench: Bench, hop: str) -> None:
    staller = bench.stallers[hop]
    # Of messages, the third event is the first that has text.
    staller.events_before = 1 if hop == "direct" else 3
    status, received, is_whole, took_s, row = await bench.ask(hop)
    ended_s = monotonic()
    assert (status, is_whole) == (200, False)
    assert b"Hello" in received
    assert b"[DONE]" not in received
    assert IDLE_TIMEOUT_MS / 1000 - 0.1 < took_s < IDLE_TIMEOUT_MS / 1000 + 3
    assert (row["outcome"], row["provider"], row["attempts"]) == ("estimated", f"stalled-{hop}", 1)
    # A token per 4 bytes of what was sent on, and one per event that came: of messages there was one before the text.
    meters = {"input": -(-len(body_for(UPSTREAM_MODEL)) // 4), "output": 1 if hop == "direct" else 2}
    assert json.loads(row["meters"]) == meters
    assert row["price_nano_usd"] == sum(meters.values())
    [closed_s] = staller.closed_s
    assert closed_s < ended_s
    assert bench.good.exchanges == []


@module
@each_hop
async def test_a_stream_that_stalls_behind_its_headers_is_ended_and_costs_nothing(bench: Bench, hop: str) -> None:
    status, received, is_whole, _, row = await bench.ask(hop)
    assert (status, received, is_whole) == (200, b"", False)
    assert (row["outcome"], row["price_nano_usd"]) == ("released", 0)
    assert len(bench.stallers[hop].closed_s) == 1
    assert bench.good.exchanges == []


@module
@each_hop
async def test_a_stream_that_drips_is_not_ended(bench: Bench, hop: str) -> None:
    bench.stallers[hop].pause_s = SHORTER_PAUSE_S
    status, received, is_whole, took_s, row = await bench.ask(hop)
    assert (status, is_whole) == (200, True)
    assert b"Hello" in received
    assert received.endswith(b"data: [DONE]\n\n")
    assert took_s > IDLE_TIMEOUT_MS / 1000
    assert (row["outcome"], row["price_nano_usd"]) == ("settled", INPUT_TOKENS + OUTPUT_TOKENS)
    assert bench.good.exchanges == []


@module
@each_hop
async def test_a_pause_of_that_length_in_front_of_the_answer_gives_the_attempt_up(bench: Bench, hop: str) -> None:
    """Envoy has one clock for both. Where a route says nothing of pauses it runs as long as an answer may be waited for."""
    staller = bench.stallers[hop]
    staller.begins_after_s = LONGER_PAUSE_S
    status, received, is_whole, _, row = await bench.ask(hop)
    assert (status, is_whole) == (200, True)
    assert b"good" in received
    assert (row["outcome"], row["provider"], row["attempts"]) == ("settled", "stalled-good", 2)
    assert len(bench.good.exchanges) == 1
