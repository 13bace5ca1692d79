"""`python -m bench`: CPU per request and latency, for the provider alone, bare Envoy and Tollgate, in one run.

Rounds alternate between the candidates, so that a noisy neighbour meets all of them; figures are medians over rounds. CPU is
user plus system time of every process of the candidate, from /proc; the load generator and the provider are not counted.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.bare_envoy import bootstrap
from bench.load import Load, Sample, run_load
from bench.processes import RunningStack, cpu_s, find_pid, tollgate_up
from local_stack.envoy import running_envoy
from local_stack.ports import free_port

BODY = json.dumps(
    {"model": "gpt-4o-mini", "max_tokens": 16, "messages": [{"role": "user", "content": "x" * 900}]}
).encode()


@dataclass(frozen=True)
class Candidate:
    """Something that answers chat completions, and the processes it consists of."""

    name: str
    port: int
    headers: dict[str, str]
    pids: tuple[int, ...]


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds of one candidate."""

    cpu_us: float
    p50_ms: float
    p99_ms: float
    per_second: float


async def measure(
    candidates: Sequence[Candidate], *, rounds: int, requests: int, concurrency: int
) -> dict[str, Figures]:
    """Run the rounds and take the medians."""
    samples: dict[str, list[tuple[float, Sample]]] = {candidate.name: [] for candidate in candidates}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"concurrency {concurrency}", total=rounds * len(candidates))
        for _ in range(rounds):
            for candidate in candidates:
                load = Load(candidate.port, "/v1/chat/completions", candidate.headers, BODY)
                await run_load(load, requests=max(50, requests // 10), concurrency=concurrency)
                before = cpu_s(candidate.pids)
                sample = await run_load(load, requests=requests, concurrency=concurrency)
                # What follows a request (spool, ledger, ClickHouse) belongs to its price: wait for it.
                await asyncio.sleep(1.0)
                samples[candidate.name].append(((cpu_s(candidate.pids) - before) / requests * 1e6, sample))
                progress.advance(task)
    return {
        name: Figures(
            cpu_us=statistics.median(cpu for cpu, _ in found),
            p50_ms=statistics.median(sample.percentile_ms(50) for _, sample in found),
            p99_ms=statistics.median(sample.percentile_ms(99) for _, sample in found),
            per_second=statistics.median(sample.per_second for _, sample in found),
        )
        for name, found in samples.items()
    }


PER_MINUTE: Final = ("requests_per_minute_max", "tokens_per_minute_max")
AT_ONCE: Final = (*PER_MINUTE, "concurrency_max")
"""Where this is limited, every request is asked about."""


async def limited_key(stack: RunningStack, which: Sequence[str]) -> str:
    """A key with limits that none of these requests reaches."""
    url = f"{stack.control_plane_url}/api/v1/orgs/org_demo/keys"
    limits = dict.fromkeys(which, 1_000_000_000)
    headers = {"Authorization": f"Bearer {stack.operator_token}"}
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.post(url, json={"name": "bench", **limits}, headers=headers) as response,
    ):
        key: str = (await response.json())["key"]
        return key


async def ask_to_keep(stack: RunningStack, headers: dict[str, str]) -> None:
    """Have the answer kept that all rounds ask for."""
    url = f"http://127.0.0.1:{stack.gateway_port}/v1/chat/completions"
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.post(url, data=BODY, headers=headers) as response,
    ):
        await response.read()


async def run(arguments: argparse.Namespace) -> None:
    """Start the candidates, measure, print."""
    async with AsyncExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-bench-")))
        stack = await running.enter_async_context(tollgate_up(directory / "stack"))
        envoy_port = free_port()
        await running.enter_async_context(
            running_envoy(directory / "bare", bootstrap(envoy_port, stack.simulator_port))
        )
        bare_pid = find_pid("envoy", str(directory / "bare" / "envoy.json"))
        authorization = {"Authorization": f"Bearer {stack.api_key}"}
        wants_kept = {**authorization, "x-tollgate-cache": "on"}
        await ask_to_keep(stack, wants_kept)
        candidates = [
            Candidate("provider alone", stack.simulator_port, authorization, ()),
            Candidate("bare Envoy", envoy_port, authorization, (bare_pid,)),
            Candidate("Tollgate, data path", stack.gateway_port, authorization, stack.data_path),
            Candidate(
                "Tollgate, data path, answer was kept",
                stack.gateway_port,
                wants_kept,
                stack.data_path_and_cache,
            ),
            Candidate("Tollgate, everything", stack.gateway_port, authorization, stack.everything),
            Candidate(
                "Tollgate, everything, limits per minute",
                stack.gateway_port,
                {"Authorization": f"Bearer {await limited_key(stack, PER_MINUTE)}"},
                stack.everything,
            ),
            Candidate(
                "Tollgate, everything, limits at once too",
                stack.gateway_port,
                {"Authorization": f"Bearer {await limited_key(stack, AT_ONCE)}"},
                stack.everything,
            ),
        ]
        results = {
            concurrency: await measure(
                candidates, rounds=arguments.rounds, requests=arguments.requests, concurrency=concurrency
            )
            for concurrency in arguments.concurrency
        }
    for concurrency, figures in results.items():
        Console().print(_table(concurrency, figures))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({c: {n: vars(f) for n, f in r.items()} for c, r in results.items()}, indent=2)
        )


def _table(concurrency: int, figures: dict[str, Figures]) -> Table:
    table = Table(title=f"1 KB unary chat completions, concurrency {concurrency}", title_justify="left")
    table.add_column("candidate")
    for column in ("CPU µs/request", "x bare Envoy", "p50 ms", "p99 ms", "requests/s"):
        table.add_column(column, justify="right")
    bare = figures["bare Envoy"].cpu_us
    for name, found in figures.items():
        cpu = (f"{found.cpu_us:.0f}", f"{found.cpu_us / bare:.1f}") if found.cpu_us else ("-", "-")
        table.add_row(name, *cpu, f"{found.p50_ms:.2f}", f"{found.p99_ms:.2f}", f"{found.per_second:.0f}")
    return table


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="per candidate and concurrency (default 5)")
    parser.add_argument("--requests", type=int, default=1000, help="per round (default 1000)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16], help="default: 1 16")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
