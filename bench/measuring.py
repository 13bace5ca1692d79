"""Rounds that alternate between candidates, so that a noisy neighbour meets all of them; figures are medians over rounds."""

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress

from bench.candidates import Candidate, Workload
from bench.load import Sample, percentile, run_load
from bench.processes import cpu_s, resident_mib

WARM_S = 0.5
AFTER_S = 1.2
"""What follows a request (spool, ledger, ClickHouse) belongs to its price: it is waited for."""


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds of one candidate.

    Attributes:
        cpu_us: user and system time of all its processes, per request; 0 where none are counted.
        memory_mib: after the last round.
    """

    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    first_byte_p50_ms: float
    memory_mib: float


async def measure(
    candidates: Sequence[Candidate], workload: Workload, *, rounds: int, seconds: float, concurrency: int
) -> Mapping[str, Figures]:
    """Run the rounds and take the medians.

    Raises:
        BadAnswerError: a candidate has answered otherwise than it should.
    """
    samples: dict[str, list[tuple[float, Sample]]] = {candidate.name: [] for candidate in candidates}
    asked = dict.fromkeys(samples, 0)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{workload.name}, {concurrency} at once", total=rounds * len(candidates))
        for _ in range(rounds):
            for candidate in candidates:
                load, name = candidate.load(workload), candidate.name
                warm = await run_load(load, seconds=WARM_S, concurrency=concurrency, first=asked[name])
                asked[name] += len(warm.durations_ms)
                before = cpu_s(candidate.pids)
                sample = await run_load(load, seconds=seconds, concurrency=concurrency, first=asked[name])
                asked[name] += len(sample.durations_ms)
                await asyncio.sleep(AFTER_S if candidate.pids else 0)
                cpu = (cpu_s(candidate.pids) - before) / len(sample.durations_ms)
                samples[name].append((cpu * 1e6, sample))
                progress.advance(task)
    return {
        candidate.name: Figures(
            cpu_us=statistics.median(cpu for cpu, _ in samples[candidate.name]),
            per_second=statistics.median(sample.per_second for _, sample in samples[candidate.name]),
            p50_ms=statistics.median(percentile(sample.durations_ms, 50) for _, sample in samples[candidate.name]),
            p99_ms=statistics.median(percentile(sample.durations_ms, 99) for _, sample in samples[candidate.name]),
            first_byte_p50_ms=statistics.median(
                percentile(sample.first_bytes_ms, 50) for _, sample in samples[candidate.name]
            ),
            memory_mib=resident_mib(candidate.pids),
        )
        for candidate in candidates
    }
