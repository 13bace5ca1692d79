"""The load: clients of several organisations, each asking all the time; and what each request was answered."""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final

import aiohttp

from bench.chaos.verdict import Seen

CLIENTS_OF_EACH: Final = 4
REQUEST_S_MAX: Final = 30.0
PAUSE_S: Final = 0.05
"""Between two requests of a client, as long as they are refused or get no answer."""
OUT_OF_MONEY: Final = 402


@dataclass(frozen=True, slots=True)
class Customer:
    """An organisation with a key."""

    org_id: str
    key: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request: what the provider is told to do, and after how many bytes the client leaves."""

    knobs: str
    stream: bool = False
    status: int = 200
    leave_after: int | None = None


KINDS: Final = (
    Kind("output_tokens=20 latency_ms=30"),
    Kind("output_tokens=20 latency_ms=30"),
    Kind("output_tokens=20 token_delay_ms=10", stream=True),
    Kind("output_tokens=60 token_delay_ms=20", stream=True),
    Kind("output_tokens=60 token_delay_ms=20", stream=True, leave_after=2000),
    Kind("error=500", status=500),
)


@dataclass
class _Answer:
    status: int | None = None
    request_id: str | None = None
    delivered_bytes: int = 0
    is_whole: bool = False


class Load:
    """Asks the gateway at a URL. The same seed asks the same."""

    def __init__(self, url: str, customers: Sequence[Customer], *, seed: int) -> None:
        self._url = url
        self._customers = customers
        self._seed = seed
        self._clients = itertools.count()
        self._requests = itertools.count()
        self.seen: list[Seen] = []
        """Every request that has ended so far."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask while the block runs; it is left when the last answer has come."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for customer in self._customers:
                for _ in range(CLIENTS_OF_EACH):
                    rng = random.Random(f"{self._seed}-{next(self._clients)}")  # noqa: S311 - to be repeated
                    group.create_task(self._client(customer, rng, over), name=f"client of {customer.org_id}")
            try:
                yield
            finally:
                over.set()

    async def _client(self, customer: Customer, rng: random.Random, over: asyncio.Event) -> None:
        headers = {"Authorization": f"Bearer {customer.key}"}
        async with aiohttp.ClientSession(self._url, headers=headers) as session:
            while not over.is_set():
                seen = await self.ask(session, customer, rng.choice(KINDS))
                if seen.is_refused or seen.status == OUT_OF_MONEY:
                    await asyncio.sleep(PAUSE_S)

    async def ask(self, session: aiohttp.ClientSession, customer: Customer, kind: Kind) -> Seen:
        """One request, and what became of it."""
        client_request_id = f"chaos-{next(self._requests)}"
        body = {
            "model": "gpt-4o-mini",
            "max_tokens": 100,
            "stream": kind.stream,
            "messages": [{"role": "user", "content": f"Tell me. [[sim {kind.knobs}]]"}],
        }
        answer, began_s = _Answer(), monotonic()
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with (
                asyncio.timeout(REQUEST_S_MAX),
                session.post(
                    "/v1/chat/completions", data=json.dumps(body), headers={"x-request-id": client_request_id}
                ) as response,
            ):
                answer.status, answer.request_id = response.status, response.headers.get("x-request-id")
                await _read(response, kind, answer)
        seen = Seen(
            client_request_id=client_request_id,
            org_id=customer.org_id,
            began_s=began_s,
            ended_s=monotonic(),
            status=answer.status,
            request_id=answer.request_id,
            delivered_bytes=answer.delivered_bytes,
            is_whole=answer.is_whole,
            is_refused=answer.status not in (kind.status, OUT_OF_MONEY)
            or not (answer.is_whole or kind.leave_after is not None),
        )
        self.seen.append(seen)
        return seen


async def _read(response: aiohttp.ClientResponse, kind: Kind, answer: _Answer) -> None:
    async for chunk in response.content.iter_any():
        answer.delivered_bytes += len(chunk)
        if kind.leave_after is not None and answer.delivered_bytes >= kind.leave_after:
            response.close()
            return
    answer.is_whole = True


def served_again_s(seen: Sequence[Seen], since_s: float) -> float:
    """From a moment until every organisation whose requests were refused has had a good answer to a later one; 0 if none was.

    Raises:
        LookupError: one of them had none.
    """
    return max(_served_again_s(seen, since_s), default=0.0)


def _served_again_s(seen: Sequence[Seen], since_s: float) -> Iterator[float]:
    for org_id in {each.org_id for each in seen}:
        of_org = [each for each in seen if each.org_id == org_id]
        refused = [each.began_s for each in of_org if each.is_refused]
        if not refused:
            continue
        good = [each.ended_s for each in of_org if not each.is_refused and each.began_s > max(refused)]
        if not good:
            raise LookupError(f"{org_id} was not served again")
        yield min(good) - since_s
