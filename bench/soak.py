"""`make soak`: half an hour at 70 % of what the gateway can do, of every kind of request, with a look at the memory all the while.

Prints a table, and ends with 1 if the memory of a process has grown where it should be flat, if a request was answered in a way that its
kind does not explain, or if the books are not whole in the end. `--keep` draws the memory into `docs/benchmarks/soak.svg`.
"""

import argparse
import asyncio
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, mean
from time import monotonic
from typing import Final

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import figures
from bench.candidates import LONG_STREAM, SHORT_STREAM, UNARY, Workload, running_provider, sell_mock_models
from bench.chaos.books import check
from bench.keys import add_keys
from bench.processes import resident_mib
from tests.support.stack import Stack, running_stack

LOAD: Final = 0.7
CAPACITY_S: Final = 10.0
AT_ONCE: Final = 32
SAMPLE_S: Final = 5.0
SETTLING: Final = 1 / 3
"""Of the time, in which caches fill and are not judged."""
GROWN_MAX: Final = 0.05
"""By how much memory may be larger after another hour, by the line through what was seen: more than that is a leak."""
NOISE_MIB: Final = 16.0
"""A growth over the time seen that is less than this says nothing."""


@dataclass(frozen=True)
class Kind:
    """One kind of request, how often it comes, and what it is answered."""

    name: str
    workload: Workload
    share: int
    statuses: frozenset[int] = frozenset({200})


KINDS: Final = (
    Kind("busy key", UNARY, 60),
    Kind("many keys", UNARY, 10),
    Kind("short stream", SHORT_STREAM, 15),
    Kind("long stream", LONG_STREAM, 3),
    Kind("client leaves", LONG_STREAM, 2),
    Kind("limited key", UNARY, 5, frozenset({200, 429})),
    Kind("unknown model", Workload("unknown", "no-such-model"), 3, frozenset({404})),
    Kind("unknown key", UNARY, 2, frozenset({401})),
)


@dataclass
class Seen:
    """What was answered, and what processes kept in memory, by the second."""

    answers: Counter[tuple[str, int | str]] = field(default_factory=Counter)
    memory_mib: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    @property
    def unexplained(self) -> Mapping[tuple[str, int | str], int]:
        """Answers that their kind does not explain."""
        expected = {(kind.name, status) for kind in KINDS for status in kind.statuses}
        return {answer: count for answer, count in self.answers.items() if answer not in expected}


@dataclass(frozen=True)
class Slope:
    """How memory went once it had settled."""

    mean_mib: float
    mib_per_hour: float
    seconds: float

    @property
    def is_flat(self) -> bool:
        """Whether it may be called so."""
        grown_mib = self.mib_per_hour * self.seconds / 3600
        return grown_mib < NOISE_MIB or self.mib_per_hour < GROWN_MAX * self.mean_mib


def slope(samples: Sequence[tuple[float, float]]) -> Slope:
    """The line through the samples (second, MiB) after the first third of the time."""
    settled = [each for each in samples if each[0] >= samples[-1][0] * SETTLING]
    seconds, memory = zip(*settled, strict=True)
    per_second, _ = linear_regression(seconds, memory)
    return Slope(mean(memory), per_second * 3600, seconds[-1] - seconds[0])


class Soak:
    """The load on one stack."""

    def __init__(self, stack: Stack, keys: Mapping[str, Sequence[str]], session: aiohttp.ClientSession) -> None:
        self._keys = {name: itertools.cycle(each) for name, each in keys.items()}
        self._session = session
        self._pids: Mapping[str, int] = stack.endpoints["pids"]
        self.seen = Seen()

    async def capacity(self) -> float:
        """Requests per second that are answered, and that this client can send, when some ask one after the other."""
        kinds = itertools.cycle(_mixed())
        ends_s = monotonic() + CAPACITY_S

        async def client() -> int:
            asked = 0
            while monotonic() < ends_s:
                await self._ask(next(kinds))
                asked += 1
            return asked

        found = sum(await asyncio.gather(*(client() for _ in range(AT_ONCE)))) / CAPACITY_S
        self.seen = Seen()
        return found

    async def run(self, *, seconds: float, per_second: float) -> None:
        """Send so many each second, evenly, without waiting for answers; look at the memory meanwhile."""
        kinds = itertools.cycle(_mixed())
        began_s = monotonic()
        running: set[asyncio.Task[None]] = set()
        sampling = asyncio.create_task(self._sample(began_s), name="sample")
        try:
            with Progress(console=Console(stderr=True), transient=True) as progress:
                bar = progress.add_task("soak", total=seconds)
                sent = 0
                while (now_s := monotonic() - began_s) < seconds:
                    while sent < now_s * per_second:
                        task = asyncio.create_task(self._ask(next(kinds)))
                        running.add(task)
                        task.add_done_callback(running.discard)
                        sent += 1
                    progress.update(bar, completed=now_s)
                    await asyncio.sleep(0.005)
            await asyncio.gather(*running)
        finally:
            sampling.cancel()
            await asyncio.wait([sampling])

    async def _ask(self, kind: Kind) -> None:
        headers = {"Authorization": f"Bearer {next(self._keys.get(kind.name, self._keys['busy key']))}"}
        body = kind.workload.body(kind.workload.model)
        try:
            async with self._session.post("/v1/chat/completions", data=body, headers=headers) as response:
                status: int | str = response.status
                if kind.name == "client leaves":
                    await response.content.readany()
                    response.close()
                elif response.ok and kind.workload.events and b"[DONE]" not in await response.read():
                    status = "cut"
                else:
                    await response.read()
        except aiohttp.ClientError as error:
            status = type(error).__name__
        self.seen.answers[kind.name, status] += 1

    async def _sample(self, began_s: float) -> None:
        while True:
            for name, pid in self._pids.items():
                self.seen.memory_mib.setdefault(name, []).append((monotonic() - began_s, resident_mib([pid])))
            await asyncio.sleep(SAMPLE_S)


def _mixed() -> Sequence[Kind]:
    """A hundred, each kind as often as its share says, spread evenly."""
    places = [((number + 0.5) * 100 / kind.share, kind) for kind in KINDS for number in range(kind.share)]
    return [kind for _, kind in sorted(places, key=lambda place: place[0])]


async def run(minutes: float) -> tuple[float, Seen]:
    """A stack of its own under load for so long; requests per second, and what was seen.

    Raises:
        WrongBooksError: the books are not whole in the end.
    """
    async with AsyncExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-soak-")))
        provider_port = await running.enter_async_context(running_provider())
        stack = await running.enter_async_context(running_stack(directory / "stack"))
        await sell_mock_models(stack, provider_port)
        keys = {
            "busy key": [await stack.make_key("busy", balance="1000000")],
            "many keys": await add_keys(stack, "many", 10_000),
            "limited key": [await stack.make_key("limited", balance="1000000")],
            "unknown key": ["sk-tg-live-unknown"],
        }
        async with stack.database() as database:
            await database.execute(
                "UPDATE accounts.api_keys SET requests_per_minute_max = 600 WHERE key_id = 'key_limited'"
            )
        connector = aiohttp.TCPConnector(limit=0)
        session = await running.enter_async_context(aiohttp.ClientSession(stack.url, connector=connector))
        soak = Soak(stack, keys, session)
        per_second = LOAD * await soak.capacity()
        await soak.run(seconds=minutes * 60, per_second=per_second)
        await stack.settled()
        await check(stack)
        return per_second, soak.seen


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(prog="make soak ARGS=...", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="default 30")
    parser.add_argument("--keep", action="store_true", help="write the figures to docs/benchmarks")
    arguments = parser.parse_args()
    per_second, seen = asyncio.run(run(arguments.minutes))
    slopes = {name: slope(samples) for name, samples in seen.memory_mib.items()}
    console = Console(width=120)
    console.print(_memory(slopes))
    console.print(f"{sum(seen.answers.values()):,} requests, {per_second:.0f} each second; the books are whole")
    for (kind, status), count in sorted(seen.answers.items(), key=str):
        console.print(f"  {kind}: {status} x {count:,}{' UNEXPLAINED' if (kind, status) in seen.unexplained else ''}")
    if arguments.keep:
        _keep(per_second, seen, slopes)
    sys.exit(1 if seen.unexplained or not all(each.is_flat for each in slopes.values()) else 0)


def _memory(slopes: Mapping[str, Slope]) -> Table:
    table = Table(title="Memory, after the first third of the time", title_justify="left")
    table.add_column("process")
    for column in ("mean MiB", "MiB per hour", "flat"):
        table.add_column(column, justify="right")
    for name, each in slopes.items():
        table.add_row(name, f"{each.mean_mib:.0f}", f"{each.mib_per_hour:+.1f}", "yes" if each.is_flat else "NO")
    return table


def _keep(per_second: float, seen: Seen, slopes: Mapping[str, Slope]) -> None:
    answers = [{"kind": kind, "status": status, "count": count} for (kind, status), count in seen.answers.items()]
    memory = {name: vars(each) for name, each in slopes.items()}
    figures.write("soak", {"requests_per_second": per_second, "answers": answers, "memory": memory})
    minutes = {name: [(second / 60, mib) for second, mib in samples] for name, samples in seen.memory_mib.items()}
    figures.lines("soak", "Memory under load", {"minutes": minutes}, "MiB", is_log=False)


if __name__ == "__main__":
    main()
