"""Every way to fail, at every place of a chain, in both dialects: what each provider got, what the client saw, what was charged.

All cases are asked at once, and looked at one by one.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from io import BytesIO
from itertools import product
from typing import Any

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from local_stack.ports import free_port
from tests.support.faulty_provider import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Exchange,
    Fault,
    FaultyProvider,
    deliver,
    fail,
    faulty_provider,
)
from tests.support.stack import Stack, add_model, add_provider, wait_until_routed

GROUPS = 3
AT_ONCE = 16
FIRST_BYTE_TIMEOUT_MS = 1500
"""Where a provider keeps silent; long enough for one that does not, on a busy machine."""
LARGE = 20_000_000


class Place(StrEnum):
    """Which providers of the chain fail in the way of the case. Those in front of one answer 503."""

    FIRST = "first"
    MIDDLE = "middle"
    LAST = "last"
    ALL = "all"


class Chain(StrEnum):
    """Chat at providers of chat, or at providers of messages beside one of chat."""

    CHAT = "chat"
    CROSSED = "crossed"


@dataclass(frozen=True, slots=True)
class Case:
    """One request."""

    chain: Chain
    fault: Fault
    place: Place
    streamed: bool
    text_bytes: int = 10

    def __str__(self) -> str:
        size = "-large" if self.text_bytes == LARGE else ""
        return f"{self.chain}-{self.fault}-{self.place}-{'stream' if self.streamed else 'unary'}{size}"

    def fault_at(self, position: int) -> Fault | None:
        """How the provider at a position fails."""
        if self.place is Place.ALL:
            return self.fault
        failing = list(Place).index(self.place)
        if position == failing:
            return self.fault
        return Fault.UNAVAILABLE if position < failing else None

    def is_last_word(self, position: int) -> bool:
        """Whether nothing is tried behind a position: it delivers, or Envoy has seen the headers of an answer that it keeps nothing of.

        Behind the translator an answer that is no stream is kept until it is whole.
        """
        fault, is_kept = self.fault_at(position), kind_at(self.chain, position) == "anthropic" and not self.streamed
        return fault is None or (fault is Fault.CUT and not is_kept)

    @property
    def tried(self) -> Sequence[int]:
        """The positions that are asked."""
        ends = [position for position in range(GROUPS) if self.is_last_word(position)]
        return range((ends[0] if ends else GROUPS - 1) + 1)

    @property
    def delivering(self) -> int | None:
        """The position that answers well."""
        last = self.tried[-1]
        return last if self.fault_at(last) is None else None

    @property
    def model(self) -> str:
        """The one whose chain has a closed port where the case wants one, or little patience."""
        if self.fault is Fault.REFUSED:
            return f"matrix-{self.chain}-shut-{self.place}"
        return f"matrix-{self.chain}-{'hasty' if self.fault is Fault.SILENT else 'open'}"

    def provider(self, position: int) -> str:
        """The name of the provider at a position."""
        shut = "shut-" if self.fault_at(position) is Fault.REFUSED else ""
        return f"matrix-{self.chain}-{shut}{position}"

    @property
    def body(self) -> bytes:
        """What the client sends; nothing has to be added to it."""
        fields = {
            "messages": [{"role": "user", "content": f"case={self} " + "x" * self.text_bytes}],
            "max_tokens": 50,
            **({"stream": True, "stream_options": {"include_usage": True}} if self.streamed else {}),
        }
        return f'{{ "model" : "{self.model}", '.encode() + json.dumps(fields).encode()[1:]


SMALL = [Case(*values) for values in product(Chain, Fault, Place, (False, True))]
# One after the other, since each is held several times.
LARGE_CASES = [
    Case(chain, fault, place, streamed, LARGE)
    for chain, fault, place, streamed in (
        (Chain.CHAT, Fault.BROKEN, Place.MIDDLE, False),
        (Chain.CHAT, Fault.RATE_LIMITED, Place.FIRST, True),
        (Chain.CHAT, Fault.RESET, Place.MIDDLE, True),
        (Chain.CHAT, Fault.REFUSED, Place.FIRST, False),
        (Chain.CROSSED, Fault.OVERLOADED, Place.FIRST, False),
        (Chain.CROSSED, Fault.RESET, Place.MIDDLE, True),
    )
]
CASES = {str(case): case for case in (*SMALL, *LARGE_CASES)}


def kind_at(chain: Chain, position: int) -> str:
    return "anthropic" if chain is Chain.CROSSED and position != 1 else "openai"


ANSWERED = {
    Fault.REFUSED: (503, "provider_unavailable"),
    Fault.RESET: (503, "provider_unavailable"),
    Fault.CUT: (502, "provider_unavailable"),
    Fault.SILENT: (504, "provider_timeout"),
    Fault.MALFORMED: (502, "provider_unavailable"),
}
"""Status and code, where no provider has a word of its own to pass on."""

TOLD = {
    Fault.REFUSED: (None, "no connection to the provider", "0.00"),
    # It was sent, so the provider may have worked on it.
    Fault.RESET: (None, "the provider closed the connection", None),
    Fault.CUT: (None, "the provider broke the protocol", None),
    Fault.SILENT: (None, "no answer in the time for one attempt", None),
    Fault.MALFORMED: (None, "the provider broke the protocol", None),
}
"""Status, why the next one was tried and what it cost, of an attempt that was not answered with a status."""


def secret_of(provider: str) -> str:
    return f"secret-of-{provider}"


def upstream_model(provider: str) -> str:
    return f"model-of-{provider}"


def configured_at(position: int) -> Mapping[str, str]:
    """The headers that a provider is configured with: one of a name of its own, and but for the last, one of a name that others have too."""
    shared = {"x-shared": f"of-{position}"} if position < GROUPS - 1 else {}
    return {f"x-of-{position}": "kept from others", **shared}


def price_at(position: int) -> int:
    """In nano-USD a token: another one at each, and the same where the port is closed."""
    return position + 2


def case_of(exchange: Exchange) -> Case:
    found = re.search(rb"case=([a-z0-9-]+) ", exchange.body)
    assert found
    return CASES[found[1].decode()]


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of one case.

    Attributes:
        status: None where the client got no headers.
        received: for each position, what was asked there.
        row: of the ledger.
        charges: kind and amount of each transaction.
        shown: the request as operators see it.
    """

    status: int | None
    body: bytes
    is_whole: bool
    received: Sequence[Sequence[Exchange]]
    row: asyncpg.Record
    charges: Sequence[tuple[str, int]]
    shown: Mapping[str, Any]


async def act(position: int, exchange: Exchange) -> None:
    """What a provider does."""
    case = case_of(exchange)
    fault = case.fault_at(position)
    if fault is None:
        await deliver(exchange, f"answer-of-{position}", streamed=case.streamed)
    else:
        await fail(exchange, fault)


async def make_chain(stack: Stack, running: AsyncExitStack, chain: Chain) -> list[FaultyProvider]:
    """The providers of a chain, and its models."""
    providers = [
        await running.enter_async_context(faulty_provider(partial(act, position))) for position in range(GROUPS)
    ]
    names, shut = [f"matrix-{chain}-{n}" for n in range(GROUPS)], [f"matrix-{chain}-shut-{n}" for n in range(GROUPS)]
    for position in range(GROUPS):
        address, kind = providers[position].address, kind_at(chain, position)
        await add_provider(stack, names[position], f"{address}/v1", secret_of(names[position]), kind)
        closed = f"http://127.0.0.1:{free_port()}/v1"
        await add_provider(stack, shut[position], closed, secret_of(shut[position]), kind)
        async with stack.database() as database:
            await database.execute(
                "UPDATE catalog.providers SET headers = $2 WHERE name = ANY ($1)",
                *([names[position], shut[position]], json.dumps(configured_at(position))),
            )
    models = {f"matrix-{chain}-open": names, f"matrix-{chain}-hasty": names}
    for place in Place:
        case = Case(chain, Fault.REFUSED, place, streamed=False)
        models[case.model] = [case.provider(position) for position in range(GROUPS)]
    for model, used in models.items():
        await add_model(
            stack,
            model,
            [(name, upstream_model(name)) for name in used],
            nano_usd_per_mtok={name: price_at(position) * 1_000_000 for position, name in enumerate(used)},
            first_byte_timeout_ms=FIRST_BYTE_TIMEOUT_MS if model.endswith("hasty") else None,
        )
    for model in models:
        await wait_until_routed(stack, model)
    return providers


async def ask(session: aiohttp.ClientSession, case: Case) -> tuple[int | None, bytes, bool]:
    """Status, body and whether it came whole."""
    status, body = None, b""
    headers = {
        "x-request-id": str(case),
        "content-type": "application/json",
        "x-shared": "a client's",
        "x-own": "a client's",
    }
    try:
        async with session.post("/v1/chat/completions", data=BytesIO(case.body), headers=headers) as response:
            status = response.status
            async for piece in response.content.iter_any():
                body += piece
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
        return status, body, False
    return status, body, True


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(stack: Stack) -> AsyncIterator[Mapping[Case, Seen]]:
    """Ask every case, and look at what there is about it once everything is in the ledger."""
    places = asyncio.Semaphore(AT_ONCE)
    operator = {"Authorization": f"Bearer {stack.endpoints['operator_token']}"}

    async def ask_small(session: aiohttp.ClientSession, case: Case) -> tuple[int | None, bytes, bool]:
        async with places:
            return await ask(session, case)

    async with AsyncExitStack() as running:
        providers = {chain: await make_chain(stack, running, chain) for chain in Chain}
        async with aiohttp.ClientSession(stack.url, headers=stack.headers) as session:
            answers = dict(zip(SMALL, await asyncio.gather(*(ask_small(session, case) for case in SMALL)), strict=True))
            for case in LARGE_CASES:
                answers[case] = await ask(session, case)
        await stack.settled()
        async with stack.database() as database:
            rows = await database.fetch(
                "SELECT * FROM billing.requests WHERE client_request_id = ANY ($1)", list(CASES)
            )
            charged = await database.fetch(
                """
                SELECT t.request_id, t.kind, sum(e.amount_nano_usd) AS amount
                FROM billing.transactions t JOIN billing.entries e USING (transaction_id)
                WHERE t.request_id = ANY ($1) AND e.amount_nano_usd > 0 GROUP BY 1, 2, t.transaction_id
                """,
                [row["request_id"] for row in rows],
            )
    assert sorted(row["client_request_id"] for row in rows) == sorted(CASES)
    received: dict[Case, list[list[Exchange]]] = {case: [[] for _ in range(GROUPS)] for case in CASES.values()}
    for of_chain in providers.values():
        for position, provider in enumerate(of_chain):
            for exchange in provider.exchanges:
                received[case_of(exchange)][position].append(exchange)

    async def shown(session: aiohttp.ClientSession, request_id: str) -> Mapping[str, Any]:
        async with places, session.get(f"/api/v1/requests/{request_id}") as got:
            document: Mapping[str, Any] = await got.json()
            return document

    async with aiohttp.ClientSession(
        stack.endpoints["control_plane_url"], headers=operator, raise_for_status=True
    ) as session:
        documents = await asyncio.gather(*(shown(session, row["request_id"]) for row in rows))
    found: dict[Case, Seen] = {}
    for row, document in zip(rows, documents, strict=True):
        case = CASES[row["client_request_id"]]
        charges = [(each["kind"], int(each["amount"])) for each in charged if each["request_id"] == row["request_id"]]
        found[case] = Seen(*answers[case], received[case], row, charges, document)
    yield found


each_case = pytest.mark.parametrize("case", CASES.values(), ids=str)


@each_case
def test_each_provider_that_was_tried_got_the_request_once_whole_and_as_its_own(
    case: Case, seen: Mapping[Case, Seen]
) -> None:
    every_secret = {
        secret_of(f"matrix-{chain}-{shut}{n}") for chain in Chain for shut in ("", "shut-") for n in range(GROUPS)
    }
    for position, exchanges in enumerate(seen[case].received):
        if position not in case.tried or case.fault_at(position) is Fault.REFUSED:
            assert exchanges == []
            continue
        [exchange] = exchanges
        provider = case.provider(position)
        body = json.loads(exchange.body)
        assert body["model"] == upstream_model(provider)
        assert int(exchange.headers["content-length"]) == len(exchange.body)
        if kind_at(case.chain, position) == "openai":
            assert exchange.path == "/v1/chat/completions"
            assert exchange.headers["authorization"] == f"Bearer {secret_of(provider)}"
            assert "x-api-key" not in exchange.headers
            assert exchange.body == case.body.replace(
                f'"{case.model}"'.encode(), f'"{upstream_model(provider)}"'.encode(), 1
            )
        else:
            assert exchange.path == "/v1/messages"
            assert exchange.headers["x-api-key"] == secret_of(provider)
            assert "authorization" not in exchange.headers
            assert body["max_tokens"] == 50
            assert body.get("stream", False) is case.streamed
            [message] = body["messages"]
            text = message["content"] if isinstance(message["content"], str) else message["content"][0]["text"]
            assert text == json.loads(case.body)["messages"][0]["content"]
        told = json.dumps([exchange.path, dict(exchange.headers)]).encode() + exchange.body
        assert [name for name in exchange.headers if name.startswith(("x-tg-", "x-tollgate-", "x-envoy-"))] == []
        assert [secret for secret in every_secret - {secret_of(provider)} if secret.encode() in told] == []
        assert b"sk-tg-" not in told


@each_case
def test_each_provider_that_was_tried_got_the_headers_it_is_configured_with_and_none_of_anothers(
    case: Case, seen: Mapping[Case, Seen]
) -> None:
    for position, exchanges in enumerate(seen[case].received):
        for exchange in exchanges:
            told = {name: value for name, value in exchange.headers.items() if name.startswith(("x-of-", "x-shared"))}
            assert told == configured_at(position)
            assert exchange.headers["x-own"] == "a client's"


@each_case
def test_the_client_sees_the_first_good_answer_whole_or_how_the_last_one_failed(
    case: Case, seen: Mapping[Case, Seen]
) -> None:
    found = seen[case]
    if case.delivering is not None:
        assert (found.status, found.is_whole) == (200, True)
        assert f"answer-of-{case.delivering}".encode() in found.body
        assert found.body.endswith(b"data: [DONE]\n\n") is case.streamed
        return
    if case.fault is Fault.CUT and case.streamed:
        assert (found.status, found.is_whole, found.body) == (200, False, b"")
        return
    answer = json.loads(found.body)
    assert answer.keys() == {"error"}
    if case.fault.status is not None:
        assert (found.status, answer["error"]["message"]) == (case.fault.status, f"failed with {case.fault}")
    else:
        assert (found.status, answer["error"]["code"]) == ANSWERED[case.fault]


@each_case
def test_it_is_charged_once_by_the_price_of_who_delivered_or_not_at_all(case: Case, seen: Mapping[Case, Seen]) -> None:
    found, row = seen[case], seen[case].row
    if case.delivering is None:
        assert (row["outcome"], row["price_nano_usd"], found.charges) == ("released", 0, [])
        return
    price = (INPUT_TOKENS + OUTPUT_TOKENS) * price_at(case.delivering)
    assert (row["outcome"], row["provider"]) == ("settled", case.provider(case.delivering))
    assert (row["price_nano_usd"], row["cost_nano_usd"]) == (price, price)
    assert found.charges == [("usage", price)]


@each_case
def test_every_attempt_is_shown_in_its_order_with_provider_status_and_why_the_next_was_made(
    case: Case, seen: Mapping[Case, Seen]
) -> None:
    shown = seen[case].shown
    attempts = shown["attempts"]
    assert [each["number"] for each in attempts] == [position + 1 for position in case.tried]
    for each, position in zip(attempts, case.tried, strict=True):
        provider, fault = case.provider(position), case.fault_at(position)
        assert (each["provider"], each["upstream_model"]) == (provider, upstream_model(provider))
        is_last = position == case.tried[-1]
        if fault is None:
            assert (each["status"], each["tried_next_because"], each["cost"]) == (200, None, shown["cost"])
            continue
        status, why, cost = (fault.status, f"it answered {fault}", "0.00") if fault.status else TOLD[fault]
        if fault is Fault.CUT and (case.streamed or kind_at(case.chain, position) == "openai"):
            status = 200
        assert (each["status"], each["cost"]) == (status, cost)
        assert (each["tried_next_because"] or "").startswith("" if is_last else why)
        assert (each["tried_next_because"] is None) is is_last
        assert each["flags"] == ([] if fault.status else [why])


@pytest.mark.parametrize("reads_on", [True, False])
async def test_a_provider_that_refuses_a_large_body_before_it_has_read_it_is_left_for_the_next_one(
    stack: Stack, *, reads_on: bool
) -> None:
    name = f"matrix-early-{str(reads_on).lower()}"

    async def refuse(exchange: Exchange) -> None:
        await fail(exchange, Fault.RATE_LIMITED)
        if not reads_on:
            exchange.writer.close()

    async def answer_no_more(exchange: Exchange) -> None:
        exchange.writer.close()

    case = Case(Chain.CHAT, Fault.BROKEN, Place.FIRST, streamed=False, text_bytes=LARGE)
    body = case.body.replace(case.model.encode(), name.encode(), 1)
    async with (
        faulty_provider(answer_no_more, before_body=refuse) as hasty,
        faulty_provider(partial(deliver, text="good", streamed=False)) as good,
    ):
        await add_provider(stack, f"{name}-first", f"{hasty.address}/v1", "secret-of-hasty")
        await add_provider(stack, f"{name}-next", f"{good.address}/v1", "secret-of-next")
        await add_model(stack, name, [(f"{name}-first", "m"), (f"{name}-next", "m")])
        await wait_until_routed(stack, name)
        async with (
            aiohttp.ClientSession(stack.url, headers=stack.headers) as session,
            session.post("/v1/chat/completions", data=BytesIO(body)) as response,
        ):
            assert response.status == 200
            assert "good" in await response.text()
        [exchange] = good.exchanges
    assert exchange.body == body.replace(f'"{name}"'.encode(), b'"m"', 1)
    row = await stack.request_row(response.headers["x-request-id"])
    assert (row["outcome"], row["provider"], row["attempts"]) == ("settled", f"{name}-next", 2)
    async with stack.database() as database:
        [attempt] = await database.fetch(
            "SELECT * FROM billing.attempts WHERE request_id = $1", response.headers["x-request-id"]
        )
    # Where the connection goes at once, the answer may not come through.
    assert attempt["provider"] == f"{name}-first"
    assert attempt["status"] == 429 or (not reads_on and attempt["status"] == 0)
