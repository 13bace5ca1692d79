"""Requests of one organisation on many connections, and a stack with two Envoys that they come to."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.stack import Stack, running_stack, second_envoy

CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Pair:
    """A stack with two of every service of ours and two Envoys, and the admin interfaces of these."""

    stack: Stack
    admin_urls: tuple[str, str]

    async def requests_of_each_envoy(self) -> list[int]:
        """How many have come to each."""
        found = []
        async with aiohttp.ClientSession() as session:
            for url in self.admin_urls:
                async with session.get(f"{url}/stats?filter=http.gateway.downstream_rq_total") as got:
                    found.append(int((await got.text()).split()[-1]))
        return found


@asynccontextmanager
async def running_pair(data_dir: Path, **environment: str) -> AsyncIterator[Pair]:
    """One until the block ends."""
    async with running_stack(data_dir, replicas=2, **environment) as stack, second_envoy(stack) as admin_url:
        yield Pair(stack, (stack.endpoints["envoy_admin_url"], admin_url))


@dataclass(frozen=True)
class Answer:
    """When a request was answered, by the monotonic clock, how, and after how long."""

    at_s: float
    waited_s: float
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def error(self) -> Any:
        """What a refusal says."""
        return json.loads(self.text)["error"]


@dataclass
class Flood:
    """Requests of one key, all alike, and what became of each."""

    url: str
    key: str
    model: str
    directives: str = "output_tokens=5"
    fields: Mapping[str, object] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)

    @property
    def statuses(self) -> Counter[int]:
        """How many were answered how."""
        return Counter(each.status for each in self.answers)

    @property
    def refusals(self) -> list[Answer]:
        """Those that were not answered well."""
        return [each for each in self.answers if each.status != 200]

    async def one(self, session: aiohttp.ClientSession) -> int:
        """Ask once."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": f"Hello. [[sim {self.directives}]]"}],
            **self.fields,
        }
        began = time.monotonic()
        headers = {"Authorization": f"Bearer {self.key}"}
        async with session.post(self.url + CHAT, json=body, headers=headers) as response:
            text = await response.text()
        at = time.monotonic()
        self.answers.append(Answer(at, at - began, response.status, response.headers, text))
        return response.status

    async def run(self, *, seconds: float, connections: int, pause_s: float) -> None:
        """Ask again and again on each of the connections."""
        until = time.monotonic() + seconds

        async def ask() -> None:
            async with aiohttp.ClientSession() as session:
                while time.monotonic() < until:
                    await self.one(session)
                    await asyncio.sleep(pause_s)

        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(ask())
