"""`make bench`: Tollgate, bare Envoy and other gateways in front of one provider, in one run.

CPU is user plus system time of every process of a candidate, from /proc; the load generator and the provider are not counted. Other
gateways (`--peers`) are installed into `.bench/` the first time.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench import figures
from bench.candidates import (
    BARE,
    LONG_STREAM,
    SHORT_STREAM,
    UNARY,
    Candidate,
    Workload,
    running_bare_envoy,
    running_peers,
    running_provider,
    sell_mock_models,
    tollgate_candidates,
)
from bench.measuring import Figures, measure
from bench.peers import PEERS
from tests.support.stack import running_stack

PROVIDER: Final = "provider alone"
STREAMS_AT_ONCE: Final = 16

Results = Mapping[tuple[Workload, int], Mapping[str, Figures]]


async def run(arguments: argparse.Namespace) -> tuple[Sequence[Candidate], Results]:
    """Start the candidates and measure each kind of request."""
    async with AsyncExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-bench-")))
        provider_port = await running.enter_async_context(running_provider())
        stack = await running.enter_async_context(running_stack(directory / "stack"))
        await sell_mock_models(stack, provider_port)
        candidates = [
            Candidate(PROVIDER, provider_port),
            await running.enter_async_context(running_bare_envoy(directory / "bare", provider_port)),
            *await tollgate_candidates(stack, cold_keys=arguments.cold_keys),
            *await running.enter_async_context(running_peers(arguments.peers, provider_port)),
        ]
        wanted = [(UNARY, concurrency) for concurrency in arguments.concurrency]
        wanted += [(workload, STREAMS_AT_ONCE) for workload in (SHORT_STREAM, LONG_STREAM)]
        results = {}
        for workload, concurrency in wanted:
            results[workload, concurrency] = await measure(
                [candidate for candidate in candidates if not (workload.events and candidate.only_unary)],
                workload,
                rounds=arguments.rounds,
                seconds=arguments.seconds,
                concurrency=concurrency,
            )
            Console(width=160).print(_table(workload, concurrency, results[workload, concurrency]))
        return candidates, results


def _table(workload: Workload, concurrency: int, found: Mapping[str, Figures]) -> Table:
    table = Table(title=f"{workload.name}, {concurrency} at once", title_justify="left")
    table.add_column("candidate")
    columns = ("CPU µs/request", "x bare Envoy", "requests/s", "p50 ms", "p99 ms", "first byte p50 ms", "MiB")
    for column in (*columns, *(["CPU µs/event"] if workload.events else [])):
        table.add_column(column, justify="right")
    bare = found[BARE].cpu_us
    for name, each in found.items():
        cpu = (f"{each.cpu_us:,.0f}", f"{each.cpu_us / bare:.1f}") if each.cpu_us else ("-", "-")
        times = (f"{time:.2f}" for time in (each.p50_ms, each.p99_ms, each.first_byte_p50_ms))
        per_event = [f"{each.cpu_us / workload.events:.1f}"] if workload.events else []
        table.add_row(name, *cpu, f"{each.per_second:,.0f}", *times, f"{each.memory_mib:,.0f}", *per_event)
    return table


def _keep(candidates: Sequence[Candidate], results: Results) -> None:
    """Write `docs/benchmarks/comparison.*`."""
    rows = [
        {"workload": workload.name, "concurrency": concurrency, "candidate": name, **vars(each)}
        for (workload, concurrency), found in results.items()
        for name, each in found.items()
    ]
    says = {candidate.name: candidate.says for candidate in candidates if candidate.says}
    figures.write("comparison", {"candidates": says, "figures": rows})
    panels = {
        f"{workload.name}, {concurrency} at once": {name: each.cpu_us for name, each in found.items() if each.cpu_us}
        for (workload, concurrency), found in results.items()
        if concurrency == STREAMS_AT_ONCE
    }
    figures.bars("comparison", "CPU that one request costs", panels, "µs, all processes")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="for each candidate and kind of request (default 3)")
    parser.add_argument("--seconds", type=float, default=3, help="for each round (default 3)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64], help="default: 1 16 64")
    parser.add_argument("--cold-keys", type=int, default=100_000, help="default 100,000")
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peers", nargs="*", default=[], choices=names, help=f"of {', '.join(names)}; default none")
    parser.add_argument("--keep", action="store_true", help="write the figures to docs/benchmarks")
    arguments = parser.parse_args()
    candidates, results = asyncio.run(run(arguments))
    if arguments.keep:
        _keep(candidates, results)


if __name__ == "__main__":
    main()
