"""`make bench-growth`: what a request costs when there are more keys, models and providers, and when its body is larger.

Everything grows on one stack, beside a bare Envoy that does not; so that what a neighbour of the machine does is not taken for
growth, figures are multiples of bare Envoy's in the same round. Only for bodies both grow.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench import figures
from bench.candidates import BARE, UNARY, Candidate, Workload, running_bare_envoy, running_provider, sell_mock_models
from bench.edit_to_applied import add_models
from bench.keys import add_keys
from bench.load import BadAnswerError, run_load
from bench.measuring import Figures, measure
from bench.processes import data_path, resident_mib
from tests.support.stack import Stack, add_provider, running_stack

KEYS: Final = (10, 10_000, 1_000_000)
MODELS: Final = (1, 100, 2_000)
PROVIDERS: Final = (1, 10, 200)
BODIES: Final = (1_000, 100_000, 10_000_000)
BUSY: Final = "one busy key"
EACH_ANOTHER: Final = "each request another key"
_OFFERED_S: Final = 120

Rows = list[dict[str, Any]]


class Growth:
    """One stack that grows, and what was found at each size."""

    def __init__(
        self, stack: Stack, bare: Candidate, busy_key: str, provider_port: int, *, rounds: int, seconds: float
    ) -> None:
        self._stack = stack
        self._bare = bare
        self._busy_key = busy_key
        self._provider_port = provider_port
        self._rounds = rounds
        self._seconds = seconds
        self.rows: Rows = []

    async def keys(self, sizes: Sequence[int]) -> None:
        """More and more of them lie in Postgres; either one is busy or none comes twice."""
        keys: list[str] = []
        for size in sizes:
            keys += await add_keys(self._stack, f"grown{size}", size - len(keys))
            each_another = self._tollgate(EACH_ANOTHER, [f"Bearer {key}" for key in keys])
            await self._measure("keys", size, [self._busy, each_another])

    async def models(self, sizes: Sequence[int]) -> None:
        """More and more models of one provider, on a route each."""
        for before, size in zip([0, *sizes], sizes, strict=False):
            await self._offer([(f"grown-{number}", "mock") for number in range(before, size)])
            await self._measure("models", size, [self._busy])

    async def providers(self, sizes: Sequence[int]) -> None:
        """More and more providers, with a model each."""
        address = f"http://127.0.0.1:{self._provider_port}/v1"
        for before, size in zip([0, *sizes], sizes, strict=False):
            for number in range(before, size):
                await add_provider(self._stack, f"mock-{number}", address, "sk-of-another")
            await self._offer([(f"of-mock-{number}", f"mock-{number}") for number in range(before, size)])
            await self._measure("providers", size, [self._busy])

    async def _offer(self, offers: Sequence[tuple[str, str]]) -> None:
        """Sell these models, and wait until the last one is answered."""
        async with self._stack.database() as database:
            await add_models(database, offers)
        last = self._busy.load(replace(UNARY, model=offers[-1][0]))
        async with asyncio.timeout(_OFFERED_S):
            while True:
                try:
                    await run_load(last, seconds=0.001, concurrency=1)
                except* BadAnswerError:
                    await asyncio.sleep(0.5)
                else:
                    return

    async def bodies(self, sizes: Sequence[int]) -> None:
        """The same request with more text."""
        for size in sizes:
            await self._measure("bytes of a body", size, [self._busy], replace(UNARY, body_bytes=size), concurrency=4)

    @property
    def _busy(self) -> Candidate:
        return self._tollgate(BUSY, [f"Bearer {self._busy_key}"])

    def _tollgate(self, name: str, authorizations: Sequence[str]) -> Candidate:
        pids = data_path(self._stack.endpoints["pids"])
        return Candidate(name, self._stack.ports["gateway"], authorizations, pids)

    async def _measure(
        self, grows: str, size: int, candidates: Sequence[Candidate], workload: Workload = UNARY, concurrency: int = 16
    ) -> None:
        found = await measure(
            [self._bare, *candidates], workload, rounds=self._rounds, seconds=self._seconds, concurrency=concurrency
        )
        for name, each in found.items():
            row = {"grows": grows, "size": size, "candidate": name, "x_bare": each.cpu_us / found[BARE].cpu_us}
            self.rows.append({**row, **_of(each)})


def _of(found: Figures) -> Mapping[str, float]:
    return {"cpu_us": found.cpu_us, "p50_ms": found.p50_ms, "p99_ms": found.p99_ms, "memory_mib": found.memory_mib}


async def run(arguments: argparse.Namespace) -> Rows:
    """Start everything and let it grow."""
    async with AsyncExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-bench-")))
        provider_port = await running.enter_async_context(running_provider())
        stack = await running.enter_async_context(running_stack(directory / "stack"))
        await sell_mock_models(stack, provider_port)
        bare = await running.enter_async_context(running_bare_envoy(directory / "bare", provider_port))
        busy_key = await stack.make_key("bench", balance="1000000")
        growth = Growth(stack, bare, busy_key, provider_port, rounds=arguments.rounds, seconds=arguments.seconds)
        await growth.bodies(BODIES)
        await growth.providers(PROVIDERS)
        await growth.models(MODELS)
        await growth.keys([size for size in KEYS if size <= arguments.keys_max])
        memory = resident_mib(data_path(stack.endpoints["pids"]))
        Console().print(f"Envoy and ext_authz in the end: {memory:.0f} MiB")
        return growth.rows


def _table(rows: Rows) -> Table:
    table = Table(title="What a request costs as things grow: Envoy and ext_authz", title_justify="left")
    for column in ("what grows", "to", "candidate"):
        table.add_column(column)
    for column in ("CPU µs/request", "x bare Envoy", "p50 ms", "MiB"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = (f"{row['cpu_us']:,.0f}", f"{row['x_bare']:.1f}", f"{row['p50_ms']:.2f}", f"{row['memory_mib']:,.0f}")
        table.add_row(row["grows"], f"{row['size']:,}", row["candidate"], *numbers)
    return table


def _draw(rows: Rows) -> None:
    """Write `docs/benchmarks/growth.*`."""
    figures.write("growth", {"figures": rows})
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row["candidate"] != BARE:
            panels.setdefault(row["grows"], {}).setdefault(row["candidate"], []).append((row["size"], row["x_bare"]))
    figures.lines("growth", "CPU of a request as things grow", panels, "x bare Envoy")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="make bench-growth ARGS=...", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="at each size (default 3)")
    parser.add_argument("--seconds", type=float, default=3, help="for each round (default 3)")
    parser.add_argument("--keys-max", type=int, default=KEYS[-1], help="default 1,000,000: a minute more")
    parser.add_argument("--keep", action="store_true", help="write the figures to docs/benchmarks")
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    Console(width=160).print(_table(rows))
    if arguments.keep:
        _draw(rows)


if __name__ == "__main__":
    main()
