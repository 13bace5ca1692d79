"""Clients that go away at every stage of a request: the provider is left at once, and what is charged follows the ledger's rule."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from tests.support.faulty_provider import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Exchange,
    Fault,
    answer_events,
    chunk,
    deliver,
    fail,
    faulty_provider,
    head,
)
from tests.support.stack import Stack, add_model, add_provider, eventually, wait_until_routed

CANCELLED_S: Final = 1.0
"""From when a client has gone until its provider sees it."""
HOPS: Final = {"direct": "openai", "translated": "anthropic"}
DELIVERED: Final = b"Hello"
CLIENTS_IN_A_PAUSE: Final = 20
PAUSE_S_MAX: Final = 0.025
"""Of the pause in front of the second attempt."""


class Stage(StrEnum):
    """When a client goes."""

    WAITING = "waiting"
    """The provider has the request and has not answered."""
    UNARY_WAITING = "unary-waiting"
    HEADERS = "headers"
    """The client has the headers of a stream."""
    UNARY_HALF = "unary-half"
    """The provider has sent the half of an answer that is no stream; the client has nothing of it."""
    STREAMING = "streaming"
    """The client has an event."""
    USAGE = "usage"
    """The client has all but the last event."""

    @property
    def is_unary(self) -> bool:
        """Whether a whole answer is asked for."""
        return self in {Stage.UNARY_WAITING, Stage.UNARY_HALF}


class Payer(StrEnum):
    """How a request is paid for and counted."""

    LEASED = "leased"
    """From a slice, and mostly without a question to ext_authz."""
    LIMITED = "limited"
    """By a key that may have one at once."""
    BUDGETED = "budgeted"
    """By a hold of its own."""


EXPECTED: Final[Mapping[Stage, tuple[str, str]]] = {
    Stage.WAITING: ("released", "none"),
    Stage.UNARY_WAITING: ("released", "none"),
    Stage.HEADERS: ("released", "none"),
    Stage.UNARY_HALF: ("released", "none"),
    Stage.STREAMING: ("estimated", "estimated"),
    Stage.USAGE: ("settled", "provider"),
}
"""Outcome, and whose figures it is charged by."""


@dataclass
class Asked:
    """One request as its provider sees it."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """It is where its client may go."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    closed_s: float | None = None


@dataclass
class Waiting:
    """A provider that goes as far as a request's stage and waits there; and one in front that fails first."""

    asked: dict[str, Asked] = field(default_factory=dict)
    failed: dict[str, asyncio.Event] = field(default_factory=dict)

    async def answer(self, exchange: Exchange) -> None:
        """As far as the text of the request says."""
        text = json.loads(exchange.body)["messages"][0]["content"]
        name, stage = (text if isinstance(text, str) else text[0]["text"]).split()
        if stage == "whole":
            return await deliver(exchange, "whole", streamed=False)
        asked = self.asked.setdefault(name, Asked())
        await self._go_to(exchange, Stage(stage))
        asked.reached.set()
        asked.closed_s = await exchange.closed()
        asked.closed.set()
        return exchange.writer.close()

    async def _go_to(self, exchange: Exchange, stage: Stage) -> None:
        match stage:
            case Stage.WAITING | Stage.UNARY_WAITING:
                return
            case Stage.UNARY_HALF:
                await exchange.send(head(200, streamed=False, length=1000) + b'{"id": "half"')
                # Until Envoy has it.
                await asyncio.sleep(0.1)
            case Stage.HEADERS:
                await exchange.send(head(200, streamed=True))
            case Stage.STREAMING | Stage.USAGE:
                events = answer_events(exchange, DELIVERED.decode())
                until = len(events) - 1 if stage is Stage.USAGE else len(events) // 2
                await exchange.send(head(200, streamed=True) + b"".join(map(chunk, events[:until])))

    async def fail(self, exchange: Exchange) -> None:
        """Answer 500, so that the next one is tried after a pause."""
        name, _ = json.loads(exchange.body)["messages"][0]["content"].split()
        await fail(exchange, Fault.BROKEN)
        self.failed[name].set()


@dataclass
class Client:
    """A connection of its own, which can be left."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, key: str, name: str, model: str, stage: str, *, stream: bool, part: float = 1.0) -> None:
        """A request, or so much of its body."""
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        messages = [{"role": "user", "content": f"{name} {stage}"}]
        body = json.dumps({"model": model, "max_tokens": 50, "messages": messages, **options}).encode()
        lines = (
            "POST /v1/chat/completions HTTP/1.1",
            "host: gateway",
            f"authorization: Bearer {key}",
            f"x-request-id: {name}",
            f"user-agent: {name}",
            f"content-length: {len(body)}",
        )
        self.writer.write("\r\n".join((*lines, "", "")).encode() + body[: int(len(body) * part)])

    def leave(self) -> float:
        """Close the connection."""
        self.writer.close()
        return monotonic()


@dataclass
class Bench:
    """Models `left-direct`, `left-translated` and `left-pause`, and how they are asked."""

    stack: Stack
    provider: Waiting
    keys: Mapping[Payer, str]
    names: "itertools.count[int]" = field(default_factory=itertools.count)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        address = urlsplit(self.stack.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()

    def name(self) -> str:
        """Of a request: its own id, and its user agent."""
        return f"leaver-{next(self.names)}"

    async def row(self, name: str) -> asyncpg.Record:
        """The row of a request, by what the client called it."""

        async def find() -> asyncpg.Record | None:
            async with self.stack.database() as database:
                return await database.fetchrow("SELECT * FROM billing.requests WHERE user_agent = $1", name)

        return await eventually(find)

    async def is_served(self, payer: Payer) -> bool:
        """Whether a request passes that is answered whole."""
        body = {"model": "left-direct", "messages": [{"role": "user", "content": f"{self.name()} whole"}]}
        headers = {"Authorization": f"Bearer {self.keys[payer]}"}
        async with (
            aiohttp.ClientSession(self.stack.url, headers=headers) as session,
            session.post("/v1/chat/completions", json=body) as response,
        ):
            return response.status == 200

    async def assert_nothing_is_open(self) -> None:
        """No hold, no attempt, and books in which all is well."""
        await self.stack.settled()
        active = await self.stack.envoy_stats("^cluster.provider/left-.*upstream_rq_active$")
        assert len(active) >= 3
        assert not any(active.values()), active
        async with self.stack.database() as database:
            held = await database.fetch(
                "SELECT h.request_id FROM billing.holds h JOIN billing.accounts a USING (account_id)"
                " WHERE h.state = 'held' AND a.org_id LIKE 'org_left_%'"
            )
            assert held == []
            assert await database.fetch("SELECT * FROM billing.check_books() WHERE wrong > 0") == []


async def change_key(stack: Stack, name: str, **changes: object) -> None:
    headers = {"Authorization": f"Bearer {stack.endpoints['operator_token']}", "If-Match": "*"}
    url = f"{stack.endpoints['control_plane_url']}/api/v1/orgs/org_{name}/keys/key_{name}"
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:
        async with session.patch(url, json=changes):
            pass

        async def is_known() -> bool:
            async with session.get(f"{url}/propagation") as response:
                return bool((await response.json())["propagated"])

        await eventually(is_known)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(stack: Stack) -> AsyncIterator[Bench]:
    waiting = Waiting()
    keys = {payer: await stack.make_key(f"left_{payer}", balance="10") for payer in Payer}
    await change_key(stack, f"left_{Payer.LIMITED}", concurrency_max=1)
    await change_key(stack, f"left_{Payer.BUDGETED}", budget_per_day_usd="9")
    async with AsyncExitStack() as running:
        provider = await running.enter_async_context(faulty_provider(waiting.answer))
        failing = await running.enter_async_context(faulty_provider(waiting.fail))
        for hop, kind in HOPS.items():
            await add_provider(stack, f"left-{hop}", f"{provider.address}/v1", "secret-of-left", kind)
            await add_model(stack, f"left-{hop}", [(f"left-{hop}", "m")])
        await add_provider(stack, "left-failing", f"{failing.address}/v1", "secret-of-failing")
        await add_model(stack, "left-pause", [("left-failing", "m"), ("left-direct", "m")])
        for model in ("left-direct", "left-translated", "left-pause"):
            await wait_until_routed(stack, model)
        yield Bench(stack, waiting, keys)


module = pytest.mark.asyncio(loop_scope="module")


async def leave_at(bench: Bench, stage: Stage, hop: str, payer: Payer) -> None:
    """One request of which the client goes at a stage, and all that has to be so then."""
    name = bench.name()
    asked = bench.provider.asked[name] = Asked()
    async with bench.client() as client:
        client.send(bench.keys[payer], name, f"left-{hop}", stage, stream=not stage.is_unary)
        async with asyncio.timeout(10):
            await asked.reached.wait()
            if stage in {Stage.HEADERS, Stage.STREAMING, Stage.USAGE}:
                assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            if stage in {Stage.STREAMING, Stage.USAGE}:
                await client.reader.readuntil(b"completion_tokens" if stage is Stage.USAGE else DELIVERED)
            left_s = client.leave()
            await asked.closed.wait()
    assert asked.closed_s is not None
    assert 0 <= asked.closed_s - left_s < CANCELLED_S
    if payer is Payer.LIMITED:
        # Its place is free again.
        await eventually(lambda: bench.is_served(payer), deadline_s=2)
    row = await bench.row(name)
    assert (row["outcome"], row["usage_source"]) == EXPECTED[stage]
    assert (row["provider"], row["attempts"]) == (f"left-{hop}", 1)
    assert "DC" in row["response_flags"]
    assert (row["price_nano_usd"] > 0) is (stage in {Stage.STREAMING, Stage.USAGE})
    if stage is Stage.USAGE:
        assert row["price_nano_usd"] == INPUT_TOKENS + OUTPUT_TOKENS


@module
@pytest.mark.parametrize(
    ("stage", "hop"),
    # Behind the translator the usage comes with the end.
    [(stage, hop) for stage in Stage for hop in HOPS if (stage, hop) != (Stage.USAGE, "translated")],
)
async def test_whoever_goes_while_a_provider_is_at_work_is_gone_there_too(bench: Bench, stage: Stage, hop: str) -> None:
    async with asyncio.TaskGroup() as group:
        for payer in Payer:
            group.create_task(leave_at(bench, stage, hop, payer))
    await bench.assert_nothing_is_open()


@module
@pytest.mark.parametrize("payer", Payer)
async def test_whoever_goes_before_the_body_is_whole_has_asked_nothing(bench: Bench, payer: Payer) -> None:
    name = bench.name()
    async with bench.client() as client:
        client.send(bench.keys[payer], name, "left-direct", Stage.WAITING, stream=True, part=0.5)
        await client.writer.drain()
        await asyncio.sleep(0.2)
        client.leave()
    row = await bench.row(name)
    assert (row["outcome"], row["price_nano_usd"], row["attempts"]) == ("refused", 0, 0)
    assert name not in bench.provider.asked
    assert await bench.is_served(payer)
    await bench.assert_nothing_is_open()


@module
async def test_whoever_goes_while_it_is_decided_has_nothing_held_and_no_provider_hears_of_it(bench: Bench) -> None:
    name, payer = bench.name(), Payer.BUDGETED
    assert await bench.is_served(payer)
    async with bench.stack.database() as database, database.transaction():
        # Its hold waits for this.
        await database.execute("SELECT FROM billing.accounts WHERE org_id = $1 FOR UPDATE", f"org_left_{payer}")
        async with bench.client() as client:
            client.send(bench.keys[payer], name, "left-direct", Stage.WAITING, stream=True)
            await client.writer.drain()
            await asyncio.sleep(0.5)
            client.leave()
        await asyncio.sleep(0.2)
    row = await bench.row(name)
    assert (row["outcome"], row["price_nano_usd"], row["attempts"]) == ("refused", 0, 0)
    assert name not in bench.provider.asked
    await bench.assert_nothing_is_open()
    assert await bench.is_served(payer)


@module
async def test_whoever_goes_in_the_pause_before_the_next_attempt_ends_it(bench: Bench) -> None:
    names = [bench.name() for _ in range(CLIENTS_IN_A_PAUSE)]

    async def leave_in_the_pause(name: str, after_s: float) -> None:
        bench.provider.failed[name] = asyncio.Event()
        async with bench.client() as client:
            client.send(bench.keys[Payer.LEASED], name, "left-pause", Stage.WAITING, stream=True)
            async with asyncio.timeout(10):
                await bench.provider.failed[name].wait()
            await asyncio.sleep(after_s)
            left_s = client.leave()
            await asyncio.sleep(2 * CANCELLED_S)
        # Whether the next one had been asked by then is for chance to say.
        if (asked := bench.provider.asked.get(name)) is not None:
            assert asked.closed_s is not None
            assert asked.closed_s - left_s < CANCELLED_S

    async with asyncio.TaskGroup() as group:
        for number, name in enumerate(names):
            group.create_task(leave_in_the_pause(name, PAUSE_S_MAX * number / len(names)))
    attempts = set()
    for name in names:
        row = await bench.row(name)
        assert (row["outcome"], row["price_nano_usd"]) == ("released", 0)
        # One that has just begun may be over before its provider has read of it.
        assert row["attempts"] == 2 or name not in bench.provider.asked
        attempts.add(row["attempts"])
    assert 1 in attempts
    await bench.assert_nothing_is_open()
