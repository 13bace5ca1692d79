"""Sends what was planned to the gateway, each request at its moment, and tells how each ended. The edge where aiohttp stops."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from gateway_core.clock import Monotonic
from gateway_core.contract import CacheOutcome, Header
from tollgate.traffic.plan import Planned, Slot
from tollgate.traffic.tally import Ended
from tollgate.traffic.tenants import App

AT_ONCE_MAX: Final = 64
"""Requests that run. With as many, the next ones begin later than planned."""
_TIMEOUT_S: Final = 30.0
_PIECE_BYTES: Final = 65_536
UNKNOWN_KEY: Final = "sk-tg-live-there-is-no-such-key"


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends requests to one gateway.

    Attributes:
        url: the gateway, without a path.
        keys: of every program.
        told: called with the end of each request.
    """

    url: str
    keys: Mapping[App, str] = field(repr=False)
    monotonic: Monotonic
    told: Callable[[Ended], None]

    async def send(self, slots: list[Slot], written: Callable[[Slot], Planned]) -> None:
        """Send all of them, at most `AT_ONCE_MAX` at once."""
        places = asyncio.Semaphore(AT_ONCE_MAX)
        # Each with a connection of its own, as from a program of its own: one that Envoy closes at that moment would lose a request.
        connector = aiohttp.TCPConnector(limit=AT_ONCE_MAX, force_close=True)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        began_s = self.monotonic()
        async with (
            aiohttp.ClientSession(self.url, connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as running,
        ):
            for slot in slots:
                await asyncio.sleep(max(0.0, began_s + slot.at_s - self.monotonic()))
                await places.acquire()
                task = running.create_task(self._one(session, written(slot)), name=f"request {slot.number}")
                task.add_done_callback(lambda _: places.release())

    async def _one(self, session: aiohttp.ClientSession, planned: Planned) -> None:
        began_s = self.monotonic()
        ended = await self._exchange(session, planned, began_s)
        self.told(ended)

    async def _exchange(self, session: aiohttp.ClientSession, planned: Planned, began_s: float) -> Ended:
        status, has_left, is_cached = None, False, False
        try:
            async with (
                asyncio.timeout(planned.patience_s),
                session.post(planned.path, data=planned.body, headers=self._headers(planned)) as answer,
            ):
                status = answer.status
                is_cached = answer.headers.get(Header.CACHE) == CacheOutcome.HIT
                has_left = await _read(answer, planned.events_until_gone)
        except TimeoutError:
            has_left = planned.patience_s is not None
        except aiohttp.ClientError:
            # An answer that breaks off has a status, and a connection that there is not has none.
            pass
        return Ended(planned.story, status, self.monotonic() - began_s, has_left, is_cached)

    def _headers(self, planned: Planned) -> Mapping[str, str]:
        key = UNKNOWN_KEY if planned.app is None else self.keys[planned.app]
        return {**planned.headers, "Authorization": f"Bearer {key}"}


async def _read(answer: aiohttp.ClientResponse, pieces_until_gone: int | None) -> bool:
    """Read an answer to its end, or leave after so many pieces; whether the client has left."""
    if pieces_until_gone is None:
        async for _ in answer.content.iter_chunked(_PIECE_BYTES):
            pass
        return False
    for _ in range(pieces_until_gone):
        if not await answer.content.readany():
            return False
    answer.close()
    return True
